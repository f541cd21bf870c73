"""Learned rounding: which of its neighbouring codes a weight takes is learned, so that the layer's output over windows of
frames is that of the float layer.

As AdaRound and BRECQ reconstruct a layer (Nagel et al. 2020, arXiv 2004.10568; Li et al. 2021, arXiv 2102.05426), by the
signed gradient of Cheng et al. 2023 (SignRound, arXiv 2309.05516): W̃ = s·clip(⌊W/s + V + ½⌋), V in [−½, ½] of the distance of two codes, V ← V − η·sign(∂L/∂V).
The forward pass is always the rounded one, so that there is no penalty to be tuned. The gradient goes through the
fake-quantized recurrence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ....errors import RindleError
from ....numbers.formats import encode
from ....program.nodes import flipped, run_layer
from ....program.program import TermKey, step
from ...calibrate.plan import LayerPlan, Plan
from ...numerics import FloatLayer, Real, RealArrays, fake_quantize
from ...sequences import Training
from .runs import Rows, run_codes, run_float
from .words import words_of

FRAMES = 24  # of a window
WINDOWS = 16  # of a step
JUDGED = 4  # times as many windows say which V was best
CHECKS = 10  # times that this is asked


@torch.enable_grad()
def learn_layer(plan: Plan, name: str, rows: Rows, settings) -> dict:
    """Chooses the codes of a layer's ``learned`` terms. Its inputs are the integers of the layers below, its target is the
    float layer on float inputs, and both start a window in the float layer's state.

    Returns {"loss": mean square error of the output, over that of the nearest codes, on the windows that judge; "steps"; "seed"}.
    """
    layer, node = plan.layers[name], plan.graph.program(name)
    if len(node.sources) > 1:
        raise RindleError(
            f"{name} has several inputs, and so its weights cannot be learned; give them a rule with gptq"
        )
    generator = np.random.default_rng(settings.seed)
    exact = node.layer.in_double()
    windows = _Windows(plan, node, exact, rows)
    terms = [t for t in layer.program.terms if "learned" in words_of(plan, name, t)]
    offsets = {t.key: torch.zeros_like(_matrix(exact, t), requires_grad=True) for t in terms}

    def loss(batch: _Batch):
        numerics = _with_offsets(exact, layer, offsets)
        start = {path: numerics.result(path, v) for path, v in batch.states.items()}
        (path,), frames = layer.program.inputs, batch.inputs
        outputs, _ = numerics.run({path: torch.cat(frames)}, [len(frame) for frame in frames], start)
        return torch.nn.functional.mse_loss(torch.stack(outputs), batch.target)

    judged = [windows.draw(generator) for _ in range(JUDGED)]

    @torch.no_grad()
    def judge() -> float:
        return float(np.mean([loss(batch) for batch in judged]))

    first = least = judge()
    best = {path: v.detach().clone() for path, v in offsets.items()}
    every = max(1, settings.steps // CHECKS)
    for number in range(settings.steps):
        rate = (1 - number / settings.steps) / settings.steps
        gradients = torch.autograd.grad(loss(windows.draw(generator)), list(offsets.values()))
        with torch.no_grad():
            for v, gradient in zip(offsets.values(), gradients):
                v.sub_(rate * gradient.sign()).clamp_(-0.5, 0.5)
        if (number + 1) % every == 0:
            found = judge()
            settings.progress(
                f"{name}: learned rounding, step {number + 1}, error {found / first if first else 0:.3f} of nearest"
            )
            if found < least:
                least, best = found, {path: v.detach().clone() for path, v in offsets.items()}
    for term in terms:
        fmt, steps = layer.weights[term.key]
        scale = fmt.scale if steps is None else steps[:, None].astype(np.float64)
        matrix, offset = (v.double().numpy() for v in (_matrix(exact, term), best[term.key]))
        layer.codes[term.key] = encode(matrix + offset * scale * fmt.spacing, scale, fmt.lo, fmt.hi, fmt.spacing)
    return {"loss": least / first if first else 1.0, "steps": settings.steps, "seed": settings.seed}


def _matrix(layer: FloatLayer, term) -> torch.Tensor:
    return torch.cat([layer.blocks[f"{gate}.{term.source}"] for gate in term.gates])


def _with_offsets(exact: FloatLayer, layer: LayerPlan, offsets: dict[TermKey, torch.Tensor]) -> Training:
    """The fake-quantized layer with W + V·s for W. offsets: term -> V, of the terms that are learned."""
    program, blocks = layer.program, dict(exact.blocks)
    for term in program.terms:
        value, (fmt, steps) = _matrix(exact, term), layer.weights[term.key]
        scale = fmt.scale if steps is None else torch.as_tensor(steps, dtype=value.dtype)[:, None]
        v = offsets.get(term.key)
        value = fake_quantize(value if v is None else value + v * scale * fmt.spacing, scale, fmt)
        sizes = [program.block_shape(f"{gate}.{term.source}")[0] for gate in term.gates]
        blocks |= {f"{gate}.{term.source}": part for gate, part in zip(term.gates, value.split(sizes))}
    return Training(FloatLayer(program, blocks, exact.initial), layer, {})


@dataclass(frozen=True)
class _Batch:
    """inputs: per frame [windows, F]. states: before the first frame. target: [frames, windows, n]."""

    inputs: list[torch.Tensor]
    states: dict[str, torch.Tensor]
    target: torch.Tensor


class _Windows:
    """Of all calibration rows, in the layer's own order of time: its quantized and float inputs and its float states, and
    windows drawn from them. A layer without states has windows of one frame, as many frames in all.
    """

    @torch.no_grad()
    def __init__(self, plan: Plan, node, exact: FloatLayer, rows: Rows):
        (path,), (source,) = exact.program.inputs, node.sources
        scale = plan.layers[node.name].formats[path].scale
        self.real, self.size = Real(exact), FRAMES if exact.program.states else 1
        quantized, floats, states, lengths = [], [], [], []
        runs = zip(run_codes(plan, node.name, rows), run_float(plan.graph, node.name, rows))
        for codes, values in runs:
            frames = _sequence(node, values[source])
            quantized.append(_flat(_sequence(node, codes[source])) * scale)
            floats.append(_flat(frames))
            states.append(self._states(exact.program, frames))
            lengths += [sum(len(frame) > row for frame in frames) for row in range(len(frames[0]))]
        self.quantized, self.floats = torch.cat(quantized), torch.cat(floats)
        self.states = {path: torch.cat([one[path] for one in states]) for path, _ in exact.program.states}
        self.size = min(self.size, max(lengths))
        ends = np.cumsum(lengths)
        self.starts = np.concatenate([np.arange(end - n, end - self.size + 1) for end, n in zip(ends, lengths)])
        self.count = WINDOWS if exact.program.states else WINDOWS * FRAMES

    def _states(self, program, frames: list) -> dict[str, torch.Tensor]:
        """Of every row and frame, the states before it."""
        states, held = self.real.initial(len(frames[0]))
        before = {path: [] for path in states}
        for frame in frames:
            states = {path: v[: len(frame)] for path, v in states.items()}
            for path, v in states.items():
                before[path].append(v)
            _, states, held = step(program, self.real, (frame,), states, held)
        return {path: _flat(parts) for path, parts in before.items()}

    @torch.no_grad()
    def draw(self, generator: np.random.Generator) -> _Batch:
        starts = torch.from_numpy(generator.choice(self.starts, self.count))
        inputs, wanted = ([x[starts + t] for t in range(self.size)] for x in (self.quantized, self.floats))
        states = {path: v[starts] for path, v in self.states.items()}
        target, _, _ = run_layer(self.real.program, self.real, [(x,) for x in wanted], states, {})
        return _Batch(inputs, states, torch.stack(target))


def _sequence(node, value) -> list:
    """A source as frames, in the order in which the layer reads them."""
    frames = value if isinstance(value, list) else [value]
    return flipped(RealArrays, frames) if node.reverse else frames


def _flat(frames: list[torch.Tensor]) -> torch.Tensor:
    """[all frames of all rows, F], one row after the other."""
    return torch.cat([torch.stack([f[row] for f in frames if len(f) > row]) for row in range(len(frames[0]))])
