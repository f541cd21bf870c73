"""What quantize_dynamic puts in the place of modules: int8 codes and their steps as buffers, everything else in float.

A matrix that was the parameter ``name`` is ``name``, int8 codes, and ``name_scale``, the float32 step of each row. Biases and
vectors keep their names, in float32. What enters a product is scaled per row of the batch and per frame.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ...cells import CELLS
from ...errors import RindleError
from ...numbers.formats import encode
from ...numbers.levels import integers
from ...scheme.quantizers import QUANTIZERS
from ..capture.stacks import Direction, Stack, arrange, take, walk
from ..modules import blocks_of
from ..numerics import FloatLayer, Real
from ..sequences import run_frames
from .dynamic_ops import CELLS_OF_THE_CORE, call, dynamic_layer, dynamic_linear, packed
from .first_form import first_form
from .traced import refuse_onnx, refuse_recording

MOST_COLUMNS = (2**31 - 1) // 127**2
NO_TRAINING = "was quantized dynamically and cannot be trained; train the model and quantize it again"
NO_FILE = "was quantized dynamically: its states are floats, and a .rindle file has none; rindle.quantize makes a model to save"
REMEDY = "rindle.quantize makes a model of integers, which `rindle export` writes"


def quantized(weight: torch.Tensor, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes int8 [rows, columns] of -127..127, and the step of each row, float32: its largest magnitude / 127."""
    values = weight.detach().cpu().double().numpy()
    if values.shape[1] > MOST_COLUMNS:
        raise RindleError(
            f"{what} has {values.shape[1]} columns; quantized dynamically it may have {MOST_COLUMNS}, whose sums 32 bits hold; "
            f"leave it out of qconfig_spec"
        )
    if not np.isfinite(values).all():
        raise RindleError(f"{what} holds NaN or infinity, for which there is no scale; give finite weights")
    steps = np.asarray(QUANTIZERS["max"].step(np.abs(values), None, integers(8)), np.float32)
    steps[~(steps > 0)] = 1.0
    codes = encode(values, steps[:, None].astype(np.float64), -127, 127).astype(np.int8)
    return torch.from_numpy(codes).to(weight.device), torch.from_numpy(steps).to(weight.device)


def buffers_of(direction: Direction, parameters: dict[str, torch.Tensor], path: str) -> dict[str, torch.Tensor]:
    """The module's parameters of one direction, by their own names -> its buffers."""
    found = {}
    for own, value in parameters.items():
        if own in direction.matrices:
            codes, steps = quantized(value, f"{path + '.' if path else ''}{own}")
            found |= {own: codes, scale_of(own): steps}
        else:
            found[own] = value.detach().to(torch.float32, copy=True)
    return found


def scale_of(own: str) -> str:
    return f"{own}_scale"


class _Dynamic(nn.Module):
    """A stack of layers, or one product. path: of the module in its model, for messages. Refuses ``train()`` and gradients."""

    not_saved = NO_FILE  # rindle.save says it

    def __init__(self, stack: Stack, path: str, module: nn.Module):
        super().__init__()
        self.stack, self.path = stack, path
        for direction in stack.directions:
            parameters = {own: getattr(module, own) for own in direction.names.values()}
            for name, value in buffers_of(direction, parameters, path).items():
                self.register_buffer(name, value)
            scales = self._buffers[scale_of(direction.matrices[0])]
        self.register_buffer("no_bias", torch.zeros_like(scales), persistent=False)
        super().train(False)

    @property
    def saturations(self) -> dict[str, int]:
        """Empty: the states are floats, and nothing saturates."""
        return {}

    def train(self, mode: bool = True):
        if mode:
            raise RindleError(f"{self.path or 'the module'} {NO_TRAINING}")
        return super().train(False)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        for direction, parameters in first_form(state_dict, prefix, self.stack, self.path):
            for name, value in buffers_of(direction, parameters, self.path).items():
                state_dict[prefix + name] = value
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        first, last = self.stack.layers[0][0], self.stack.layers[-1]
        return f"{first.cell.name}, {self.stack.input_size} -> {first.program.sizes[first.program.output] * len(last)}, int8"


class DynamicLinear(_Dynamic):
    """Of nn.Linear: [.., in] -> [.., out]."""

    def forward(self, input):
        refuse_onnx(self.path, REMEDY)
        x = input.reshape(-1, input.shape[-1]).float()
        bias = self._buffers.get("bias", self.no_bias)
        y = call(dynamic_linear, x, self.weight, self.weight_scale, bias)
        return y.reshape(*input.shape[:-1], y.shape[-1]).to(input)


class _Layers(_Dynamic):
    """Layers that the core has as a whole, and others, whose programs are walked through frame by frame."""

    def __init__(self, stack: Stack, path: str, module: nn.Module):
        for direction in stack.directions:
            if any(term.conv for op in direction.program.affines for term in op.terms):
                raise RindleError(
                    f"{path or 'the model'} has convolutions, which quantize_dynamic cannot do; take rindle.quantize"
                )
        super().__init__(stack, path, module)
        cells = [direction.cell for direction in stack.directions]
        self.fused = all(cell.name in CELLS_OF_THE_CORE and cell is CELLS[cell.name] for cell in cells)

    def run(self, input, states):
        if self.fused:
            refuse_onnx(self.path, REMEDY)
            return self._fused(input, states)
        refuse_recording(self.path, f"its cell has no operator of torch; {REMEDY}")
        return self._walk(input, states)

    def _fused(self, input, states):
        made = arrange(self.stack, input, states)
        x, finals = made.x.float(), []
        for layer in self.stack.layers:
            outputs = []
            for direction in layer:
                own = [state[len(finals)].float() for state in made.states.values()]
                cell = direction.cell.name
                y, *after = call(dynamic_layer, x, made.rows, own, self._weights(direction), cell, direction.reverse)
                outputs.append(y)
                finals.append(after)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        after = [torch.stack(one) if len(one) > 1 else one[0][None] for one in zip(*finals)]
        return made.give(x.to(made.x), [state.to(made.x) for state in after])

    def _weights(self, direction: Direction) -> list[torch.Tensor]:
        """Codes and steps of each matrix, then the biases, which are zero where the module has none."""
        owns = [direction.names[name] for name in ("weight_ih", "weight_hh", "weight_hr") if name in direction.names]
        found = [self._buffers[name] for own in owns for name in (own, scale_of(own))]
        return found + [self._buffers.get(direction.names.get(name), self.no_bias) for name in ("bias_ih", "bias_hh")]

    @torch.compiler.disable
    def _walk(self, input, states):
        def run(direction, frames, initial):
            buffers = self._of(direction)
            numerics = packed.get("numerics", list(buffers.values()), lambda: DynamicProducts(direction, buffers))
            inputs = [tuple(direction.inputs(frame.float()).values()) for frame in frames]
            outputs, finals = run_frames(numerics, inputs, {name: state.float() for name, state in initial.items()})
            return [y.to(frames[0]) for y in outputs], {name: state.to(frames[0]) for name, state in finals.items()}

        return walk(self.stack, take(self.stack, input, states), run)

    def _of(self, direction: Direction) -> dict[str, torch.Tensor]:
        owns = direction.names.values()
        return {name: self._buffers[name] for own in owns for name in (own, scale_of(own)) if name in self._buffers}


class DynamicRNN(_Layers):
    """Of torch's: nn.LSTM, nn.GRU, nn.RNN and their cells."""

    def forward(self, input, hx=None):
        return self.run(input, hx)


class DynamicRecurrent(_Layers):
    """Of :class:`rindle.Recurrent`."""

    def forward(self, x, states=None):
        return self.run(x, states)


class DynamicProducts(Real):
    """A program in float whose products are of codes."""

    def __init__(self, direction: Direction, buffers: dict[str, torch.Tensor]):
        def blocks(chosen):
            return blocks_of(
                direction.cell,
                {name: buffers.get(chosen(own)) for name, own in direction.names.items()},
                direction.program,
            )

        super().__init__(FloatLayer(direction.program, blocks(lambda own: own)))
        steps = blocks(scale_of)
        for op in self.program.affines:
            own = [torch.cat([steps[f"{gate}.{term.source}"] for gate in term.gates]) for term in op.terms]
            self._weights[op.out] = [(codes, s, torch.zeros_like(s)) for codes, s in zip(self._weights[op.out], own)]

    def product(self, term, x, weight):
        return call(dynamic_linear, x, *weight)
