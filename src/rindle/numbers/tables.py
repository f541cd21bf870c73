"""Functions of one variable as tables of codes: docs/numerics.md, section 5. Built once, at conversion.

What table a function becomes is a rule, the standard one "linear 128":

    "linear 64"             so many lines, a power of two of 2..256
    "direct 256"            so many constants: a look-up without a multiplication
    "linear 128 range(6)"   f(clip(x, -6, 6)): flat beyond (net-aware saturation: Zmora et al. 2019, Neural Network Distiller). The path
                            that it reads needs no range beyond either, and gains a bit where 8.5 would need 16 and 6 needs 8
    "plan"                  three lines with slopes that are powers of two: Amin, Curtis, Hayes-Gill 1997
    "hard"                  clip(0.2 x + 0.5, 0, 1), Keras; tanh: clip(x, -1, 1)
    "hard(4)", "hard(8)"    clip(x/4 + 0.5, 0, 1), clip(x/8 + 0.5, 0, 1)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..errors import RindleError
from .codes import evaluate_table
from .formats import Format

LARGEST = 256  # segments


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


# form -> function -> its lines for x >= 0: (from which x, slope, intercept). tanh(x) = 2 sigmoid(2 x) - 1.
PIECES: dict[str, dict[str, tuple[tuple[float, float, float], ...]]] = {
    "plan": {
        "sigmoid": ((0, 1 / 4, 1 / 2), (1, 1 / 8, 5 / 8), (2.375, 1 / 32, 27 / 32), (5, 0, 1)),
        "tanh": ((0, 1, 0), (0.5, 1 / 2, 1 / 4), (1.1875, 1 / 8, 11 / 16), (2.5, 0, 1)),
    },
    "hard": {"sigmoid": ((0, 0.2, 0.5), (2.5, 0, 1)), "tanh": ((0, 1, 0), (1, 0, 1))},
    "hard(4)": {"sigmoid": ((0, 1 / 4, 0.5), (2, 0, 1))},
    "hard(8)": {"sigmoid": ((0, 1 / 8, 0.5), (4, 0, 1))},
}


@dataclass(frozen=True)
class TableRule:
    """form: "linear", "direct" or one of PIECES. segments, reach: of the first two; beyond ``reach`` the table is flat."""

    form: str = "linear"
    segments: int | None = 128
    reach: float | None = None

    def __str__(self) -> str:
        count = "" if self.segments is None else f" {self.segments}"
        return self.form + count + ("" if self.reach is None else f" range({self.reach:g})")

    def check(self, function: str, where: str) -> None:
        """RindleError where there is no such form of the function."""
        if self.form in PIECES and function not in PIECES[self.form]:
            raise RindleError(
                f"{where}: {self.form!r} is a form of {' and '.join(PIECES[self.form])}, not of {function}; give another rule for "
                f'it, "linear 128" for example'
            )

    def flat_beyond(self, function: str) -> float:
        """|x| from which on the results stay as they are."""
        if self.form in PIECES:
            return PIECES[self.form][function][-1][0]
        return FUNCTIONS[function].saturates if self.reach is None else self.reach


DEFAULT = TableRule()


def parse_table(text: str, where: str = "a rule") -> TableRule:
    """Raises RindleError for anything that is not a rule of a table."""
    words = " ".join(text.split()) if isinstance(text, str) else ""
    if words in PIECES:
        return TableRule(words, None)
    match = re.fullmatch(r"(linear|direct)(?: (\d+))?(?: range ?\( ?(\d+(?:\.\d+)?) ?\))?", words)
    if not match:
        forms = ", ".join(f'"{form}"' for form in ("linear 64", "direct 256", "linear 128 range(6)", *PIECES))
        raise RindleError(f"{where} is {text!r}; a table is one of {forms}")
    form, segments, reach = match.groups()
    segments = int(segments or {"linear": 128, "direct": 256}[form])
    if segments & (segments - 1) or not 2 <= segments <= LARGEST:
        raise RindleError(f"{where} is {text!r}; the number of segments is a power of two of 2..{LARGEST}")
    if reach is not None and not 2**-8 <= float(reach) <= 2**8:
        raise RindleError(f"{where} is {text!r}; a range is 2^-8 to 2^8")
    return TableRule(form, segments, None if reach is None else float(reach))


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
def build(function: str, x: Format, y: Format, rule: TableRule = DEFAULT) -> Table:
    """The table of a function by a rule, for codes of x and results in y; its error is measured over all of x's codes.

    Of lines and of constants, the most accurate one: the segment width 2^p is searched, as narrow segments follow the curve
    and wide ones reach far enough.
    """
    if function not in FUNCTIONS:
        raise RindleError(f"unknown function {function!r}; there are {', '.join(sorted(FUNCTIONS))}")
    if FUNCTIONS[function].flag == "sigmoid" and not 0 <= y.frac <= 30:
        raise RindleError(f"a table of {function} mirrors at 1, so its result needs 0..30 fraction bits, not {y}")
    rule.check(function, "the table")
    exact, codes = FUNCTIONS[function], np.arange(x.lo, x.hi + 1)
    values = exact.values(codes * x.scale)

    def error(table: Table, wanted: np.ndarray = values) -> float:
        return float(np.abs(evaluate_table(table, codes, y) * y.scale - wanted).max())

    if rule.form in PIECES:
        made = _of_pieces(exact, PIECES[rule.form][function], x, y)
    else:
        wanted, near = exact, values
        if rule.reach is not None:
            wanted = replace(exact, values=lambda v: exact.values(np.clip(v, -rule.reach, rule.reach)))
            near = wanted.values(codes * x.scale)
        fit = _lines if rule.form == "linear" else _constants
        made = min((fit(wanted, x, y, rule.segments, p) for p in range(16)), key=lambda table: error(table, near))
    return replace(made, max_error=error(made))


def _start(function: Function, x: Format, segments: int, p: int) -> int:
    """x0 of (17)."""
    return 0 if function.flag != "none" else max(x.lo, -(segments << p) // 2)


def _inner(knots: np.ndarray, p: int) -> np.ndarray:
    """Codes of each segment, its first and its last among them: [segments, ...]."""
    return knots[:-1, None] + np.unique(np.linspace(0, 2**p - 1, 33).astype(int))[None, :]


def _lines(function: Function, x: Format, y: Format, segments: int, p: int) -> Table:
    """Each line is the minimax fit of its segment, but the first starts exactly at f(0), so that a resting input stays at rest."""
    x0 = _start(function, x, segments, p)
    knots = x0 + (np.arange(segments + 1) << p)
    inner = _inner(knots, p)
    exact = function.values(inner * x.scale) / y.scale
    ends = function.values(knots * x.scale) / y.scale
    slope = np.diff(ends) / 2**p
    off = exact - (ends[:-1, None] + slope[:, None] * (inner - knots[:-1, None]))
    shift = (off.max(1) + off.min(1)) / 2
    if function.flag != "none":
        shift[0] = 0.0
    return _of_lines(function, x0, p, ends[:-1] + shift, slope)


def _of_lines(function: Function, x0: int, p: int, base: np.ndarray, slope: np.ndarray) -> Table:
    """base: in codes of the result; slope: in these per code of x. q is the largest with which slopes fit int16."""
    steepest = np.abs(slope).max()
    q = 0
    while q < 30 and np.floor(steepest * 2 ** (q + 1) + 0.5) <= 32767:
        q += 1
    base = np.clip(np.floor(base + 0.5), -32768, 32767).astype(np.int64)
    slopes = np.clip(np.floor(slope * 2.0**q + 0.5), -32768, 32767).astype(np.int64)
    return Table(function.name, 1, function.flag, x0, p, q, base, slopes, 0.0)


def _constants(function: Function, x: Format, y: Format, segments: int, p: int) -> Table:
    """Each constant lies in the middle of what its segment holds, but that of 0 where f(0) = 0: what rests stays at rest."""
    x0 = _start(function, x, segments, p)
    exact = function.values(_inner(x0 + (np.arange(segments + 1) << p), p) * x.scale) / y.scale
    middle = (exact.max(1) + exact.min(1)) / 2
    if function.flag == "odd":
        middle[0] = 0.0
    return _direct(function, x0, p, middle, y)


def _direct(function: Function, x0: int, p: int, values: np.ndarray, y: Format) -> Table:
    base = np.clip(np.floor(values + 0.5), y.lo, y.hi).astype(np.int64)
    return Table(function.name, 0, function.flag, x0, p, 0, base, None, 0.0)


def _of_pieces(function: Function, pieces: tuple, x: Format, y: Format) -> Table:
    """Given lines. They begin at multiples of a segment's width, so that nothing but the rounding to codes is lost."""
    starts, slopes, intercepts = np.array(pieces).T
    width = 0  # its exponent: the largest power of two that divides all starts
    while np.any(starts / 2.0**width != np.floor(starts / 2.0**width)):
        width -= 1
    while np.all(starts / 2.0 ** (width + 1) == np.floor(starts / 2.0 ** (width + 1))):
        width += 1
    p = min(max(x.frac + width, 0), 15)
    end = min(starts[-1] / x.scale, 2**15)  # in codes; beyond is the last piece
    segments = 1 << math.ceil(math.log2(math.ceil(end / 2**p) + 1))  # at most 64
    knots = (np.arange(segments) << p) * x.scale
    piece = np.searchsorted(starts, knots, side="right") - 1
    base = (slopes[piece] * knots + intercepts[piece]) / y.scale
    if p == 0:  # a segment is one code: nothing lies between
        return _direct(function, 0, 0, base, y)
    return _of_lines(function, 0, p, base, slopes[piece] * x.scale / y.scale)
