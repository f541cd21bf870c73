"""Capture of what goes along the time: the last and first frame, mean, maximum, padding and cutting of frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ....program.nodes import GatherNode, Window, WindowNode
from . import attention, layers
from .values import F, T, Value, argument, shape_of

aten = torch.ops.aten


def picked(capture, fx, value: Value, dim: int, kind: str, keep: bool = False) -> Value:
    """A value at its last or first frame; the mean or maximum over its frames. keep: as a dimension of size 1."""
    node = _picked(capture, fx, value.node, kind)
    index = value.index
    if keep:
        return replace(
            value,
            node=node,
            dims=(*value.dims[:dim], F, *value.dims[dim + 1 :]),
            index=np.expand_dims(index, value.axis(dim)),
        )
    return replace(value, node=node, dims=value.dims[:dim] + value.dims[dim + 1 :])


def _picked(capture, fx, name: str, kind: str) -> str:
    if not capture.is_float(name):
        return capture.pick(name, kind).node
    if kind not in ("last", "first"):
        raise capture.refuse(
            fx,
            f"is over the frames of {name!r}, which is in floating point: put the {kind} before softmax or LayerNorm",
        )
    node = capture.graph.node(name)  # of one frame it is the same function as of all
    sources = tuple(_picked(capture, fx, source, kind) for source in node.sources)
    return capture.add(replace(node, name=f"{name}.{kind}", sources=sources))


def mean(capture, fx):
    return _over(capture, fx, "mean", fx.args[1], argument(fx, 2, "keepdim", False))


def amax(capture, fx):
    return _over(capture, fx, "max", fx.args[1], argument(fx, 2, "keepdim", False))


def max_(capture, fx):
    """torch.max(x, dim): values and places; the places are refused where something reads them."""
    return [_over(capture, fx, "max", [fx.args[1]], argument(fx, 2, "keepdim", False)), None]


def adaptive(kind: str, pair: bool):
    """AdaptiveAvgPool and AdaptiveMaxPool to one frame, and one feature of each channel."""

    def pool(capture, fx):
        sizes = [size for size in (fx.args[1] if isinstance(fx.args[1], (list, tuple)) else [fx.args[1]])]
        value = capture.value(fx)
        dims = list(range(len(value.dims) - len(sizes), len(value.dims)))
        kept = [dim for dim, size in zip(dims, sizes) if size != 1]
        before = shape_of(fx.args[0])
        if any(sizes[dim - dims[0]] not in (None, before[dim]) or value.dims[dim] == T for dim in kept):
            raise capture.refuse(fx, f"makes {sizes} of {[before[dim] for dim in dims]}; only 1, or None, is supported")
        made = _over(capture, fx, kind, [dim for dim in dims if dim not in kept], True)
        return [made, None] if pair else made

    return pool


def sum_(capture, fx):
    return _over(capture, fx, "sum", fx.args[1], argument(fx, 2, "keepdim", False))


def _over(capture, fx, kind: str, dims, keep: bool) -> Value:
    value = capture.laid(fx)
    if value.pending != "weighted":
        value = capture.checked(fx, value)
    dims = sorted({dim % len(value.dims) for dim in (dims or range(len(value.dims)))}, reverse=True)
    if any(value.dims[dim] not in (F, T) for dim in dims):
        raise capture.refuse(fx, f"is over the dimensions {sorted(dims)} of {value.layout}; rows stay apart")
    features = [dim for dim in dims if value.dims[dim] == F]
    frames = [dim for dim in dims if value.dims[dim] == T]
    if value.pending and kind != "sum":
        raise capture.refuse(fx, "averages what weights over time were multiplied with; sum it: (weights * y).sum(dim)")
    if features and value.pending:
        raise capture.refuse(fx, "sums over features what weights over time were multiplied with; sum over time alone")
    if features:
        value = layers.reduced(capture, fx, value, features, kind)
    for dim in frames:
        if value.pending:
            value = replace(attention.attended(capture, fx, value.scores, value), dims=value.dims, index=value.index)
            value = replace(
                value,
                dims=(*value.dims[:dim], F, *value.dims[dim + 1 :]),
                index=np.expand_dims(value.index, value.axis(dim)),
            )
        elif kind == "sum":
            raise capture.refuse(
                fx, "is over time, where the mean, the maximum and the last frame are supported; use mean"
            )
        else:
            value = picked(capture, fx, value, dim, kind, keep=True)
    if not keep:
        axes = tuple(value.axis(dim) for dim in dims)
        kept = tuple(dim for number, dim in enumerate(value.dims) if number not in dims)
        value = replace(value, dims=kept, index=value.index.squeeze(axes))
    return value


# ------------------------------------------------------------------------------------------------ padding and cutting


def padded(capture, fx, value: Value, before: int, after: int) -> Value:
    """Frames of zeros at both ends; a negative number cuts off."""
    if before > 0 or after > 0:
        node = _integers(capture, fx, value.node)
        window = Window(before=max(before, 0), after=max(after, 0))
        value = replace(value, node=capture.shared(WindowNode(f"{node}.padded", (node,), window)))
    return _cut(capture, fx, value, max(-before, 0), max(-after, 0))


def sliced(capture, fx, value: Value, dim: int, start: int, end: int, step: int) -> Value:
    """A part of the frames, where it is counted from the ends; so that it means the same at every length."""
    frames, made = shape_of(fx.args[0])[dim], shape_of(fx)[dim]
    if start == -1 and end >= frames and step == 1:
        return picked(capture, fx, value, dim, "last", keep=True)
    if (start, end, step) == (0, 1, 1):
        return picked(capture, fx, value, dim, "first", keep=True)
    to_the_length = start == 0 and end == made == capture.time  # x[:, : y.shape[1]]
    if start < 0 or made < 1 or not (end < 0 or end >= frames or to_the_length):
        raise capture.refuse(
            fx,
            f"takes {start}:{'' if end >= frames else end} of the {frames} frames; only as many frames as the input has can be "
            f"taken, some at the start or the end be left out, or the last be picked",
        )
    off = frames - end if to_the_length else max(-end, 0) if end < 0 else 0
    value = _cut(capture, fx, value, start, off)
    if step > 1:
        node = _integers(capture, fx, value.node)
        value = replace(value, node=capture.shared(WindowNode(f"{node}.strided", (node,), Window(stride=step))))
    return value


def _cut(capture, fx, value: Value, start: int, end: int) -> Value:
    """Without so many frames at the start and at the end: of two frames so far apart, the one or the other."""
    for count, kept in ((end, 0), (start, 1)):
        if count:
            node, size = _integers(capture, fx, value.node), capture.size_of(value.node)
            pair = capture.shared(WindowNode(f"{node}.pair", (node,), Window(2, count)))
            index = tuple(range(kept * size, (kept + 1) * size))
            value = replace(value, node=capture.shared(GatherNode(f"{node}.cut", (pair,), index)))
    return value


def _integers(capture, fx, node: str) -> str:
    if capture.is_float(node):
        raise capture.refuse(fx, f"moves the frames of {node!r}, which is in floating point; do that before")
    return node


HANDLERS = {
    aten.mean.dim: mean,
    aten.amax.default: amax,
    aten.max.dim: max_,
    aten.sum.dim_IntList: sum_,
    aten.adaptive_avg_pool1d.default: adaptive("mean", False),
    aten.adaptive_avg_pool2d.default: adaptive("mean", False),
    aten.adaptive_max_pool1d.default: adaptive("max", True),
    aten.adaptive_max_pool2d.default: adaptive("max", True),
}
