"""The integer meaning of every operation: the executable twin of docs/numerics.md, whose equations it cites.

Written once over a small array namespace, and run by two of them: :class:`NumPy` on int64 (the reference) and
``nn.simulate`` on float64 tensors (the simulation). Everything stays below 2**53, so both are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .formats import Format


class NumPy:
    """int64 arrays."""

    where = staticmethod(np.where)
    clip = staticmethod(np.clip)
    abs = staticmethod(np.abs)

    @staticmethod
    def array(values) -> np.ndarray:
        return np.asarray(values, np.int64)

    @staticmethod
    def zeros(rows: int, columns: int) -> np.ndarray:
        return np.zeros((rows, columns), np.int64)

    @staticmethod
    def floor_shift(v, s: int):
        return v >> s

    @staticmethod
    def product(x, matrix):
        return x @ matrix.T

    maximum = staticmethod(np.maximum)

    @staticmethod
    def concat(arrays):
        return np.concatenate(arrays)

    @staticmethod
    def join(arrays):
        """Their features one after the other."""
        return np.concatenate(arrays, axis=-1)

    @staticmethod
    def mean(total, count: int):
        """(21)."""
        return (2 * total + count) // (2 * count)

    @staticmethod
    def take(table, k):
        return table[k]

    @staticmethod
    def count(mask) -> int:
        return int(np.count_nonzero(mask))

    @staticmethod
    def split(y, sizes):
        return tuple(np.split(y, np.cumsum(list(sizes))[:-1], axis=-1))


def round_shift(xp, v, s: int):
    """(6): round half up. The only place that rounds at run time; a negative s is an exact left shift."""
    if s <= 0:
        return v * 2**-s
    return xp.floor_shift(v + 2 ** (s - 1), s)


def saturate(xp, v, fmt: Format):
    """(5)."""
    return xp.clip(v, fmt.lo, fmt.hi)


def conv_reads(conv, channels: int) -> np.ndarray:
    """Where (7c) reads: for every group, element of the result and column of the weights, an index into the flat image
    of so many channels, or the index behind its end where there is zero padding. int64 [groups, H'·W', columns].
    """
    (height, width), (kernel_h, kernel_w) = conv.image, conv.kernel
    i = np.arange(conv.result[0])[:, None] * conv.stride[0] + np.arange(kernel_h) * conv.dilation[0] - conv.padding[0]
    j = np.arange(conv.result[1])[:, None] * conv.stride[1] + np.arange(kernel_w) * conv.dilation[1] - conv.padding[1]
    i, j = i[:, None, :, None], j[None, :, None, :]  # [H', W', kh, kw]
    pixel = np.where((i >= 0) & (i < height) & (j >= 0) & (j < width), i * width + j, -1)
    pixel = pixel.reshape(1, conv.pixels, 1, kernel_h * kernel_w)
    channel = np.arange(channels).reshape(conv.groups, 1, -1, 1)
    index = np.where(pixel >= 0, channel * height * width + pixel, channels * height * width)
    return index.reshape(conv.groups, conv.pixels, -1)


def product_of(xp, term, weight, sizes: dict):
    """acc of (7) or (7c): a function of an array [batch, columns] that gives [batch, rows]. sizes: of the program's paths."""
    conv = term.conv
    if conv is None:
        return lambda x: xp.product(x, weight)
    reads = conv_reads(conv, sizes[term.code] // math.prod(conv.image))
    groups = list(zip(reads, xp.split(weight.T, [len(weight) // conv.groups] * conv.groups)))

    def convolve(x):
        padded = xp.join([x, xp.zeros(len(x), 1)])
        parts = [xp.product(padded[:, index], part.T) for index, part in groups]  # [batch, pixels, channels]
        return xp.join(parts).swapaxes(1, 2).reshape(len(x), -1)

    return convolve


@dataclass(frozen=True, eq=False)
class Product:
    """One term of an affine, converted. weight: int64 codes [rows, columns]; multiplier: M [rows]. Of a convolution, rows
    are channels and columns its kernel's elements, ``Program.block_shape``.

    step: what a weight's code 1 is worth, a number or one per row; not needed to compute.
    """

    weight: np.ndarray
    format: Format  # bits, and the scale if there is one for the whole matrix
    multiplier: np.ndarray
    row_scales: np.ndarray | None = None  # float32 [rows]


@dataclass(frozen=True, eq=False)
class Affine:
    """(7), converted. products: one per term of the operation. bias: int64 [rows]; of convolutions, per channel."""

    products: tuple[Product, ...]
    bias: np.ndarray
    shift: int


@dataclass(frozen=True)
class Rescale:
    """(9), converted."""

    multiplier: int
    shift: int


def alignment(op_kind: str, f: tuple[int, ...], result: int) -> tuple[tuple[int, ...], int]:
    """Section 4: the left shift of each term to the largest fraction F, and s = F − frac(result).

    f: the operands' fractions. Terms: a and b; a·b; a·b and c·d; z·a and (one−z)·b.
    """
    if op_kind in ("add", "sub"):
        fractions = f
    elif op_kind == "mul":
        fractions = (f[0] + f[1],)
    elif op_kind == "sum_of_products":
        fractions = (f[0] + f[1], f[2] + f[3])
    elif op_kind == "lerp":
        fractions = (f[0] + f[1], f[0] + f[2])
    else:
        raise ValueError(op_kind)
    largest = max(fractions)
    return tuple(largest - one for one in fractions), largest - result


def one_of(z: Format) -> int:
    """The code of 1 in a lerp weight's format, (13)."""
    return 2**z.frac if z.frac >= 0 else 0


def evaluate_table(table, x, fmt: Format, xp=NumPy):
    """(17) to (19). x: codes; fmt: the result's format."""
    start = xp.abs(x) if table.flag != "none" else x - table.x0
    u = xp.clip(start, 0, table.top)
    k = xp.floor_shift(u, table.p)
    y = xp.take(xp.array(table.base), k)
    if table.degree:
        t = u - k * 2**table.p
        y = saturate(xp, y + round_shift(xp, xp.take(xp.array(table.slope), k) * t, table.q), fmt)
    if table.flag == "none":
        return y
    mirrored = -y if table.flag == "odd" else 2**fmt.frac - y
    return xp.where(x < 0, saturate(xp, mirrored, fmt), y)


class Codes:
    """Numerics for :func:`rindle.program.program.step` on one converted layer's integer codes.

    saturations: operation (by its first result) -> elements that (5) changed, numerics section 8.
    changes: held code path -> elements that (20) let through; frames: rows x frames seen.
    start: state -> its codes before the first frame [rows, n], in place of the layer's own.
    """

    def __init__(self, layer, xp=NumPy):
        self.layer, self.xp = layer, xp
        self.vectors = {name: xp.array(codes) for name, codes in layer.vectors.items()}
        self.thetas = {code: xp.array(theta) for code, theta in layer.thetas.items()}
        self.saturations = {op.out[0]: 0 for op in layer.program.ops if op.kind not in ("clip", "table")}
        self.changes = dict.fromkeys(layer.thetas, 0)
        self.frames = 0
        self.start: dict[str, object] = {}
        self._affines = {
            op.out: [
                (
                    product_of(xp, term, xp.array(p.weight), layer.program.sizes),
                    xp.array(np.repeat(p.multiplier, op.pixels)),
                    term.gates,
                )
                for term, p in zip(op.terms, layer.constants[op.out[0]].products)
            ]
            for op in layer.program.affines
        }
        self._biases = {
            op.out: xp.array(np.repeat(layer.constants[op.out[0]].bias, op.pixels)) for op in layer.program.affines
        }

    def initial(self, batch: int) -> tuple[dict, dict]:
        """States before the first frame: those in ``start``, the layer's own, or zero; v̂: zero."""
        size = self.layer.program.sizes
        states = {path: self.xp.zeros(batch, size[path]) for path, _ in self.layer.program.states}
        states |= {path: states[path] + self.xp.array(codes) for path, codes in self.layer.initial.items()}
        return states | self.start, {code: self.xp.zeros(batch, size[code]) for code in self.layer.thetas}

    def _format(self, path: str) -> Format:
        return self.layer.formats[path]

    def saturate(self, op, path: str, v):
        """(5), counted. path: the one of the operation's results that v becomes."""
        fmt = self._format(path)
        self.saturations[op.out[0]] += self.xp.count((v < fmt.lo) | (v > fmt.hi))
        return saturate(self.xp, v, fmt)

    def affine(self, op, *codes):
        xp, constant, size = self.xp, self.layer.constants[op.out[0]], self.layer.program.sizes
        sums = list(xp.split(self._biases[op.out], [size[gate] for gate in op.out]))
        for x, (product, multiplier, gates) in zip(codes, self._affines[op.out]):
            parts = xp.split(product(x) * multiplier, [size[gate] for gate in gates])
            for i, part in enumerate(parts, op.out.index(gates[0])):
                sums[i] = sums[i] + part  # Σ_t M·acc + b
        return tuple(self.saturate(op, gate, round_shift(xp, v, constant.shift)) for gate, v in zip(op.out, sums))

    def requantize(self, op, x):
        rescale = self.layer.constants[op.out[0]]
        return self.saturate(op, op.out[0], round_shift(self.xp, x * rescale.multiplier, rescale.shift))

    def _elementwise(self, op, *terms):
        """(10) to (14)."""
        result = self._format(op.out[0])
        lefts, s = alignment(op.kind, tuple(self._format(a).frac for a in op.args), result.frac)
        v = sum(term * 2**left for term, left in zip(terms, lefts))
        return self.saturate(op, op.out[0], round_shift(self.xp, v, s))

    def add(self, op, a, b):
        return self._elementwise(op, a, b)

    def sub(self, op, a, b):
        return self._elementwise(op, a, -b)

    def mul(self, op, a, b):
        return self._elementwise(op, a * b)

    def sum_of_products(self, op, a, b, c, d):
        return self._elementwise(op, a * b, c * d)

    def lerp(self, op, z, a, b):
        one = one_of(self._format(op.args[0]))
        return self._elementwise(op, z * a, (one - z) * b)

    def clip(self, op, x):
        return self.xp.clip(x, *self.layer.constants[op.out[0]])  # (16)

    def table(self, op, x):
        return evaluate_table(self.layer.constants[op.out[0]], x, self._format(op.out[0]), self.xp)

    def hold(self, code, v, held):
        """(20)."""
        fires = self.xp.abs(v - held) > self.thetas[code]
        self.changes[code] += self.xp.count(fires)
        return self.xp.where(fires, v, held)
