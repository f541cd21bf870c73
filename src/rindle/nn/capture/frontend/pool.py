"""Capture of max-pooling: over time a window; over features, and the frames of a window, maxima of two and two."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import torch

from ....program.nodes import Window, WindowNode
from . import pointwise
from .layers import _each, spaces_of
from .values import T, argument, shape_of

aten = torch.ops.aten


def max_pool(capture, fx):
    value = capture.value(fx)
    spaces = spaces_of(capture, fx, value)
    rank = len(spaces)
    kernel = _each(fx.args[1], rank)
    named = ((2, "stride", None), (3, "padding", 0), (4, "dilation", 1), (5, "ceil_mode", False))
    stride, padding, dilation, ceil = (argument(fx, *one) for one in named)
    stride, dilation = _each(stride or kernel, rank), _each(dilation, rank)
    if any(_each(padding, rank)) or ceil:
        raise capture.refuse(fx, "pads, or rounds up, its ends; only padding=0 and ceil_mode=False are supported")
    made, index, features = shape_of(fx), value.index, capture.size_of(value.node)
    taken, axis = [], 1
    if T in spaces:
        number = spaces.index(T)
        window = Window(kernel[number], dilation[number], stride[number])
        node = WindowNode(f"{capture.name_of(fx, 'max')}.window", (capture.ordered(fx, value),), window)
        value = replace(value, node=capture.shared(node))
        index, features = np.arange(index.size).reshape(index.shape), index.size
    for number, kind in enumerate(spaces):
        if kind == T:
            taken.append([(None, k * features) for k in range(kernel[number])])
        else:
            starts = [
                np.arange(made[2 + number]) * stride[number] + k * dilation[number] for k in range(kernel[number])
            ]
            taken.append([(axis, start) for start in starts])
            axis += 1
    parts = []
    for choice in product(*taken):
        part = index
        for along, which in choice:
            part = part + which if along is None else part.take(which, along)
        parts.append(replace(value, index=part))
    return pointwise.largest(capture, fx, parts)


HANDLERS = dict.fromkeys((aten.max_pool1d.default, aten.max_pool2d.default), max_pool)
