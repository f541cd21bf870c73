"""Capture of attention over time: softmax(scores, time) weighs a sequence, which is then summed over time.

softmax and the product with it make no nodes; what is left open stands in ``Value.pending``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ....numbers.float_ops import FloatOp
from ....program.nodes import FloatNode
from .values import B, F, T, Value, inserted, permuted

aten = torch.ops.aten
TWO_VALUES = (
    "multiplies two values; a matrix must be constant, or one of the values weights over time, softmax(scores, time)"
)


def soft(capture, fx, value: Value, dim: int) -> Value:
    """Softmax over time: weights, whose only use is :func:`attended`."""
    if value.index.size != 1:
        raise capture.refuse(
            fx, f"is over time with {value.index.size} scores a frame; attention has one score a frame: [B, T, 1]"
        )
    return replace(value, node=capture.floats(fx, value), index=np.zeros_like(value.index), pending="softmax")


def weighted(capture, fx, weights: Value, value: Value) -> Value | None:
    """weights · values, still to be summed over time."""
    rank = max(len(weights.dims), len(value.dims))
    if (weights.dims.index(T) - len(weights.dims), rank) != (value.dims.index(T) - len(value.dims), len(value.dims)):
        raise capture.refuse(fx, f"weighs values laid out {value.layout} by weights laid out {weights.layout}")
    return replace(value, pending="weighted", scores=weights.node)


def attended(capture, fx, scores: str, value: Value) -> Value:
    """Σ_t softmax_t(scores)·value[t]; the value's T is gone."""
    capture.same_frames(fx, scores, value.node)
    name = capture.name_of(fx, "attention")
    node = capture.add(FloatNode(name, (scores, value.node), FloatOp("attention")))
    dims = tuple(dim for dim in value.dims if dim != T)
    return Value(node, dims, value.index)


def einsum(capture, fx):
    """Of weights over time and a sequence, summed over time; bmm and matmul are this, too."""
    equation, operands = fx.args[0].replace(" ", ""), fx.args[1]
    sides, _, out = equation.partition("->")
    return contracted(capture, fx, list(operands), sides.split(","), out)


def contracted(capture, fx, operands: list, letters: list[str], out: str) -> Value:
    values = [capture.laid_node(fx, operand) if capture.constant(operand) is None else None for operand in operands]
    if None in values or [value.pending for value in values].count("softmax") != 1 or len(values) != 2:
        raise capture.refuse(fx, TWO_VALUES)
    weights, value = sorted(values, key=lambda one: one.pending != "softmax")
    of_weights, of_value = sorted(letters, key=lambda one: values[letters.index(one)] is not weights)
    if letters[0] == letters[1]:
        of_weights = of_value = letters[0]
    value = capture.checked(fx, value)
    time = {of_value[value.dims.index(T)]} if T in value.dims else set()
    shared = set(of_weights) & set(of_value)
    rows = {of_value[value.dims.index(B)]} if B in value.dims else set()
    own = [letter for letter, dim in zip(of_weights, weights.dims) if dim == F]
    if shared != rows | time or time != {of_weights[weights.dims.index(T)]} or time & set(out) or not rows <= set(out):
        raise capture.refuse(
            fx, f"multiplies {value.layout} by weights over time, {weights.layout}, but does not sum over time alone"
        )
    made = attended(capture, fx, weights.node, value)
    have = [letter for letter in of_value if letter not in time]
    for letter in own:
        if letter in out:
            made, have = inserted(made, len(have)), [*have, letter]
    return permuted(made, [have.index(letter) for letter in out])


HANDLERS = {aten.einsum.default: einsum}
