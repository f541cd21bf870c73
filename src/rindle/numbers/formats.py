"""What a number is: formats, values <-> codes, packing. docs/numerics.md, section 1."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import RindleError
from .levels import LEVELS, Levels, integers, nearest

FRAC_LIMIT = 64
MIN_STEP = 2.0**-FRAC_LIMIT
WIDTHS = range(2, 17)  # bits of a code, but of a weight's level set


@dataclass(frozen=True)
class Format:
    """How codes stand for values: ``value = code * scale``, numerics (1) and (2).

    bits: 2..16, or those of the level set. Exactly one of frac (``fixed``: the scale is ``2**-frac``) and step (``int``: any positive float32).
    signed: False only for a code path of at most 7 bits. product: the path enters a product (a code path or a
    weight), so its range is symmetric; 16-bit element-wise paths use the whole two's complement range.
    levels: a name of ``LEVELS``, of a weight that is no integer; its codes are then the levels. It has a scale, no frac.
    """

    bits: int
    frac: int | None = None
    step: float | None = None
    signed: bool = True
    product: bool = False
    levels: str | None = None

    def __post_init__(self):
        if self.levels is None:
            check_bits(self.bits, "a format")
        elif self.levels not in LEVELS or self.bits != LEVELS[self.levels].bits:
            raise RindleError(
                f"there is no level set {self.levels!r} of {self.bits} bits; there are {', '.join(LEVELS)}"
            )
        elif self.step is None or not self.product or not self.signed:
            raise RindleError(f"{self.levels} is a format of weights alone, and it has a scale")
        if (self.frac is None) == (self.step is None):
            raise RindleError("a format has either a number of fraction bits or a step, and not both")
        if self.frac is not None and not -FRAC_LIMIT <= self.frac <= FRAC_LIMIT:
            raise RindleError(f"a fixed format has -{FRAC_LIMIT}..{FRAC_LIMIT} fraction bits, not {self.frac}")
        if self.step is not None and not (
            MIN_STEP <= self.step <= 1 / MIN_STEP and float(np.float32(self.step)) == self.step
        ):
            raise RindleError(f"the scale of an int format is a float32 between 2^-64 and 2^64, not {self.step!r}")
        if not self.signed and (self.bits > 7 or not self.product):
            raise RindleError(f"unsigned codes have at most 7 bits and stand only in products, not {self.bits} bits")
        if self.bits < 16 or self.step is not None:  # the range is symmetric anyway: one meaning, one Format
            object.__setattr__(self, "product", True)

    @property
    def scale(self) -> float:
        return 2.0**-self.frac if self.step is None else self.step

    @property
    def is_fixed(self) -> bool:
        return self.frac is not None

    @property
    def level_set(self) -> Levels:
        """What the codes of a weight of this format are worth."""
        return integers(self.bits) if self.levels is None else LEVELS[self.levels]

    @property
    def spacing(self) -> int:
        """From one code to the next: above 1 in level sets alone."""
        return self.level_set.alpha

    @property
    def lo(self) -> int:
        if self.levels is not None:
            return self.level_set.lo
        if not self.signed:
            return 0
        return -self.hi - (1 if self.bits == 16 and not self.product else 0)

    @property
    def hi(self) -> int:
        if self.levels is not None:
            return self.level_set.hi
        return 2 ** (self.bits - (1 if self.signed else 0)) - 1

    def as_product(self) -> Format:
        """The same codes with a product's symmetric range."""
        return replace(self, product=True)

    def __str__(self) -> str:
        if self.levels is not None:
            return f"{self.levels}({self.step:.6g})"
        sign = "" if self.signed else "u"
        return f"{sign}fixed({self.bits},{self.frac})" if self.is_fixed else f"{sign}int({self.bits}, {self.step:.6g})"


def fixed(bits: int, frac: int, product: bool = False) -> Format:
    """Qm.n with ``bits`` in all, ``frac`` of them after the point."""
    return Format(bits, frac=frac, product=product)


def integer(bits: int, step: float, signed: bool = True) -> Format:
    """A code path (or weight) of any scale from 2^-64 to 2^64."""
    return Format(bits, step=float(np.float32(step)), signed=signed, product=True)


def weight_format(bits: int, levels: str | None = None, step: float = 1.0) -> Format:
    """Of a weight matrix of any scale; with a scale per row, that of the format says nothing, and is 1."""
    return Format(bits, step=float(np.float32(step)), product=True, levels=levels)


def check_bits(bits: int, where: str) -> None:
    """Raises RindleError for a width that no code of integers has. (Of level sets, see ``LEVELS``.)"""
    if bits not in WIDTHS:
        raise RindleError(f"{where} has {WIDTHS[0]}..{WIDTHS[-1]} bits, not {bits}")


def encode(values, scale, lo, hi, spacing=1) -> np.ndarray:
    """Real values -> int64 codes at conversion, (3), of lo, lo + spacing, …, hi. scale: a number, or one per row of a matrix (as a
    column).
    """
    return nearest(np.asarray(values, np.float64) / scale, lo, hi, spacing).astype(np.int64)


def encode_counted(values, fmt: Format) -> tuple[np.ndarray, int]:
    """Real values -> int64 codes, (3), and how many of them saturated."""
    code = np.floor(np.asarray(values, np.float64) / fmt.scale + 0.5)
    outside = np.count_nonzero((code < fmt.lo) | (code > fmt.hi))
    return np.clip(code, fmt.lo, fmt.hi).astype(np.int64), int(outside)


def encode_input(x: np.ndarray, fmt: Format) -> tuple[np.ndarray, int]:
    """The input rule (4): float32 values -> int64 codes, and how many of them saturated."""
    r = np.float32(1.0 / fmt.scale)
    code = np.floor(x.astype(np.float64) * np.float64(r) + 0.5)
    outside = np.count_nonzero((code < fmt.lo) | (code > fmt.hi))
    return np.clip(code, fmt.lo, fmt.hi).astype(np.int64), int(outside)


def decode(codes: np.ndarray, fmt: Format) -> np.ndarray:
    """Codes -> float32 values: ``(float)((double)code * (double)scale)``."""
    return (codes.astype(np.float64) * np.float64(np.float32(fmt.scale))).astype(np.float32)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """int [rows, columns] -> uint8 [rows, ceil(columns*bits/8)], little-endian bit order, rows padded to bytes. Of each code its lowest
    bits count, so that signed ones are stored as two's complement.
    """
    codes = np.ascontiguousarray(codes)
    if bits in (8, 16):
        return codes.astype(f"<i{bits // 8}").view(np.uint8)
    planes = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(planes.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")


def unpack(packed: np.ndarray, bits: int, columns: int) -> np.ndarray:
    """The inverse of :func:`pack` for signed codes: int8 or int16 [rows, columns]. Raises if a row's unused bits are not zero."""
    if bits in (8, 16):
        return np.ascontiguousarray(packed).view(f"<i{bits // 8}")
    codes = unpack_unsigned(packed, bits, columns)
    return (codes - ((codes >> (bits - 1)) << bits)).astype(np.int8 if bits < 8 else np.int16)


def unpack_unsigned(packed: np.ndarray, bits: int, columns: int) -> np.ndarray:
    """The same for unsigned codes: int64 [rows, columns]."""
    rows = len(packed)
    planes = np.unpackbits(packed, axis=1, bitorder="little")
    if planes[:, columns * bits :].any():
        raise RindleError("the unused bits at the end of a packed row are not zero")
    planes = planes[:, : columns * bits].reshape(rows, columns, bits).astype(np.int64)
    return planes @ (1 << np.arange(bits, dtype=np.int64))


def pack_weight(levels: np.ndarray, fmt: Format) -> np.ndarray:
    """Levels of a weight [rows, columns] -> as the file holds them, uint8."""
    return pack(fmt.level_set.stored(levels), fmt.bits) if fmt.levels else pack(levels, fmt.bits)


def unpack_weight(packed: np.ndarray, fmt: Format, columns: int) -> np.ndarray:
    """The inverse of :func:`pack_weight`."""
    if fmt.levels:
        return fmt.level_set.values(unpack_unsigned(packed, fmt.bits, columns)).astype(np.int8)
    return unpack(packed, fmt.bits, columns)
