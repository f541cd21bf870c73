"""How large the integers of a program can get, whatever the data: A and R of (8b), and (15), docs/numerics.md.

All of Python takes its bounds from here: conversion, the reader of files, the guideline for hardware, the C export. They follow from
the weights' own levels and the formats of what they meet. The core (``core/file/document_bounds.cc``) and ``tests/naive.py``
derive them anew, so that one checks the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..errors import RindleError
from .codes import Affine, Rescale, alignment, one_of
from .formats import Format

LIMIT = 2**52  # no sum reaches it: (8b), (15)
MAX_SHIFT = 40  # (7)
MAX_MULTIPLIER = 2**22  # (8a): every M is smaller


def signed_bits(reach: int) -> int:
    """Returns the bits of a two's complement integer that holds every value up to this magnitude."""
    return reach.bit_length() + 1


def largest(fmt: Format) -> int:
    """Returns max|x| over the codes x of a format."""
    return max(-fmt.lo, fmt.hi)


def rounding(shift: int) -> int:
    """Returns R of (6), the constant that rounds half up before a shift."""
    return 2 ** (shift - 1) if shift >= 1 else 0


def accumulators(levels: np.ndarray, code: Format) -> np.ndarray:
    """Returns A = Σ_k |w[r,k]|·max|x| of (8b), int64 [rows], of the integers [rows, columns] that a matrix multiplies with."""
    return np.abs(levels.astype(np.int64)).sum(1) * largest(code)


def sums(terms: Iterable[tuple[slice, np.ndarray, np.ndarray]], bias: np.ndarray) -> np.ndarray:
    """Returns Σ_t A[t,r]·M[t,r] + |b[r]| of every row r of an affine, [rows], exact: int64, or Python's integers where 64 bits may not do.

    terms: of each, the affine's rows to which it adds, and its A and M there, integers. bias: int64 [rows], |b| < 2^63.
    """
    terms = list(terms)

    def total(dtype) -> np.ndarray:
        worst = np.abs(bias).astype(dtype)
        for rows, a, m in terms:
            worst[rows] += a.astype(dtype) * m.astype(dtype)
        return worst

    return total(np.int64 if (total(np.float64) < 2.0**62).all() else object)


def affine(op, constant: Affine, formats: dict[str, Format], sizes: dict[str, int]) -> np.ndarray:
    """Returns :func:`sums` of a converted affine. op: its :class:`~rindle.program.program.Op`; formats, sizes: of its layer's paths."""
    terms = zip(op.spans(sizes), op.terms, constant.products, strict=True)
    return sums(((rows, accumulators(p.weight, formats[t.code]), p.multiplier) for rows, t, p in terms), constant.bias)


def check_sums(worst: np.ndarray, shift: int, where: str) -> None:
    """Raises RindleError unless (8b) holds in every row. worst: as :func:`sums` gives it."""
    reached = int(worst.max()) + rounding(shift)
    if reached >= LIMIT:
        raise RindleError(
            f"{where}: Σ A·M + |b| + R reaches {reached} (2^{math.log2(reached):.2f}); (8b) allows less than 2^52"
        )


def requantized(x: Format, rescale: Rescale) -> int:
    """Returns the largest magnitude of M·x + R in a requantize, (9)."""
    return largest(x) * rescale.multiplier + rounding(rescale.shift)


def elementwise(kind: str, operands: tuple[Format, ...], result: Format) -> int:
    """Returns (15): the largest magnitude that the formats allow before the final shift, rounding and left shifts included."""
    lefts, s = alignment(kind, tuple(o.frac for o in operands), result.frac)
    top = [largest(o) for o in operands]
    if kind in ("add", "sub"):
        terms = top
    elif kind == "mul":
        terms = [top[0] * top[1]]
    elif kind == "sum_of_products":
        terms = [top[0] * top[1], top[2] * top[3]]
    else:
        one = one_of(operands[0])
        terms = [top[0] * top[1], max(abs(one - operands[0].lo), abs(one - operands[0].hi)) * top[2]]
    v = sum(term << left for term, left in zip(terms, lefts))
    return v + rounding(s) if s >= 1 else v << -s


def check_elementwise(kind: str, operands: tuple[Format, ...], result: Format, where: str) -> None:
    """Raises RindleError unless (15) holds, and unless "one" of a lerp is an integer code."""
    if kind == "lerp" and operands[0].frac < 0:
        raise RindleError(f"{where}: a lerp weight needs fraction bits >= 0, not {operands[0]}: 1 would not be a code")
    worst = elementwise(kind, operands, result)
    if worst >= LIMIT:
        raise RindleError(
            f"{where}: {kind} of {', '.join(map(str, operands))} into {result} can reach 2^{math.log2(worst):.1f}, "
            f"which is not below 2^52; use formats whose fraction bits lie closer together"
        )
