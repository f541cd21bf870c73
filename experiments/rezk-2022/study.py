"""One model of the study: what is run by which method on which part. Every finished cell is a line of a log."""

from __future__ import annotations

import combinations
import models
import numpy as np
import torch
from log import Log
from published import Simulation, float_statistics
from quantizers import WIDE
from rows import overrides_of, rules_of, scheme_of
from speed import search_part

import rindle
from rindle.measure.rezk import executed_by_rules, size_by_rules
from rindle.nn.capture.source import source_of
from rindle.nn.conversion.convert import hash_of
from rindle.search.choose_thresholds import choose_thresholds, spread

CHUNK = 72  # sequences that a simulation runs side by side


class Published:
    """A simulation as the task asks for its scores. densities: (layer, source) -> of what was run last."""

    def __init__(self, simulation: Simulation, thetas: dict | None = None):
        self.simulation, self.thetas, self.densities = simulation, thetas, {}

    def sequences(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        found, total = [None] * len(rows), {}
        order = np.argsort([len(row) for row in rows], kind="stable")
        for chosen in (order[k : k + CHUNK] for k in range(0, len(order), CHUNK)):
            y, densities = self.simulation.run([rows[k] for k in chosen], self.thetas)
            frames = sum(len(rows[k]) for k in chosen)
            for key, density in densities.items():
                total[key] = total.get(key, 0.0) + density * frames
            for k, one in zip(chosen, y):
                found[k] = one.numpy()
        frames = sum(map(len, rows))
        self.densities = {key: value / frames for key, value in total.items()}
        return found


class Runtime:
    """A rindle.Model as the task asks for its scores. measured: what was run last (rindle.engines.measurement.Measurement)."""

    def __init__(self, model: rindle.Model):
        self.model, self.measured = model, None

    def sequences(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        lengths = np.array([len(row) for row in rows], np.int32)
        x = np.zeros((len(rows), lengths.max(), rows[0].shape[1]), np.float32)
        for one, row in zip(x, rows):
            one[: len(row)] = row
        self.measured = self.model.measure(x, lengths)
        return [y[:length] for y, length in zip(self.measured.output, lengths)]


class Study:
    """kind: of the model, for the keys. network: in evaluation; its batch norms are taken out of W for the published method.

    task: has parts "calibration", "search" and "test", features(utterance) and measured(model, part). say: called with a line
    for every cell.
    """

    def __init__(self, kind: str, network, task, log: Log, say=print):
        self.kind, self.network, self.task, self.log, self.say = kind, network, task, log, say
        self.calibration = [task.features(one) for one in task.parts["calibration"]]
        self.deployed = models.deploy(network)
        self.graph, _ = source_of(self.deployed).capture(self.calibration[0][:40, None])
        self.gains = batch_norms(network, self.graph)
        self.weights = hash_of(network.state_dict())[:12]
        self._floats, self._simulations, self._models = {}, {}, {}

    # -- one quantized model of each method; one at a time is kept: the log has what was asked before

    def simulation(self, row: str, skip: str, rescale: str = "clean") -> Simulation:
        if (row, skip, rescale) not in self._simulations:
            made = Simulation(self.graph, rules_of(row, skip, self.graph), rescale, self.gains)
            if rescale not in self._floats:
                self._floats[rescale] = float_statistics(self.graph, self.calibration, rescale, self.gains)
            made.calibrate(self.calibration, self._floats[rescale])
            self._simulations = {(row, skip, rescale): made}
        return self._simulations[row, skip, rescale]

    def model(self, row: str, skip: str, method: str = "rindle") -> rindle.Model:
        """As a user makes it."""
        if (row, skip, method) not in self._models:
            sequences = [one[:, None] for one in self.calibration]
            scheme = scheme_of(row, skip, self.graph)
            words = overrides_of(row, skip, self.graph, method)
            self._models = {(row, skip, method): rindle.quantize(self.deployed, scheme, sequences, words or None)}
        return self._models[row, skip, method]

    # -- cells

    def float_cell(self, part: str) -> dict:
        return self._cell({"method": "float", "part": part}, lambda: self._errors(self.network, part))

    def cell(
        self, method: str, row: str, skip: str, part: str, thetas: dict[str, int] | None = None, rescale: str = "clean"
    ) -> dict:
        """Errors of each utterance, size and eliminated share. thetas: "node/source" -> θ, of the forward direction for both."""
        key = {"method": method, "row": row, "skip": skip, "part": part}
        if method == "published":
            key["rescale"] = rescale
        if any((thetas or {}).values()):
            key["thetas"] = {name: theta for name, theta in thetas.items() if theta}
        make = self._published if method == "published" else self._rindle
        return self._cell(key, lambda: make(method, row, skip, part, thetas or {}, rescale))

    def _published(self, method: str, row: str, skip: str, part: str, thetas: dict[str, int], rescale: str) -> dict:
        simulation = self.simulation(row, skip, rescale)
        runs = Published(simulation, {tuple(name.rsplit("/", 1)): theta for name, theta in thetas.items()})
        found = self._errors(runs, part) | self._size(row, skip, method)
        rules, densities = rules_of(row, skip, self.graph), simulation.by_node(runs.densities)
        found["densities"] = {"/".join(name): round(value, 4) for name, value in runs.densities.items()}
        return found | {"eliminated": 1 - executed_by_rules(self.graph, rules, densities, elementwise=True)}

    def _rindle(self, method: str, row: str, skip: str, part: str, thetas: dict[str, int], rescale: str) -> dict:
        """All inputs are held, so that the runtime counts them; θ = 0 leaves the integers as they are."""
        model = self.model(row, skip, method)
        still = dict.fromkeys(model.artifact.held_codes(), 0)
        runs = Runtime(model.with_thresholds(still | spread(model.artifact, thetas)))
        found = self._errors(runs, part) | self._size(row, skip, method)
        seen = runs.measured
        every = (*seen.inputs, *seen.others)
        found |= {"densities": {one.name: round(one.density, 4) for one in every}, "bytes of the file": len(model.data)}
        rules, densities = rules_of(row, skip, self.graph), densities_of(model.artifact, every)
        found["eliminated"] = 1 - executed_by_rules(self.graph, rules, densities, elementwise=True)
        return found | {"eliminated in the runtime": seen.eliminated()}

    def _size(self, row: str, skip: str, method: str) -> dict:
        size = size_by_rules(self.graph, rules_of(row, skip, self.graph, method))
        return {"bytes": round(size.megabytes * 2**20, 3), "compression": size.compression}

    def _errors(self, model, part: str) -> dict:
        edits, wrong = self.task.measured(model, part)
        return {
            "errors": edits.errors.tolist(),
            "lengths": edits.lengths.tolist(),
            "error": edits.rate,
            "frame error": wrong,
        }

    def _cell(self, key: dict, make) -> dict:
        """Cells of other weights, and of other utterances that were calibrated on or measured, are other cells."""
        key = {"model": self.kind, "weights": self.weights, **key, "utterances": self._counts(key["part"])}
        fresh = key not in self.log
        cell = self.log.cell(key, make)
        if fresh:
            shown = ("model", "method", "row", "skip", "part", "rescale")
            more = f", {cell['eliminated']:.1%} eliminated" if "eliminated" in cell else ""
            more += f", {cell['compression']:.1%} smaller" if "compression" in cell else ""
            error = f"{cell['error']:.2%}{more} " if "error" in cell else ""
            self.say(f"{' '.join(str(key[name]) for name in shown if name in key)}: {error}({cell['seconds']} s)")
        return cell

    def cells(self) -> list[dict]:
        """Those of this study in the log."""
        return [
            cell
            for cell in self.log.cells.values()
            if cell["key"]["weights"] == self.weights and cell["key"]["utterances"] == self._counts(cell["key"]["part"])
        ]

    def _counts(self, part: str) -> list[int]:
        """Utterances that were calibrated on, and that are measured."""
        return [len(self.task.parts[one]) for one in ("calibration", part)]

    # -- thresholds

    def combinations(self, row: str, skip: str) -> list[dict]:
        """The published choice of thresholds, by the published simulation, on the search part."""
        held = Simulation(self.graph, rules_of(row, skip, self.graph)).held()
        candidates = combinations.combinations(self.graph, held)
        named = [{"/".join(key): theta for key, theta in one.items()} for one in candidates]
        return [self.cell("published", row, skip, "search", thetas) for thetas in named]

    def walk(self, method: str, row: str, skip: str, budget: float) -> dict:
        """Rindle's choice on the search part: one walk, whose front holds the choice for every smaller budget, too. budget: points
        of frame accuracy below the same model without θ, the limit of the statistics included (rindle.delta).
        """

        def make():
            log = self.log.path.with_suffix(".walk.jsonl")

            def seen(point, number):
                one = point.evaluation
                if number % 20 == 0:
                    self.say(f"{self.kind}: {number} evaluated; {one.eliminated:.1%} eliminated costs {one.error:.2f}")

            model = self.model(row, skip, method)
            found = choose_thresholds(
                model,
                search_part(self.task, None),
                budget,
                per_octave=1,
                log=log,
                seen=seen,
                formula="rezk",
                together=True,
            ).found
            front = [point for point in found.front if point.evaluation.error <= budget]
            points = [
                {
                    "lost": round(point.evaluation.error, 4),
                    "eliminated": round(point.evaluation.eliminated, 5),
                    "thetas": {name: theta for name, theta in point.thetas.items() if theta},
                }
                for point in front
            ]
            return {"evaluations": len(found.points), "points": points}

        return self._cell({"method": method, "row": row, "skip": skip, "part": "search", "walk": budget}, make)


def densities_of(artifact, inputs) -> dict[tuple[str, str], float]:
    """(node, source) -> density, of codes with fewer than 16 bits."""
    found = {}
    for one in inputs:
        node, code = artifact.held_codes()[one.name]
        layer = artifact.graph.node(node).layer
        if layer.formats[code].bits < WIDE:
            source = next(term.source for op in layer.program.affines for term in op.terms if term.code == code)
            found[node, source] = one.density
    return found


def batch_norms(network, graph) -> dict[str, dict[str, torch.Tensor]]:
    """Layer -> gate -> γ/√(σ² + ε) [H], of networks whose layers carry a norm of their own; empty of others."""
    found = {}
    for k, layer in enumerate(getattr(network, "layers", ())):
        norm = getattr(layer, "norm", None)
        if norm is None:
            continue
        gain = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        name = f"layers.{k}.l0"
        program = graph.node(name).layer.program
        gates = list(dict.fromkeys(gate for gate, source in program.blocks if source in program.inputs))
        found[name] = dict(zip(gates, gain.split(len(gain) // len(gates))))
    return found
