"""What float nodes compute, at the output side of a model: outside the promise of equal bits. docs/numerics.md, section 7.

Double inside, float32 between the nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True, eq=False)
class FloatOp:
    """name: one of NAMES. parameters: "groups" and "epsilon" are numbers, "weight" and "bias" float32 arrays."""

    name: str
    parameters: dict = field(default_factory=dict)


def _log_softmax(x, groups):
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    shifted = grouped - grouped.max(-1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))).reshape(x.shape)


def _softmax(x, groups):
    return np.exp(_log_softmax(x, groups))


def _sigmoid(x):
    return np.exp(-np.logaddexp(0.0, -x))


def _gelu(x):
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _layer_norm(x, epsilon, weight=1.0, bias=0.0):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


def _linear(x, weight, bias=0.0):
    return x @ np.asarray(weight, np.float64).T + bias


ELEMENT_WISE = {
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}
# name -> function of float64 arrays [..., F], one per source, and the parameters
FRAME_WISE = {
    **ELEMENT_WISE,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "add": np.add,
    "mul": np.multiply,
}
NAMES = (*FRAME_WISE, "attention")
SOURCES = {"add": 2, "mul": 2, "attention": 2}  # the others have one


def size_of(op: FloatOp, sizes: list[int]) -> int:
    """Features of the result."""
    if op.name == "linear":
        return len(op.parameters["weight"])
    return sizes[-1]  # of an attention, those of the values


def run(op: FloatOp, sources: list):
    """sources: float32 values, each a list of frames [rows still running, F], rows by falling length, or one [rows, F]."""
    if op.name == "attention":
        return _attention(*sources)
    if isinstance(sources[0], list):
        return [_frame(op, parts) for parts in zip(*sources, strict=True)]
    return _frame(op, sources)


def _frame(op: FloatOp, parts) -> np.ndarray:
    parts = [np.asarray(part, np.float64) for part in parts]
    return FRAME_WISE[op.name](*parts, **op.parameters).astype(np.float32)


def _attention(scores: list, values: list) -> np.ndarray:
    """Σ_t softmax_t(scores)·values[t], over each row's real frames."""
    rows = len(scores[0])
    out = np.zeros((rows, values[0].shape[1]), np.float32)
    for row in range(rows):
        time = sum(len(frame) > row for frame in scores)
        weights = _softmax(np.array([scores[t][row, 0] for t in range(time)], np.float64), 1)
        out[row] = weights @ np.array([values[t][row] for t in range(time)], np.float64)
    return out
