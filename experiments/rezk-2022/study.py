"""One model of the study: every row, skip mode and method on the search set, then thresholds, then the test, once.

Every finished cell is a line of a log, with the errors of each utterance; what is there already is not computed again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import combinations
import numpy as np
import ours
import torch
from grid import Precision, compression, eliminated, size_bytes
from published import Simulation, float_statistics

from rindle import metrics
from rindle.formats import RindleError
from rindle.nn.source import source_of
from rindle.search.thresholds import Evaluation, Found, search

METHODS = ("published", "rindle", "rindle gptq")  # the last one rounds weights of few bits by GPTQ (docs/rounding.md)
WIDTHS = (16, 12, 10)  # bits of a skipped path that are tried
CHUNK = 36  # sequences that a simulation runs side by side


class Log:
    """Lines of {"key", …}. A last line that was being written when the run was killed is dropped."""

    def __init__(self, path: Path):
        self.path, self.cells = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                cell = json.loads(line)
                self.cells[_name(cell["key"])] = cell
            except (ValueError, KeyError, TypeError):
                raise RindleError(
                    f"line {number} of {path} is no finished cell; remove the file to begin anew"
                ) from None

    def cell(self, key: dict, make) -> dict:
        """The cell of this key, made if it is not there."""
        if _name(key) not in self.cells:
            start = time.perf_counter()
            cell = {"key": key, **make()}
            cell["seconds"] = round(time.perf_counter() - start, 2)
            with self.path.open("a") as file:
                file.write(json.dumps(cell) + "\n")
            self.cells[_name(key)] = cell
        return self.cells[_name(key)]


def _name(key: dict) -> str:
    return json.dumps(key, sort_keys=True)


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


class Study:
    """kind: of the model, for the keys. network: in evaluation; its batch norms are taken out of W where they are found.

    task: has parts "calibration", "search" and "test", features(utterance) and edits(model, part). say: called with a
    line for every cell.
    """

    def __init__(self, kind: str, network, task, log: Log, say=print):
        self.kind, self.task, self.log, self.say = kind, task, log, say
        self.calibration = [task.features(one) for one in task.parts["calibration"]]
        self.graph, _ = source_of(network).capture(self.calibration[0][None, :40].swapaxes(0, 1))
        self.gains = batch_norms(network, self.graph)
        self.network = network
        self._floats: dict = {}
        self._observed, self._simulations, self._models, self._dense = None, {}, {}, {}

    # -- one quantized model of each method

    def simulation(self, precision: Precision, rescale: str) -> Simulation:
        if (precision, rescale) not in self._simulations:
            made = Simulation(self.graph, precision, rescale, self.gains)
            if rescale not in self._floats:
                self._floats[rescale] = float_statistics(self.graph, self.calibration, rescale, self.gains)
            made.calibrate(self.calibration, self._floats[rescale])
            self._simulations = {(precision, rescale): made}  # one at a time: the log has what was asked before
        return self._simulations[precision, rescale]

    def model(self, precision: Precision, method: str = "rindle"):
        if (precision, method) not in self._models:
            if self._observed is None:
                self._observed = ours.Observed(
                    self.graph, self.calibration, min(ours.FRAMES, *map(len, self.calibration))
                )
            self._models = {(precision, method): self._quantized(precision, method)}
        return self._models[precision, method]

    def _quantized(self, precision: Precision, method: str):
        """Skipped paths have 16 bits where they convert. They stand in one sum with the others and share its shift, so that beside 2-bit
        weights their steps grow (docs/numerics.md, 8c). The committed results were made with 12 bits, before steps could grow.
        """
        for wide in WIDTHS[:-1] if precision.skip != "none" else ():
            try:
                return self._observed.quantized(precision.scheme(self.graph, wide), method.endswith("gptq"))
            except RindleError as error:
                self.say(f"{self.kind} {precision.row} {precision.skip}: {wide} bits on the skipped path: {error}")
        return self._observed.quantized(precision.scheme(self.graph, WIDTHS[-1]), method.endswith("gptq"))

    # -- cells

    def float_cell(self, part: str) -> dict:
        return self._cell({"method": "float", "part": part}, lambda: self._errors(self.network, part))

    def cell(
        self, method: str, precision: Precision, part: str, thetas: dict | None = None, rescale: str = "clean"
    ) -> dict:
        """Errors of each utterance, size, compression, eliminated share, densities. thetas: "layer/source" -> θ."""
        key = {"method": method, "row": precision.row, "skip": precision.skip, "part": part}
        if method == "published":
            key["rescale"] = rescale
        if any((thetas or {}).values()):
            key["thetas"] = {name: theta for name, theta in thetas.items() if theta}

        def make():
            runs = (
                self._published(precision, rescale, thetas)
                if method == "published"
                else self._rindle(precision, thetas, method)
            )
            found = self._errors(runs, part)
            densities = runs.densities if method == "published" else runs.by_layer()
            found["densities"] = {"/".join(name): round(value, 5) for name, value in densities.items()}
            found["eliminated"] = eliminated(self.graph, precision, densities)
            found["bytes, published formula"] = size_bytes(self.graph, precision)
            found["compression"] = compression(self.graph, precision)
            if method != "published":
                found["bytes of the file"] = len(runs.model.data)
                if precision.skip != "none":
                    found["bits of skipped paths"] = runs.wide
                if part == "search":
                    if (precision, method) not in self._dense:
                        dense = self._rindle(precision, None, method)
                        self.task.scores(dense, part)
                        self._dense = {(precision, method): dense.scores}
                    found["drift"] = ours.drift(runs.scores, self._dense[precision, method])
            return found

        return self._cell(key, make)

    def _published(self, precision: Precision, rescale: str, thetas: dict | None) -> Published:
        named = {tuple(name.rsplit("/", 1)): theta for name, theta in (thetas or {}).items()}
        return Published(self.simulation(precision, rescale), named)

    def _rindle(self, precision: Precision, thetas: dict | None, method: str) -> ours.Runtime:
        model = self.model(precision, method)
        all_of = dict.fromkeys(ours.groups(model), 0) | (thetas or {})  # held, so that the runtime counts
        return ours.Runtime(model.with_thresholds(ours.spread_out(all_of, model)))

    def _errors(self, model, part: str) -> dict:
        edits = self.task.edits(model, part)
        return {"errors": edits.errors.tolist(), "lengths": edits.lengths.tolist(), "error": edits.rate}

    def counts(self, part: str) -> list[int]:
        """Utterances that were calibrated on, and that are measured: cells of others are other cells."""
        return [len(self.calibration), len(self.task.parts[part])]

    def _cell(self, key: dict, make) -> dict:
        key = {"model": self.kind, **key, "utterances": self.counts(key["part"])}
        fresh = _name(key) not in self.log.cells
        cell = self.log.cell(key, make)
        if fresh:
            about = " ".join(str(value) for name, value in key.items() if name not in ("thetas", "utterances"))
            more = (
                f", {cell['eliminated']:.1%} eliminated, {cell['compression']:.1%} smaller"
                if "eliminated" in cell
                else ""
            )
            self.say(f"{about}: {cell['error']:.2%}{more} ({cell['seconds']} s)")
        return cell

    # -- what is chosen on the search set

    def increase(self, cell: dict) -> metrics.Difference:
        """Of the error against the float model on the same utterances, 95 % paired bootstrap; shares, not points."""
        base = self.float_cell(cell["key"]["part"])
        rows = [np.stack([one["errors"], one["lengths"]], 1) for one in (base, cell)]
        return metrics.paired_bootstrap(*rows, statistic=metrics.rate_of, draws=2000)

    def choose(self, method: str, rows, skips, budget: float) -> Precision | None:
        """The smallest by the published formula whose error on the search set is within budget (points); None if none is."""
        limit = self.float_cell("search")["error"] + budget / 100
        cells = [
            (self.cell(method, Precision(row, skip), "search"), Precision(row, skip)) for row in rows for skip in skips
        ]
        fit = [(cell["compression"], -cell["error"], k) for k, (cell, _) in enumerate(cells) if cell["error"] <= limit]
        return cells[max(fit)[2]][1] if fit else None

    def combinations(self, precision: Precision) -> list[dict]:
        """The published choice of thresholds, by the published simulation."""
        held = self.simulation(precision, "clean").held()
        found = []
        for thetas in combinations.combinations(self.graph, held):
            found.append(
                self.cell("published", precision, "search", {"/".join(key): theta for key, theta in thetas.items()})
            )
        return found

    def walk(self, method: str, precision: Precision, budget: float) -> Found:
        """Rindle's choice (rindle.search.thresholds) in the runtime, under a budget in points above the same model without θ."""
        model = self.model(precision, method)
        base = self.cell(method, precision, "search")

        def evaluate(thetas: dict[str, int]) -> Evaluation:
            cell = self.cell(method, precision, "search", thetas)
            return Evaluation(100 * (cell["error"] - base["error"]), cell["drift"], cell["eliminated"], {})

        return search(evaluate, ours.limits(model), budget, per_octave=1)


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
        gates = list(dict.fromkeys(gate for gate, source in program.products if source in program.inputs))
        found[name] = dict(zip(gates, gain.split(len(gain) // len(gates))))
    return found
