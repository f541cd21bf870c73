"""Operators of torch for what is quantized dynamically: the core's layers over plain tensors of codes, steps and biases.

Being operators, they pass torch.compile, torch.export and torch.jit.trace as what they are. A traced program holds the codes as its
own tensors; where it is loaded, ``import rindle.nn`` must have been run.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ... import _core
from ...errors import RindleError

CELLS_OF_THE_CORE = ("lstm", "lstm_projection", "gru", "rnn_tanh", "rnn_relu")


class _Packed:
    """Objects by the tensors that they were made of: packed once, and anew where a tensor was written to.

    An entry holds its storages weakly, which keeps their identity from being given to another; it goes once they are gone.
    """

    def __init__(self):
        self._entries: dict[tuple, tuple[list[StorageWeakRef], object]] = {}

    def get(self, kind: str, tensors: list[torch.Tensor], make):
        key = (kind, *map(_identity, tensors))
        found = self._entries.get(key)
        if found is None:
            where = {one[0] for one in key[1:]}
            self._entries = {
                other: (storages, made)
                for other, (storages, made) in list(self._entries.items())
                if not any(storage.expired() for storage in storages) and where.isdisjoint(one[0] for one in other[1:])
            }
            made = make()
            found = self._entries[key] = [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors], made
        return found[1]


def _identity(tensor: torch.Tensor) -> tuple:
    """Of a tensor and of what it holds now; one made under inference_mode does not count who wrote to it."""
    version = zlib.crc32(tensor.cpu().numpy().tobytes()) if tensor.is_inference() else tensor._version
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), version


packed = _Packed()


def _values(tensor: torch.Tensor) -> np.ndarray:
    """float32, contiguous."""
    return np.ascontiguousarray(tensor.numpy(force=True), np.float32)


def _arrays(tensors: list[torch.Tensor]) -> list[np.ndarray]:
    return [tensor.detach().cpu().contiguous().numpy() for tensor in tensors]


def _layer(cell: str, tensors: list[torch.Tensor]) -> _core.DynamicLayer:
    *weights, bias_input, bias_hidden = _arrays(tensors)
    return _core.DynamicLayer(cell, list(zip(weights[::2], weights[1::2])), bias_input, bias_hidden)


def _run(layer, *arguments) -> None:
    try:
        layer.run(*arguments)
    except ValueError as error:
        raise RindleError(str(error)) from None


def _back(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device)


def dynamic_layer(
    x: torch.Tensor,
    rows: torch.Tensor | None,
    states: list[torch.Tensor],
    weights: list[torch.Tensor],
    cell: str,
    reverse: bool,
) -> list[torch.Tensor]:
    """One direction of one layer, float32. x: [T, B, I]; or of a PackedSequence [Σ rows, I], rows being its batch_sizes. states: h
    [B, P] and, of an LSTM, c [B, H]. weights: codes int8 and steps [rows] of W, of U and of a projection, then both biases. Returns y
    [.., P] and the final states, new tensors.
    """
    layer = packed.get(cell, weights, lambda: _layer(cell, weights))
    h, c = (np.array(_values(state)) for state in states) if len(states) > 1 else (np.array(_values(states[0])), None)
    counts = np.full(x.shape[0], x.shape[1]) if rows is None else rows.cpu().numpy().astype(np.int64)
    y = np.empty((*x.shape[:-1], h.shape[1]), np.float32)
    _run(layer, _values(x).reshape(-1, x.shape[-1]), counts, reverse, h, c, y.reshape(-1, h.shape[1]))
    return [_back(values, x) for values in (y, h, c) if values is not None]


def dynamic_linear(x: torch.Tensor, codes: torch.Tensor, steps: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """W·x + b in float32. x: [rows, I], codes: int8 [O, I], steps and bias: [O] -> [rows, O]."""
    weights = [codes, steps, bias]
    layer = packed.get("linear", weights, lambda: _core.DynamicLinear(*_arrays(weights)))
    y = np.empty((x.shape[0], codes.shape[0]), np.float32)
    _run(layer, _values(x), y)
    return _back(y, x)


def call(function, x: torch.Tensor, *arguments):
    """One of the two above: itself, or, where something records, transforms or wants a gradient, as an operator of torch, which
    costs more than a frame of a small layer does.
    """
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing() or is_in_torch_dispatch_mode()
    if recorded or type(x) is not torch.Tensor or (torch.is_grad_enabled() and x.requires_grad):
        return getattr(torch.ops.rindle, function.__name__)(x, *arguments)
    return function(x, *arguments)


_library = torch.library.Library("rindle", "FRAGMENT")
_library.define(
    "dynamic_layer(Tensor x, Tensor? rows, Tensor[] states, Tensor[] weights, str cell, bool reverse) -> Tensor[]"
)
_library.define("dynamic_linear(Tensor x, Tensor codes, Tensor steps, Tensor bias) -> Tensor")
_library.impl("dynamic_layer", dynamic_layer, "CompositeExplicitAutograd")
_library.impl("dynamic_linear", dynamic_linear, "CompositeExplicitAutograd")


@torch.library.register_fake("rindle::dynamic_layer", lib=_library)
def _(x, rows, states, weights, cell, reverse):
    return [x.new_empty((*x.shape[:-1], states[0].shape[1])), *(torch.empty_like(state) for state in states)]


@torch.library.register_fake("rindle::dynamic_linear", lib=_library)
def _(x, codes, steps, bias):
    return x.new_empty((x.shape[0], codes.shape[0]))


def _no_gradient(ctx, *gradients):
    raise RindleError(
        "what quantize_dynamic made holds integers and cannot be trained; train the model and quantize it again, or train "
        "under quantization what rindle.prepare returns"
    )


for _name in ("dynamic_layer", "dynamic_linear"):
    torch.library.register_autograd(f"rindle::{_name}", _no_gradient, lib=_library)
