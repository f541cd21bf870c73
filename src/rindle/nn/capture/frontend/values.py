"""What a traced tensor is: a node's features, and where they, the batch and the time stand among its dimensions.

Layout operations change only this description. The features stand in ``index``, an array of the tensor's own feature
dimensions, so that on features transposing, reshaping, slicing, joining and repeating are NumPy's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

B, T, F = "B", "T", "F"
BATCH_TIME, TIME_BATCH, VECTOR = (B, T, F), (T, B, F), (B, F)
ZERO = -1  # in an index: a zero of padding, and no feature


@dataclass(frozen=True, eq=False)
class Value:
    """dims: of every dimension of the tensor, what it is: B (rows), T (frames), "BT" or "TB" (both in one), F (features).

    index: int [sizes of the F dimensions]: which feature of the node stands there; None: all, in the node's order, in one
    dimension. pending: "softmax", weights over time of which ``node`` has the scores; "weighted", values times such weights,
    of which ``scores`` is the node; None, an ordinary value.
    """

    node: str
    dims: tuple[str, ...]
    index: np.ndarray | None = None
    pending: str | None = None
    scores: str | None = None

    @property
    def layout(self) -> str:
        return f"[{', '.join(' and '.join(dim) for dim in self.dims)}]"

    @property
    def over_time(self) -> bool:
        return any(T in dim for dim in self.dims)

    def axis(self, dim: int) -> int:
        """Of the index, where the tensor's dimension ``dim`` is one of features."""
        return self.dims[:dim].count(F)


def permuted(value: Value, order: list[int]) -> Value:
    """The dimensions in another order."""
    axes = [value.axis(dim) for dim in order if value.dims[dim] == F]
    return replace(value, dims=tuple(value.dims[dim] for dim in order), index=value.index.transpose(axes))


def inserted(value: Value, dim: int) -> Value:
    """With one more dimension of size 1, of features."""
    index = np.expand_dims(value.index, value.axis(dim))
    return replace(value, dims=(*value.dims[:dim], F, *value.dims[dim:]), index=index)


def removed(value: Value, dim: int) -> Value:
    """Without a dimension of features that has size 1."""
    dims = value.dims[:dim] + value.dims[dim + 1 :]
    return replace(value, dims=dims, index=value.index.squeeze(value.axis(dim)))


def changed(value: Value, dim: int, function) -> Value:
    """function of (index, axis) along a dimension of features."""
    return replace(value, index=function(value.index, value.axis(dim)))


def reshaped(value: Value, after: tuple[int, ...], batch: int, time: int | None) -> Value | None:
    """The tensor with other sizes; None where that would mix rows or frames with features. time: its frames."""
    sizes = {B: batch, T: time, B + T: batch * (time or 0), T + B: batch * (time or 0)}
    axes = iter(value.index.shape)
    before = [(dim, next(axes) if dim == F else sizes[dim]) for dim in value.dims]
    dims = _match(before, list(after), sizes)
    if dims is None:
        return None
    index = value.index.reshape([size for dim, size in zip(dims, after) if dim == F])
    return replace(value, dims=tuple(dims), index=index)


def _match(before: list, after: list, sizes: dict) -> list | None:
    """What each dimension of the sizes ``after`` is; the first reading that fits, from left to right."""
    if not before and not after:
        return []

    def then(dims: list, used: int, made: int):
        rest = _match(before[used:], after[made:], sizes)
        return None if rest is None else [*dims, *rest]

    readings = []
    if before and before[0][0] != F:
        dim, size = before[0]
        if after[:1] == [size]:
            readings.append(lambda: then([dim], 1, 1))
        if len(dim) == 2 and after[:2] == [sizes[dim[0]], sizes[dim[1]]]:
            readings.append(lambda: then(list(dim), 1, 2))
        if len(before) > 1 and {dim, before[1][0]} == {B, T} and after[:1] == [size * before[1][1]]:
            readings.append(lambda: then([dim + before[1][0]], 2, 1))
    elif before:
        run = next((k for k, (dim, _) in enumerate(before) if dim != F), len(before))
        features = math.prod(size for _, size in before[:run])
        for made in range(len(after) + 1):
            if math.prod(after[:made]) == features:
                readings.append(lambda made=made: then([F] * made, run, made))
    if after[:1] == [1]:
        readings.append(lambda: then([F], 0, 1))
    return next((dims for reading in readings if (dims := reading()) is not None), None)


def shape_of(fx) -> tuple[int, ...]:
    """Sizes of a traced tensor at the captured length; of a dynamic dimension, that of the example."""
    return tuple(size if isinstance(size, int) else size.node.hint for size in fx.meta["val"].shape)


def argument(fx, place: int, name: str, default=None):
    """An operation's argument, given by place or by name."""
    return fx.args[place] if len(fx.args) > place else fx.kwargs.get(name, default)
