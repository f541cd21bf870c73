"""Recurrent and linear modules that compute on the codes' grid, to be trained: what :func:`rindle.prepare` puts in.

Each is of a class derived from its origin's, with the origin's parameters, attributes and forward; the formats and learned
steps stand in its submodule ``quantization``. Straight-through gradients: Bengio et al. 2013 (arXiv 1308.3432).
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from ...errors import RindleError, RindleWarning
from ...numbers.formats import Format, integer
from ...program.program import TermKey, refuse_planes
from ..calibrate.plan import LayerPlan
from ..capture.stacks import Direction, Stack, take, walk
from ..lsq import Calibrated, CodeStep, WeightSteps
from ..modules import Recurrent
from ..numerics import FloatLayer
from ..sequences import Training

NAME = "quantization"  # the submodule
THETAS = " thresholds"  # beside the directions' names in a checkpoint's formats


def weight_steps(direction: Direction, own: str, weights: dict) -> WeightSteps:
    """The quantizer of one parameter of a module. weights: as ``LayerPlan.weights``."""
    refuse_planes(weights, direction.name, "which training does not know")
    blocks = {str(key): value for key, value in weights_by_gate(direction, weights).items()}
    rows = direction.rows(own)
    total = max(span.stop for span in rows.values())
    start, hi, learns, spacing = (np.full(total, value, np.float32) for value in (1, 1, 0, 1))
    for block, span in rows.items():
        fmt, steps = blocks[block]
        start[span], hi[span] = fmt.scale if steps is None else steps, fmt.hi
        learns[span], spacing[span] = not fmt.is_fixed, fmt.spacing
    return WeightSteps(start, hi, learns, spacing)


def weights_by_gate(direction: Direction, weights: dict) -> dict[TermKey, tuple[Format, np.ndarray | None]]:
    """Term -> (format, steps per row), taken apart into terms of a single gate."""
    found = {}
    for key, (fmt, steps) in weights.items():
        start = 0
        for gate in key.gates:
            (size,) = direction.program.block_shape(gate)
            found[key.of(gate)] = fmt, None if steps is None else steps[start : start + size]
            start += size
    return found


def learned_weights(direction: Direction, weights: dict, quantizers: dict[str, WeightSteps]) -> dict:
    """weights (as ``LayerPlan.weights``) with the steps as they are now. quantizers: parameter of the module -> its own."""
    rows = {}
    for own in direction.matrices:
        steps = quantizers[own].steps().detach().cpu().numpy()[:, 0].astype(np.float32)
        rows |= {block: steps[span] for block, span in direction.rows(own).items()}
    found = {}
    for key, (fmt, steps) in weights.items():
        if steps is not None:
            steps = np.concatenate([rows[f"{gate}.{key.source}"] for gate in key.gates])
        found[key] = fmt, steps
    return found


def _plain(fmt: Format) -> list:
    return [fmt.bits, fmt.frac, fmt.step, fmt.signed, fmt.product]


class Quantization(Calibrated):
    """The formats of one module, and its learned steps.

    formats: direction's name -> what was chosen for its weights, as ``LayerPlan.weights``. plans: direction's name -> LayerPlan as
    calibrated, the input's format a wide one; None where only weights are quantized. weights: parameter -> WeightSteps. codes:
    direction's name -> CodeSteps of the code paths with an ``int`` format.
    """

    def __init__(self, stack: Stack, formats: dict[str, dict], plans: dict[str, LayerPlan] | None):
        super().__init__()
        self.stack, self.formats, self.plans = stack, formats, plans or {}
        self.activations = plans is not None
        self.thetas: dict[str, dict[str, int]] = {}  # direction's name -> code path -> θ, of those that are held
        self.seen: dict[tuple[str, str], list[tuple]] = {}  # what they did in the last call, for nn.delta
        self.saturations: Counter[str] = Counter()  # "direction/state" -> elements of given states that saturated
        self.weights, self.codes = nn.ModuleDict(), nn.ModuleDict()
        for direction in stack.directions:
            for own in direction.matrices:
                made = weight_steps(direction, own, formats[direction.name])
                if own in self.weights and not self.weights[own].has_codes_of(made):  # shared by both directions
                    raise RindleError(f"both directions share {own}, so their weights need the same formats")
                self.weights[own] = made
        for name, plan in self.plans.items():
            self.codes[name] = nn.ModuleDict(
                {
                    _key(code): CodeStep(fmt.scale, fmt.lo, fmt.hi, plan.program.sizes[code])
                    for code in plan.program.codes
                    if not (fmt := plan.formats[code]).is_fixed
                }
            )

    def quantized(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """The module's weight matrices on their grids."""
        return {own: steps(getattr(module, own)) for own, steps in self.weights.items()}

    def numerics(self, direction: Direction, module: nn.Module, weights: dict[str, torch.Tensor]) -> Training:
        plan, steps = self.plans[direction.name], self.codes[direction.name]
        codes = {code: steps[_key(code)] for code in plan.program.codes if _key(code) in steps}
        layer = FloatLayer(plan.program, direction.layer(module, weights).blocks)

        def look(code, *counts):
            self.seen.setdefault((direction.name, code), []).append(counts)

        return Training(layer, plan, codes, self.thetas.get(direction.name), look)

    def begun(
        self, direction: Direction, numerics: Training, states: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Given initial states on their grids. What lies beyond a grid is counted, and told of where it first happens."""
        for state, value in states.items():
            fmt, name = numerics.plan.formats[state], f"{direction.name}/{state}"
            code = torch.floor(value.detach() / fmt.scale + 0.5)
            if not (outside := int(((code < fmt.lo) | (code > fmt.hi)).sum())):
                continue
            if not self.saturations[name]:
                warnings.warn(
                    f"{outside} elements of the initial state {name} saturate: up to {value.detach().abs().max():.4g}, where its format "
                    f"ends at {fmt.hi * fmt.scale:.4g}; calibrate with initial states as large as they become",
                    RindleWarning,
                    stacklevel=2,
                )
            self.saturations[name] += outside
        return {path: numerics.result(path, value) for path, value in states.items()}

    def learned_weights(self, direction: Direction) -> dict:
        """The formats of a direction's weights, with the steps as they are now."""
        return learned_weights(direction, self.formats[direction.name], dict(self.weights.items()))

    @torch.no_grad()
    def learned(self, direction: Direction) -> LayerPlan:
        """The plan with the steps as they are now."""
        plan, steps = self.plans[direction.name], self.codes[direction.name]
        formats = dict(plan.formats)
        for code in plan.program.codes:
            if _key(code) in steps:
                fmt = formats[code]
                formats[code] = integer(fmt.bits, float(steps[_key(code)].step()), fmt.signed)
        return replace(plan, formats=formats, weights=self.learned_weights(direction))

    def __getstate__(self) -> dict:
        """Copies and pickles begin unseen: what was seen hangs in the gradients' graph."""
        return {**self.__dict__, "seen": {}}

    def get_extra_state(self) -> dict:
        """The formats that are not learned, as plain numbers: direction -> path -> bits, frac, step, signed, product; and the
        thresholds, if there are any.
        """
        formats = {name: {p: _plain(f) for p, f in plan.formats.items()} for name, plan in self.plans.items()}
        return formats | ({THETAS: self.thetas} if any(self.thetas.values()) else {})

    def set_extra_state(self, state: dict) -> None:
        for name, plan in self.plans.items():
            if set(state.get(name, ())) != set(plan.formats):
                raise RindleError(
                    f"the checkpoint's formats of {name} are of other paths; prepare the model with the scheme and the overrides "
                    f"that the checkpoint was made with"
                )
            plan.formats = {path: Format(*fields) for path, fields in state[name].items()}
        self.thetas = {name: dict(thetas) for name, thetas in state.get(THETAS, {}).items()}


def _key(path: str) -> str:
    """A code path as a submodule's name."""
    return path.replace(".", "_")


class _Origin(nn.Module):
    """A prepared module with the forward of its origin."""

    def __init__(self, module: nn.Module, kind: type):
        super().__init__()
        self.module, self.kind = module, kind

    def forward(self, *arguments):
        return self.kind.forward(self.module, *arguments)


class Prepared:
    """What all quantized modules share: the forward, whose arguments are its origin's; a tuple where it takes several inputs."""

    def run(self, kind: type, input, *states):
        quantization = getattr(self, NAME)
        weights, stack = quantization.quantized(self), quantization.stack
        quantization.seen.clear()
        if not quantization.activations:
            # torch's own kernels; its parametrize would do the same, but cannot be pickled or copied
            given = {f"module.{own}": weight for own, weight in weights.items()}
            return functional_call(_Origin(self, kind), given, (input, *states))

        def run(direction, frames, initial):
            numerics = quantization.numerics(direction, self, weights)
            states = quantization.begun(direction, numerics, initial)
            return numerics.run(direction.inputs(torch.cat(frames)), [len(frame) for frame in frames], states)

        def between(frames):
            dropped = nn.functional.dropout(torch.cat(frames), stack.dropout, self.training)
            return list(dropped.split([len(frame) for frame in frames]))

        return walk(stack, take(stack, input, *states), run, between if stack.dropout else None)


class PreparedLSTM(Prepared, nn.LSTM):
    def forward(self, input, hx=None):
        return self.run(nn.LSTM, input, hx)


class PreparedGRU(Prepared, nn.GRU):
    def forward(self, input, hx=None):
        return self.run(nn.GRU, input, hx)


class PreparedRNN(Prepared, nn.RNN):
    def forward(self, input, hx=None):
        return self.run(nn.RNN, input, hx)


class PreparedLSTMCell(Prepared, nn.LSTMCell):
    def forward(self, input, hx=None):
        return self.run(nn.LSTMCell, input, hx)


class PreparedGRUCell(Prepared, nn.GRUCell):
    def forward(self, input, hx=None):
        return self.run(nn.GRUCell, input, hx)


class PreparedRNNCell(Prepared, nn.RNNCell):
    def forward(self, input, hx=None):
        return self.run(nn.RNNCell, input, hx)


class PreparedRecurrent(Prepared, Recurrent):
    def forward(self, x, states=None):
        return self.run(Recurrent, x, states)


class PreparedLinear(Prepared, nn.Linear):
    def forward(self, input):
        return self.run(nn.Linear, input)


# The key of STACKS -> the class that takes its place.
PREPARED: dict[type, type] = {
    nn.LSTM: PreparedLSTM,
    nn.GRU: PreparedGRU,
    nn.RNN: PreparedRNN,
    nn.LSTMCell: PreparedLSTMCell,
    nn.GRUCell: PreparedGRUCell,
    nn.RNNCell: PreparedRNNCell,
    Recurrent: PreparedRecurrent,
    nn.Linear: PreparedLinear,
}
