"""Rindle's side of the comparison: the same widths as schemes, integers in the C++ runtime, thresholds by its own search."""

from __future__ import annotations

import numpy as np
import torch
from grid import base_of

from rindle.evaluate import probabilities
from rindle.graph import INPUT
from rindle.nn.calibrate import KEPT, Plan, Recorder, choose_formats, choose_origins, keys_of
from rindle.nn.convert import convert
from rindle.nn.histogram import Histogram
from rindle.nn.numerics import run_real
from rindle.nn.rounding import refine
from rindle.runtime import Model
from rindle.scheme import resolve

FRAMES = 200  # of each calibration sequence; shorter ones are left out, so that all are one batch
FEW = 4  # bits
ROWS = 32  # sequences in a batch of the runtime


class Observed:
    """What calibration sees, once for all schemes: the histograms of every path on [B, T, I]."""

    @torch.no_grad()
    def __init__(self, graph, sequences: list[np.ndarray], frames: int = FRAMES):
        x = torch.from_numpy(np.stack([one[:frames] for one in sequences if len(one) >= frames]))
        recorders = {node.name: Recorder(node.layer) for node in graph.programs}
        _, values = run_real(graph, recorders, x)
        self.x = x.numpy()
        self.graph, self.samples, self.histograms = graph, [row[:40] for row in x.numpy()[:KEPT]], {}
        for node in graph.programs:
            program, seen = node.layer.program, dict(recorders[node.name].values)
            seen |= {path: values[source] for source, path in zip(node.sources, program.inputs)}
            for path, parts in seen.items():
                self._add((node.name, program.format_name(path)), torch.cat(parts))
        self._add((INPUT, ""), x)

    def _add(self, key: tuple[str, str], values: torch.Tensor) -> None:
        self.histograms.setdefault(key, Histogram()).add(values)

    def quantized(self, scheme: dict[str, str], gptq: bool = False) -> Model:
        """As rindle.quantize, from what was seen already. gptq: weights of at most FEW bits are rounded by GPTQ."""
        if gptq:
            few = tuple(f"int{bits} " for bits in range(2, FEW + 1))
            scheme = {key: rule + " gptq" * ("weight." in key and rule.startswith(few)) for key, rule in scheme.items()}
        plan = Plan(self.graph, None, {}, resolve(scheme, None, keys_of(self.graph)), samples=self.samples)
        choose_formats(plan, self.histograms)
        choose_origins(plan, self.histograms)
        refine(plan, self.x, True)
        return Model(convert(plan, {"scheme": scheme}))


class Runtime:
    """A Model as the task asks for its scores. densities: input -> share of changed elements; scores: both
    of what was run last."""

    def __init__(self, model: Model):
        self.model, self.densities, self.scores = model, {}, []

    def sequences(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        found: list = [None] * len(rows)
        changed: dict[str, float] = {}
        order = np.argsort([len(row) for row in rows], kind="stable")
        for chosen in (order[k : k + ROWS] for k in range(0, len(order), ROWS)):
            lengths = np.array([len(rows[k]) for k in chosen])
            x = np.zeros((len(chosen), lengths.max(), rows[0].shape[1]), np.float32)
            for one, k in zip(x, chosen):
                one[: len(rows[k])] = rows[k]
            y, densities = self.model.activity(x, lengths)
            for name, density in densities.items():
                changed[name] = changed.get(name, 0.0) + density * lengths.sum()
            for one, k in zip(y, chosen):
                found[k] = one[: len(rows[k])]
        self.densities = {name: total / sum(map(len, rows)) for name, total in changed.items()}
        self.scores = found
        return found

    @property
    def wide(self) -> int:
        """Bits of the widest code that a product reads."""
        nodes = self.model.artifact.graph.programs
        return max(node.layer.formats[code].bits for node in nodes for code in node.layer.program.codes)

    def by_layer(self) -> dict[tuple[str, str], float]:
        """(layer, source) -> density, the mean of both directions, as the authors count; 1 of what is not held."""
        found: dict[tuple[str, str], list[float]] = {}
        for name, (node, code) in self.model.artifact.held_codes().items():
            layer = self.model.artifact.graph.node(node).layer
            source = next(t.source for op in layer.program.affines for t in op.terms if t.code == code)
            if layer.formats[code].bits <= 8:  # else skipped
                found.setdefault((base_of(node), source), []).append(self.densities.get(name, 1.0))
        return {key: float(np.mean(values)) for key, values in found.items()}


def groups(model: Model) -> dict[str, list[str]]:
    """Input of a layer -> its names in both directions, which get one θ. The model's own input and the wide codes of skipped
    paths stay dense: these hardly repeat.
    """
    found: dict[str, list[str]] = {}
    for name, (node, code) in model.artifact.held_codes().items():
        if model.artifact.graph.node(node).layer.formats[code].bits <= 8:
            found.setdefault(base_of(node) + "/" + name.split("/", 1)[1], []).append(name)
    return found


def spread_out(thetas: dict[str, int], model: Model) -> dict[str, int]:
    return {
        name: theta
        for group, names in groups(model).items()
        for name in names
        if (theta := thetas.get(group)) is not None
    }


def limits(model: Model) -> dict[str, int]:
    """Input of a layer -> its largest θ."""
    found, known = {}, model.artifact.held_codes()
    for group, (name, *_) in groups(model).items():
        node, code = known[name]
        found[group] = model.artifact.graph.node(node).layer.formats[code].hi - 1
    return found


def drift(scores: list[np.ndarray], dense: list[np.ndarray]) -> float:
    """Mean total variation distance of the frames' posteriors from the dense model's, 0..1: what orders the walk."""
    difference = np.abs(probabilities(np.concatenate(scores)) - probabilities(np.concatenate(dense)))
    return float(difference.sum(-1).mean() / 2)
