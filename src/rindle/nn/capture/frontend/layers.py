"""Capture of layers with weights: Linear, convolutions over time and features, batch norm, Embedding; and sums of features,
which are convolutions with equal weights.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from ....cells import linear as linear_cell
from ....numbers.float_ops import FloatOp
from ....program.nodes import INPUT, EmbeddingNode, FloatNode, GatherNode, Window, WindowNode
from ....program.program import Conv
from ....program.tracer import Cell, cell
from . import attention, pointwise
from .values import ZERO, B, F, T, Value, argument, shape_of

aten = torch.ops.aten


def conv_cell(conv: Conv) -> Cell:
    """A convolution over features: a cell without states."""

    @cell(layout={"weight": "y.x", "bias": "y"})
    def convolution(n, x):
        return n.conv("y", x, size="O", geometry=conv)

    return convolution


# ----------------------------------------------------------------------------------------------------------- Linear


def linear(capture, fx):
    value = capture.value(fx)
    bias = capture.parameter(fx, argument(fx, 2, "bias"))
    return _linear(capture, fx, value, capture.parameter(fx, fx.args[1]), bias, capture.path(fx) or fx.name)


def matmul(capture, fx):
    """x @ W with a constant W is a Linear written by hand; else it is an attention."""
    weight = capture.constant(fx.args[1])
    if weight is None and [len(shape_of(source)) for source in fx.args[:2]] == [3, 3]:
        return attention.contracted(capture, fx, list(fx.args[:2]), ["bij", "bjk"], "bik")
    if weight is None or weight.ndim != 2:
        raise capture.refuse(fx, attention.TWO_VALUES)
    return _linear(capture, fx, capture.value(fx), weight.float().T, None, capture.name_of(fx, "matmul"))


def _linear(capture, fx, value: Value, weight: torch.Tensor, bias, name: str) -> Value:
    rows, columns = weight.shape
    if value.dims[-1] != F:
        raise capture.refuse(fx, f"runs over the last dimension of {value.layout}, which is not one of features")
    others = value.index.shape[:-1]
    pixels = math.prod(others)
    if capture.is_float(value.node):
        return _float_linear(capture, fx, value, weight, bias, name)
    if pixels == 1:
        parameters = {"weight": weight, "bias": bias}
        node = capture.program(name, capture.ordered(fx, value), linear_cell, parameters, I=columns, O=rows)
        return replace(value, node=node, index=np.arange(rows).reshape(*others, rows))
    moved = replace(value, index=np.moveaxis(value.index, -1, 0))  # channel first
    conv = Conv((1, pixels), (1, 1), padding=(0, 0), result=(1, pixels))
    node = _conv_program(capture, name, capture.ordered(fx, moved), conv, weight, bias, columns * pixels)
    return replace(value, node=node, index=np.moveaxis(np.arange(rows * pixels).reshape(rows, *others), 0, -1))


def _float_linear(capture, fx, value: Value, weight: torch.Tensor, bias, name: str) -> Value:
    """After a float node; its features may be read in any order."""
    if value.index.size != weight.shape[1]:
        raise capture.refuse(
            fx, f"runs over {weight.shape[1]} of {value.index.size} features in floating point; flatten them"
        )
    columns = np.zeros((len(weight), capture.size_of(value.node)), np.float32)
    np.add.at(columns, (slice(None), value.index.ravel()), weight.numpy())
    parameters = {"weight": columns} | ({} if bias is None else {"bias": bias.numpy()})
    node = capture.add(FloatNode(name, (value.node,), FloatOp("linear", parameters)))
    return replace(value, node=node, index=np.arange(len(weight)).reshape(*value.index.shape[:-1], -1))


# ----------------------------------------------------------------------------------------------------- convolutions


def conv(capture, fx):
    """Conv1d, 2d and 3d: over time, over features, or over both."""
    value, weight = capture.value(fx), capture.parameter(fx, fx.args[1])
    rank = weight.ndim - 2
    named = ((2, "bias", None), (3, "stride", 1), (4, "padding", 0), (5, "dilation", 1), (6, "groups", 1))
    bias, stride, padding, dilation, groups = (argument(fx, *one) for one in named)
    dilation = _each(dilation, rank)
    if isinstance(padding, str):
        reach = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.shape[2:])]
        around = [(one // 2, one - one // 2) for one in reach]
    else:
        around = [(one, one) for one in _each(padding, rank)]
    name, bias = capture.path(fx) or fx.name, capture.parameter(fx, bias)
    return convolve(capture, fx, name, value, weight, bias, _each(stride, rank), around, dilation, groups)


def _each(sizes, rank: int) -> list[int]:
    """One number for every dimension of space; torch lets one stand for all."""
    sizes = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
    return sizes * rank if len(sizes) == 1 else sizes


def convolve(capture, fx, name: str, value: Value, weight, bias, stride, around, dilation, groups: int) -> Value:
    """weight: [rows, channels of a group, *kernel]; around: (before, after) of every dimension of space.

    Over time it is a window; the taps of the window are channels, (tap, channel), of a convolution over the features that
    are left, or of a Linear where there are none.
    """
    spaces = spaces_of(capture, fx, value)
    window, index, geometry = Window(), value.index, []
    for number, (kind, size) in enumerate(zip(spaces, weight.shape[2:])):
        s, d, (before, after) = stride[number], dilation[number], around[number]
        if kind == T:
            window = Window(size, d, s, before, after)
            continue
        axis = 1 + len(geometry)
        index, lead, trail = _stripped(index, axis)
        before, after, pixels = before + lead, after + trail, index.shape[axis]
        made = (pixels + before + after - d * (size - 1) - 1) // s + 1
        if before > d * (size - 1) or (made - 1) * s - before > pixels - 1:
            raise capture.refuse(fx, f"pads {pixels} features by {before} and {after}, beyond the reach of its kernel")
        geometry.append((pixels, size, s, d, before, made))
    if T in spaces:
        weight = weight.movedim(2 + spaces.index(T), 1)
    else:
        weight = weight.unsqueeze(1)
    source = _windowed(capture, fx, replace(value, index=index), window, groups, name)
    rows, columns = len(weight), index.size * window.size
    results = [made for *_, made in geometry]
    image, kernel, strides, dilations, paddings, result = zip(*geometry) if geometry else ((),) * 6
    weight = weight.reshape(rows, -1)  # [rows, (tap, channel of the group, kernel)]
    if groups == 1 and math.prod(result) == 1 and kernel == image and not any(paddings):
        node = capture.program(name, source, linear_cell, {"weight": weight, "bias": bias}, I=columns, O=rows)
    else:
        pairs = (
            _pair(sizes, filling)
            for sizes, filling in ((image, 1), (kernel, 1), (strides, 1), (dilations, 1), (paddings, 0), (result, 1))
        )
        node = _conv_program(capture, name, source, Conv(*pairs, groups), weight, bias, columns)
    return replace(value, node=node, index=np.arange(rows * math.prod(results)).reshape(rows, *results))


def _pair(sizes: tuple, filling: int) -> tuple[int, int]:
    """Of height and width: an image has at least one row."""
    return (*(filling,) * (2 - len(sizes)), *sizes)


def _windowed(capture, fx, value: Value, window: Window, groups: int, name: str) -> str:
    """The node that has a frame's features for a convolution: of every group its taps, of every tap its channels."""
    source = capture.ordered(fx, value)
    if window == Window():
        return source
    source = capture.shared(WindowNode(f"{name}.window", (source,), window))
    if groups == 1 or window.size == 1:
        return source
    order = np.arange(value.index.size * window.size).reshape(window.size, groups, -1)
    return capture.shared(GatherNode(f"{name}.gather", (source,), tuple(order.swapaxes(0, 1).ravel().tolist())))


def spaces_of(capture, fx, value: Value) -> tuple[str, ...]:
    """Of every dimension of space, whether it is the time or one of features."""
    if value.dims[0] not in (B, B + T, T + B) or value.dims[1] != F or value.dims.count(T) > 1:
        raise capture.refuse(
            fx,
            f"takes rows from dimension 0 and channels from dimension 1, but gets {value.layout}; transpose it before",
        )
    return value.dims[2:]


def _stripped(index: np.ndarray, axis: int) -> tuple[np.ndarray, int, int]:
    """Without padding with zeros at the two ends of an axis, and how much of it there was."""
    real = (np.moveaxis(index, axis, 0).reshape(index.shape[axis], -1) != ZERO).any(1)
    if not real.any():
        return index, 0, 0
    first, last = int(np.argmax(real)), int(len(real) - np.argmax(real[::-1]))
    return index.take(range(first, last), axis), first, len(real) - last


def _conv_program(capture, name: str, source: str, conv: Conv, weight: torch.Tensor, bias, columns: int) -> str:
    """weight: [rows, channels of a group · kernel]."""
    rows = len(weight)
    parameters = {"weight": weight, "bias": torch.zeros(rows) if bias is None else bias}
    return capture.program(name, source, conv_cell(conv), parameters, I=columns, O=rows * conv.pixels)


def average_pool(capture, fx):
    """A convolution with equal weights, channel by channel."""
    value, sizes = capture.value(fx), shape_of(fx.args[0])
    rank = len(sizes) - 2
    kernel = _each(fx.args[1], rank)
    named = ((2, "stride", None), (3, "padding", 0), (4, "ceil_mode", False), (5, "count_include_pad", True))
    stride, padding, ceil, include = (argument(fx, *one) for one in named)
    around = [(one, one) for one in _each(padding, rank)]
    if ceil or (not include and any(before for before, _ in around)) or argument(fx, 6, "divisor_override"):
        raise capture.refuse(
            fx, "divides by other numbers at the ends (ceil_mode, count_include_pad, divisor_override)"
        )
    weight = torch.full((sizes[1], 1, *kernel), 1 / math.prod(kernel))
    name = capture.name_of(fx, "average")
    return convolve(capture, fx, name, value, weight, None, _each(stride or kernel, rank), around, [1] * rank, sizes[1])


def reduced(capture, fx, value: Value, dims: list[int], kind: str) -> Value:
    """The mean, sum or maximum over dimensions of features, which keep size 1."""
    axes = [value.axis(dim) for dim in dims]
    rest = [axis for axis in range(value.index.ndim) if axis not in axes]
    table = value.index.transpose(rest + axes).reshape(math.prod(value.index.shape[axis] for axis in rest), -1)
    rows, count = table.shape
    shape = [1 if axis in axes else size for axis, size in enumerate(value.index.shape)]
    made = replace(value, index=np.arange(rows).reshape(shape))
    if kind == "max":
        columns = [replace(value, index=table[:, k].reshape(shape)) for k in range(count)]
        return pointwise.largest(capture, fx, columns)
    each, name = 1 / count if kind == "mean" else 1.0, capture.name_of(fx, kind)
    if capture.is_float(value.node):
        weight = np.zeros((rows, capture.size_of(value.node)), np.float32)
        np.add.at(weight, (np.arange(rows)[:, None], table), each)
        node = capture.add(FloatNode(name, (value.node,), FloatOp("linear", {"weight": weight})))
        return replace(made, node=node)
    source = capture.ordered(fx, replace(value, index=table))
    sum_of_rows = Conv((rows, count), (1, count), padding=(0, 0), result=(rows, 1))
    weight = torch.full((1, count), each)
    return replace(made, node=_conv_program(capture, name, source, sum_of_rows, weight, None, table.size))


# ----------------------------------------------------------------------------------------------- batch norm, Embedding


def batch_norm(capture, fx):
    """y = x·a + b with a, b of the running statistics; ``tidy`` folds it into the layer before it."""
    weight, bias, mean, variance = (capture.parameter(fx, one) for one in fx.args[1:5])
    training, epsilon = fx.args[5], fx.args[7]
    if training or mean is None:
        raise capture.refuse(fx, "uses the statistics of its batch; call model.eval(), and keep track_running_stats on")
    value = capture.value(fx)
    if value.dims[1] != F:
        raise capture.refuse(fx, f"takes channels from dimension 1, but gets {value.layout}; transpose it before")
    a = (1 if weight is None else weight) / torch.sqrt(variance + epsilon)
    b = (0 if bias is None else bias) - mean * a
    a, b = (one.reshape(-1, *[1] * (len(value.dims) - 2)) for one in (a, b))
    return pointwise.scaled(capture, fx, value, a, b, capture.path(fx) or fx.name)


def embedding(capture, fx):
    value, weight = capture.values.get(fx.args[1]), capture.parameter(fx, fx.args[0])
    if not (isinstance(value, Value) and capture.ids and value.node == INPUT):
        raise capture.refuse(
            fx, "reads something that is not the model's input; only ids of the input can be looked up"
        )
    if capture.vocabulary not in (0, len(weight)):
        raise capture.refuse(fx, f"has {len(weight)} rows, but another Embedding {capture.vocabulary}; they must agree")
    capture.vocabulary = len(weight)
    node = capture.add(EmbeddingNode(capture.path(fx) or "embedding", (INPUT,), weight))
    return Value(node, (*value.dims, F), np.arange(weight.shape[1]).reshape(*value.index.shape, -1))


HANDLERS = {
    aten.linear.default: linear,
    **dict.fromkeys((aten.bmm.default, aten.matmul.default, aten.mm.default), matmul),
    **dict.fromkeys(
        (
            aten.conv1d.default,
            aten.conv1d.padding,
            aten.conv2d.default,
            aten.conv2d.padding,
            aten.conv3d.default,
            aten.conv3d.padding,
        ),
        conv,
    ),
    **dict.fromkeys((aten.avg_pool1d.default, aten.avg_pool2d.default), average_pool),
    aten.batch_norm.default: batch_norm,
    aten.embedding.default: embedding,
}
