"""Capture of what stands at the output side in floating point: softmax and LayerNorm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ....numbers.float_ops import FloatOp
from ....program.nodes import FloatNode
from . import attention
from .values import F, T

aten = torch.ops.aten


def softmax(name: str):
    """Over features a float node; over time the weights of an attention."""

    def handler(capture, fx):
        value = capture.value(fx)
        dim = fx.args[1] % len(value.dims)
        if value.dims[dim] == T and name == "softmax":
            return attention.soft(capture, fx, value, dim)
        if value.dims[dim] != F:
            raise capture.refuse(fx, f"is over dimension {dim} of {value.layout}, which is not one of features")
        axis = value.axis(dim)
        last = replace(value, index=np.moveaxis(value.index, axis, -1))
        groups = value.index.size // value.index.shape[axis]
        op = FloatOp(name, {"groups": groups})
        node = capture.add(FloatNode(capture.name_of(fx, name), (capture.floats(fx, last),), op))
        index = np.arange(value.index.size).reshape(last.index.shape)
        return replace(value, node=node, index=np.moveaxis(index, -1, axis))

    return handler


def layer_norm(capture, fx):
    value, sizes = capture.value(fx), list(fx.args[1])
    weight, bias = ((*fx.args, None, None)[k] for k in (2, 3))
    epsilon = fx.args[4] if len(fx.args) > 4 else 1e-5
    if any(dim != F for dim in value.dims[-len(sizes) :]) or list(value.index.shape[-len(sizes) :]) != sizes:
        raise capture.refuse(fx, f"normalizes {sizes} of {value.layout}; only features can be normalized")
    if value.index.size != np.prod(sizes):
        raise capture.refuse(
            fx, f"normalizes {sizes} of {list(value.index.shape)} features; all must be normalized together"
        )
    given = {"weight": capture.parameter(fx, weight), "bias": capture.parameter(fx, bias)}
    parameters = {name: tensor.numpy().ravel() for name, tensor in given.items() if tensor is not None}
    op = FloatOp("layer_norm", {"epsilon": float(epsilon)} | parameters)
    node = capture.add(FloatNode(capture.path(fx) or fx.name, (capture.floats(fx, value),), op))
    return replace(value, node=node, index=np.arange(value.index.size).reshape(value.index.shape))


HANDLERS = {
    aten.softmax.int: softmax("softmax"),
    aten.log_softmax.int: softmax("log_softmax"),
    aten.layer_norm.default: layer_norm,
}
