"""Functions of one variable as tables of codes: docs/numerics.md, section 5. Built once, at conversion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .codes import evaluate_table
from .formats import Format, RindleError

SEGMENTS = 128


@dataclass(frozen=True)
class Function:
    """flag: the symmetry that halves the table, part of the meaning: "none", "odd" or "sigmoid" (f(−x) = 1 − f(x))."""

    name: str
    values: callable  # float64 array -> float64 array
    flag: str
    bound: float  # |f| never exceeds it
    saturates: float  # beyond this |x| the function is flat to within 2^-12


GELU_TANH = math.sqrt(2 / math.pi)


def _normal_cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


FUNCTIONS = {
    f.name: f
    for f in (
        Function("sigmoid", lambda x: 1 / (1 + np.exp(-np.clip(x, -700, 700))), "sigmoid", 1.0, 8.5),
        Function("tanh", np.tanh, "odd", 1.0, 4.9),
        Function("normal_cdf", np.vectorize(_normal_cdf, otypes=[float]), "sigmoid", 1.0, 3.6),  # of GELU
        Function(
            "normal_cdf_tanh", lambda x: (1 + np.tanh(GELU_TANH * (x + 0.044715 * x**3))) / 2, "sigmoid", 1.0, 3.6
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Table:
    """base, slope: int64 arrays [n] of int16 values (slope only with degree 1). max_error: in value units."""

    function: str
    degree: int
    flag: str
    x0: int
    p: int
    q: int
    base: np.ndarray
    slope: np.ndarray | None
    max_error: float

    @property
    def top(self) -> int:
        """The largest u of (17)."""
        return (len(self.base) << self.p) - 1


@lru_cache(maxsize=256)
def build(function: str, x: Format, y: Format, segments: int = SEGMENTS) -> Table:
    """The most accurate table of degree 1 for codes of x and results in y, over all of x's codes.

    The segment width 2^p is searched: narrow segments follow the curve, wide ones reach far enough. Each line
    is the minimax fit of its segment, but the first starts exactly at f(0), so that a resting input stays at rest.
    """
    if function not in FUNCTIONS:
        raise RindleError(f"unknown function {function!r}; there are {', '.join(sorted(FUNCTIONS))}")
    if FUNCTIONS[function].flag == "sigmoid" and not 0 <= y.frac <= 30:
        raise RindleError(f"a table of {function} mirrors at 1, so its result needs 0..30 fraction bits, not {y}")
    return min((_fit(FUNCTIONS[function], x, y, segments, p) for p in range(16)), key=lambda table: table.max_error)


def _fit(function: Function, x: Format, y: Format, segments: int, p: int) -> Table:
    mirrored = function.flag != "none"
    x0 = 0 if mirrored else max(x.lo, -(segments << p) // 2)
    knots = x0 + (np.arange(segments + 1) << p)
    inner = knots[:-1, None] + np.unique(np.linspace(0, 2**p - 1, 33).astype(int))[None, :]  # codes that exist
    exact = function.values(inner * x.scale) / y.scale
    ends = function.values(knots * x.scale) / y.scale
    slope = np.diff(ends) / 2**p
    off = exact - (ends[:-1, None] + slope[:, None] * (inner - knots[:-1, None]))
    shift = (off.max(1) + off.min(1)) / 2
    if mirrored:
        shift[0] = 0.0
    steepest = np.abs(slope).max()
    q = 0
    while q < 30 and np.floor(steepest * 2 ** (q + 1) + 0.5) <= 32767:
        q += 1
    base = np.clip(np.floor(ends[:-1] + shift + 0.5), -32768, 32767).astype(np.int64)
    slopes = np.clip(np.floor(slope * 2.0**q + 0.5), -32768, 32767).astype(np.int64)
    table = Table(function.name, 1, function.flag, x0, p, q, base, slopes, 0.0)
    codes = np.arange(x.lo, x.hi + 1)
    error = np.abs(evaluate_table(table, codes, y) * y.scale - function.values(codes * x.scale)).max()
    return Table(function.name, 1, function.flag, x0, p, q, base, slopes, float(error))
