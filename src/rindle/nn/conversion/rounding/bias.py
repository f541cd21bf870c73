"""Bias correction: the mean shift of a pre-activation, which rounding and saturation leave, is taken from its bias.

Nagel et al. 2019 (arXiv 1906.04721), section 4.2, with both means measured; of a recurrent layer through the quantized
recurrence, so that the shift of its states is in it.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from ...calibrate.plan import Plan
from .runs import Rows, run_codes, run_float
from .words import words_of

PASSES = 2  # of a recurrent layer: a bias moves the states, and these the means


def correct_layer(plan: Plan, name: str, rows: Rows, settings) -> dict:
    """Chooses the biases of the gates of which a term is ``corrected``.

    Returns {"shift": root mean square of the shift before, "left": and at the last pass} in value units.
    """
    layer, blocks = plan.layers[name], plan.graph.program(name).layer.blocks
    gates = [
        gate
        for op in layer.program.affines
        for gate in op.out
        if any("corrected" in words_of(plan, name, term) for term in op.terms if gate in term.gates)
    ]
    wanted, story = _Means(layer.program, gates), {}
    for _ in run_float(plan.graph, name, rows, wanted.add):
        pass
    for number in range(PASSES if layer.program.states else 1):
        settings.progress(f"{name}: bias correction, pass {number + 1}")
        found = _Means(layer.program, gates)
        for _ in run_codes(plan, name, rows, found.add):
            pass
        shifts = {gate: found.of(gate) * layer.formats[gate].scale - wanted.of(gate) for gate in gates}
        for gate, shift in shifts.items():
            own = blocks[gate].detach().double().numpy() if gate in blocks else np.zeros_like(shift)
            layer.biases[gate] = layer.biases.get(gate, own) - shift
        size = float(np.sqrt(np.mean(np.concatenate(list(shifts.values())) ** 2)))
        story = {"shift": story.get("shift", size), "left": size}
    return story


class _Means:
    """Of the results of affines, over all rows and frames; of convolutions, per channel."""

    def __init__(self, program, gates: list[str]):
        self.pixels = {gate: program.pixels_of(gate) for gate in gates}
        self.sums, self.count = defaultdict(float), 0
        self.first = next(op.out for op in program.affines if gates[0] in op.out)

    def add(self, op, _, results) -> None:
        self.count += len(results[0]) if op.out == self.first else 0
        for gate, result in zip(op.out, results):
            if gate in self.pixels:
                self.sums[gate] = self.sums[gate] + result.double().sum(0).numpy()

    def of(self, gate: str) -> np.ndarray:
        return self.sums[gate].reshape(-1, self.pixels[gate]).mean(1) / self.count
