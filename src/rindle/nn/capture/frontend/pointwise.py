"""Capture of what is computed of each element: activations, and the arithmetic of values, constants and numbers.

Each is a small cell without states, whose inputs all have one size.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import numpy as np
import torch

from ....numbers.float_ops import ELEMENT_WISE, FloatOp
from ....program.nodes import FloatNode
from ....program.tracer import Cell, cell
from ....scheme.paths import origin_of
from . import attention
from .values import F, Value, argument, inserted

aten = torch.ops.aten
Constant = torch.Tensor | float | int


# ------------------------------------------------------------------------------------------------------- equations


def clip(lo: float, hi: float):
    return lambda n, x: n.clip(x, lo, hi)


def leaky_relu(n, x):
    """max(x, 0) + slope·min(x, 0)"""
    below = n.path("below", n.clip(x, -math.inf, 0.0))
    return n.add(n.path("above", n.relu(x)), n.mul(n.vector("slope", "I"), below))


def hard_sigmoid(n, x):
    """x/6 + 1/2 within 0..1, as in torch."""
    line = n.path("line", n.add(n.mul(n.vector("sixth", "I"), x), n.vector("half", "I")))
    return n.clip(line, 0.0, 1.0)


def hard_swish(n, x):
    return n.mul(x, hard_sigmoid(n, x))


def silu(n, x):
    return n.mul(x, n.sigmoid(x))


def gelu(n, x):
    """x·Φ(x). Hendrycks & Gimpel 2016, arXiv 1606.08415."""
    return n.mul(x, n.table("normal_cdf", x))


def gelu_tanh(n, x):
    """Its approximation by tanh, section 2 of the same."""
    return n.mul(x, n.table("normal_cdf_tanh", x))


def absolute(n, x):
    return n.sub(n.path("above", n.relu(x)), n.path("below", n.clip(x, -math.inf, 0.0)))


def glu(n, a, b):
    """a·σ(b). Dauphin et al. 2016, arXiv 1612.08083."""
    return n.mul(a, n.sigmoid(b))


def scale(n, x):
    return n.mul(x, n.vector("scale", "I"))


def shift(n, x):
    return n.add(x, n.vector("shift", "I"))


def scale_shift(n, x):
    return n.add(n.mul(x, n.vector("scale", "I")), n.vector("shift", "I"))


def maximum(n, *paths):
    """max(a, b) = a + max(b − a, 0), again and again: there is no operation for it."""
    largest = paths[0]
    for k, path in enumerate(paths[1:], 1):
        above = n.path(f"above{k}", n.relu(n.path(f"difference{k}", n.sub(path, largest))))
        largest = n.add(largest, above)
        if k + 1 < len(paths):
            n.path(f"largest{k}", largest)
    return largest


def minimum(n, a, b):
    """min(a, b) = a − max(a − b, 0)"""
    return n.sub(a, n.relu(n.sub(a, b)))


CONSTANTS = {hard_sigmoid: {"sixth": 1 / 6, "half": 0.5}, hard_swish: {"sixth": 1 / 6, "half": 0.5}}


def pointwise_cell(name: str, equation, inputs: int, copied: bool) -> Cell:
    """copied: an input that a clip reads is copied first. The model's own and an embedding's need it: their format is chosen
    when all of their readers have theirs, and a clip would pass it on.
    """
    names = ["x"] if inputs == 1 else [f"x{k}" for k in range(1, inputs + 1)]

    def made(copies: bool) -> Cell:
        def function(n, *paths):
            if copies:
                paths = [n.path(f"{path.name}_copy", n.requantize(path)) for path in paths]
            return equation(n, *paths)

        parameters = [inspect.Parameter(one, inspect.Parameter.POSITIONAL_ONLY) for one in ("n", *names)]
        function.__signature__, function.__name__ = inspect.Signature(parameters), name
        return cell()(function)

    plain = made(False)
    clipped = {path for op in plain.program.ops if op.kind == "clip" for path in op.args}
    return made(True) if copied and clipped & set(names) else plain


# ------------------------------------------------------------------------------------------------- values, aligned


def aligned(capture, fx, values: list[Value]) -> list[Value]:
    """With the same dimensions, as torch broadcasts: from the last one on, and only features over features."""
    rank = max(len(value.dims) for value in values)
    for number, value in enumerate(values):
        for _ in range(rank - len(value.dims)):
            value = inserted(value, 0)
        values[number] = value
    if len({value.dims for value in values}) > 1:
        layouts = " and ".join(dict.fromkeys(value.layout for value in values))
        raise capture.refuse(
            fx, f"joins values laid out {layouts}; a vector over all frames, or the like, is not supported"
        )
    return values


def constant_of(capture, fx, value: Value, constant: Constant) -> np.ndarray:
    """A constant that torch would broadcast over the value, as an array for its index."""
    tensor = torch.as_tensor(constant, dtype=torch.float32)
    sizes = (1,) * (len(value.dims) - tensor.ndim) + tuple(tensor.shape)
    wrong = [dim for dim, (kind, size) in enumerate(zip(value.dims, sizes)) if kind != F and size != 1]
    if len(sizes) > len(value.dims) or wrong:
        raise capture.refuse(
            fx,
            f"takes a constant of the sizes {list(tensor.shape)} with {value.layout}; it may differ from feature to feature alone",
        )
    return tensor.numpy().reshape([size for kind, size in zip(value.dims, sizes) if kind == F])


def computed(capture, fx, name: str, equation, values: list[Value], constants: dict | None = None) -> Value:
    """A program of the values, element by element. constants: vector -> array that broadcasts over the index."""
    values = aligned(capture, fx, values)
    constants = {path: np.asarray(array, np.float32) for path, array in (constants or {}).items()}
    shape = np.broadcast_shapes(*(value.index.shape for value in values), *(a.shape for a in constants.values()))
    values = [replace(value, index=np.broadcast_to(value.index, shape)) for value in values]
    base = next(
        (value for value in values if value.index.size == capture.size_of(value.node) and capture.is_whole(value)), None
    )
    order = np.arange(math.prod(shape)) if base is None else base.index.ravel()  # the program's order of elements

    def in_order(array):
        placed = np.empty(order.size, array.dtype)
        placed[order] = np.broadcast_to(array, shape).ravel()
        return placed

    sources = tuple(capture.ordered(fx, replace(value, index=in_order(value.index))) for value in values)
    capture.same_frames(fx, *sources)
    copied = any(origin_of(capture.graph, source) is not None for source in sources)
    made = pointwise_cell(name.rpartition(".")[2], equation, len(values), copied)
    vectors = {path: torch.from_numpy(in_order(array)) for path, array in constants.items()}
    node = capture.program(name, sources, made, vectors, I=order.size)
    return replace(values[0], node=node, index=order.reshape(shape))


def scaled(capture, fx, value: Value, factor: Constant | None, summand: Constant | None, name: str) -> Value:
    """x·factor + summand."""
    given = (("scale", factor, 1.0), ("shift", summand, 0.0))
    constants = {path: constant_of(capture, fx, value, c) for path, c, _ in given if c is not None}
    shape = np.broadcast_shapes(value.index.shape, *(array.shape for array in constants.values()))
    value = replace(value, index=np.broadcast_to(value.index, shape))
    constants = {path: constants[path] for path, _, neutral in given if np.any(constants.get(path, neutral) != neutral)}
    if not constants:
        return value
    if not capture.is_float(value.node):
        equation = {("scale",): scale, ("shift",): shift}.get(tuple(constants), scale_shift)
        return computed(capture, fx, name, equation, [value], constants)
    node, size = capture.floats(fx, value), value.index.size
    one = {path: np.broadcast_to(array, shape).ravel() for path, array in constants.items()}
    parameters = {"weight": np.diag(one.get("scale", np.ones(size))).astype(np.float32)}
    parameters |= {"bias": one["shift"].astype(np.float32)} if "shift" in one else {}
    made = capture.add(FloatNode(name, (node,), FloatOp("linear", parameters)))
    return replace(value, node=made, index=np.arange(size).reshape(shape))


def largest(capture, fx, values: list[Value]) -> Value:
    """The elementwise maximum of up to 64 values."""
    if len(values) == 1:
        return values[0]
    if len(values) > 64:
        raise capture.refuse(
            fx, f"is the maximum of {len(values)} features; at most 64 are supported: pool in two steps"
        )
    return computed(capture, fx, capture.name_of(fx, "max"), maximum, values)


# -------------------------------------------------------------------------------------------------------- handlers


def unary(name: str, equation, floating: str | None = None):
    """floating: what it is called among float nodes, where it exists there."""

    def handler(capture, fx):
        value = capture.value(fx)
        if capture.is_float(value.node):
            return _floating(capture, fx, floating, value)
        constants = CONSTANTS.get(equation)
        return computed(capture, fx, capture.name_of(fx, name), equation, [value], constants)

    return handler


def _floating(capture, fx, name: str | None, value: Value) -> Value:
    if name not in ELEMENT_WISE:
        known = ", ".join(ELEMENT_WISE)
        raise capture.refuse(fx, f"reads {value.node!r}, which is in floating point, where there are only {known}")
    node = FloatNode(capture.name_of(fx, name), (capture.floats(fx, value),), FloatOp(name))
    return replace(value, node=capture.add(node))


def gelu_of(capture, fx):
    kind = "gelu_tanh" if argument(fx, 1, "approximate", "none") == "tanh" else "gelu"
    return unary(kind, {"gelu": gelu, "gelu_tanh": gelu_tanh}[kind], kind)(capture, fx)


def bounded(name: str, lo: float | None = None, hi: float | None = None):
    """clip at the operation's own arguments, or at these numbers where it has none."""

    def handler(capture, fx):
        low, high = (
            argument(fx, 1, "min", argument(fx, 1, "min_val", lo)),
            argument(fx, 2, "max", argument(fx, 2, "max_val", hi)),
        )
        low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
        if not all(isinstance(bound, (int, float)) for bound in (low, high)):
            raise capture.refuse(fx, "has bounds that are tensors; they must be numbers")
        return unary(name, clip(float(low), float(high)))(capture, fx)

    return handler


def sloped(capture, fx):
    """LeakyReLU, its slope a number, and PReLU, its slope a parameter for all channels or for each."""
    value = capture.value(fx)
    slope = argument(fx, 1, "negative_slope", 0.01)
    if fx.target is aten.prelu.default:
        slope = capture.parameter(fx, slope)
        slope = slope.reshape(-1, *[1] * (len(value.dims) - 2)) if slope.numel() > 1 else slope.reshape(())
    if capture.is_float(value.node):
        return _floating(capture, fx, None, value)
    constants = {"slope": constant_of(capture, fx, value, slope)}
    return computed(capture, fx, capture.name_of(fx, "leaky_relu"), leaky_relu, [value], constants)


def glu_of(capture, fx):
    value = capture.value(fx)
    dim = argument(fx, 1, "dim", -1) % len(value.dims)
    if value.dims[dim] != F:
        raise capture.refuse(fx, f"halves dimension {dim} of {value.layout}, which is not one of features")
    halves = [replace(value, index=half) for half in np.split(value.index, 2, value.axis(dim))]
    return computed(capture, fx, capture.name_of(fx, "glu"), glu, halves)


def operand(capture, fx, place: int) -> Value | Constant:
    """A traced value, or a constant."""
    given = fx.args[place]
    if isinstance(given, (int, float)):
        return given
    constant = capture.constant(given)
    return capture.laid(fx, place) if constant is None else constant


def arithmetic(kind: str):
    """add, sub, rsub, mul, div, of two values, or of one and a constant."""

    def handler(capture, fx):
        a, b = operand(capture, fx, 0), operand(capture, fx, 1)
        if kind == "rsub":
            a, b = b, a
        sign = -1.0 if kind in ("sub", "rsub") else 1.0
        alpha = fx.kwargs.get("alpha", 1)
        if isinstance(a, Value) and isinstance(b, Value):
            return _of_two(capture, fx, kind, a, b, sign, alpha)
        if isinstance(a, Value):
            a, name = capture.checked(fx, a), capture.name_of(fx, kind)
            if kind == "mul":
                return scaled(capture, fx, a, b, None, name)
            if kind == "div":
                return scaled(capture, fx, a, 1 / torch.as_tensor(b, dtype=torch.float32), None, name)
            return scaled(capture, fx, a, None, sign * alpha * b, name)
        b, name = capture.checked(fx, b), capture.name_of(fx, kind)
        if kind == "div":
            raise capture.refuse(fx, "divides by a value; only constants can be divided by")
        if kind == "mul":
            return scaled(capture, fx, b, a, None, name)
        return scaled(capture, fx, b, None if sign * alpha == 1 else sign * alpha, a, name)

    return handler


def _of_two(capture, fx, kind: str, a: Value, b: Value, sign: float, alpha: float) -> Value:
    if kind == "mul" and [a.pending, b.pending].count("softmax") == 1:
        weights, value = (a, b) if a.pending == "softmax" else (b, a)
        return attention.weighted(capture, fx, weights, capture.checked(fx, value))
    a, b = capture.checked(fx, a), capture.checked(fx, b)
    if kind == "div":
        raise capture.refuse(fx, "divides by a value; only constants can be divided by")
    name = capture.name_of(fx, "sub" if kind == "rsub" else kind)
    if capture.is_float(a.node) or capture.is_float(b.node):
        return _of_two_floats(capture, fx, name, "mul" if kind == "mul" else "add", a, b, sign * alpha)
    if alpha != 1:
        b = scaled(capture, fx, b, alpha, None, name)
    operation = "mul" if kind == "mul" else "add" if sign > 0 else "sub"
    return computed(capture, fx, name, lambda n, x, y: getattr(n, operation)(x, y), [a, b])


def _of_two_floats(capture, fx, name: str, operation: str, a: Value, b: Value, factor: float) -> Value:
    a, b = aligned(capture, fx, [a, b])
    if a.index.shape != b.index.shape:
        raise capture.refuse(fx, f"joins {list(a.index.shape)} and {list(b.index.shape)} features in floating point")
    if factor != 1:
        b = scaled(capture, fx, b, factor, None, f"{name}.scale")
    sources = capture.floats(fx, a), capture.floats(fx, b)
    capture.same_frames(fx, *sources)
    node = capture.add(FloatNode(name, sources, FloatOp(operation)))
    return replace(a, node=node, index=np.arange(a.index.size).reshape(a.index.shape))


def extreme(equation):
    """torch.maximum and minimum of two values."""

    def handler(capture, fx):
        values = [capture.value(fx, place) for place in (0, 1)]
        return computed(capture, fx, capture.name_of(fx, equation.__name__), equation, values)

    return handler


def negated(capture, fx):
    return scaled(capture, fx, capture.value(fx), -1.0, None, capture.name_of(fx, "neg"))


def power(capture, fx):
    if len(fx.args) > 1 and fx.args[1] != 2:
        raise capture.refuse(fx, f"is to the power of {fx.args[1]}; only squares are supported")
    return unary("square", lambda n, x: n.mul(x, x))(capture, fx)


HANDLERS = {
    aten.relu.default: unary("relu", clip(0.0, math.inf), "relu"),
    aten.sigmoid.default: unary("sigmoid", lambda n, x: n.sigmoid(x), "sigmoid"),
    aten.tanh.default: unary("tanh", lambda n, x: n.tanh(x), "tanh"),
    aten.hardsigmoid.default: unary("hardsigmoid", hard_sigmoid),
    aten.hardswish.default: unary("hardswish", hard_swish),
    aten.silu.default: unary("silu", silu),
    aten.gelu.default: gelu_of,
    aten.abs.default: unary("abs", absolute),
    aten.relu6.default: bounded("relu6", 0.0, 6.0),
    aten.hardtanh.default: bounded("hardtanh", -1.0, 1.0),
    aten.clamp.default: bounded("clamp"),
    aten.clamp_min.default: bounded("clamp"),
    aten.leaky_relu.default: sloped,
    aten.prelu.default: sloped,
    aten.glu.default: glu_of,
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), arithmetic("add")),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), arithmetic("sub")),
    **dict.fromkeys((aten.rsub.Tensor, aten.rsub.Scalar), arithmetic("rsub")),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), arithmetic("mul")),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), arithmetic("div")),
    aten.neg.default: negated,
    **dict.fromkeys((aten.pow.Tensor_Scalar, aten.square.default), power),
    aten.maximum.default: extreme(maximum),
    aten.minimum.default: extreme(minimum),
}
