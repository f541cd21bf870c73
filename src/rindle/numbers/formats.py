"""What a number is: formats, values <-> codes, packing. docs/numerics.md, section 1."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import RindleError

FRAC_LIMIT = 64
MIN_STEP = 2.0**-FRAC_LIMIT


@dataclass(frozen=True)
class Format:
    """How codes stand for values: ``value = code * scale``, numerics (1) and (2).

    bits: 2..16. Exactly one of frac (``fixed``: the scale is ``2**-frac``) and step (``int``: any positive float32).
    signed: False only for a code path of at most 7 bits. product: the path enters a product (a code path or a
    weight), so its range is symmetric; 16-bit element-wise paths use the whole two's complement range.
    """

    bits: int
    frac: int | None = None
    step: float | None = None
    signed: bool = True
    product: bool = False

    def __post_init__(self):
        if not 2 <= self.bits <= 16:
            raise RindleError(f"a format has 2..16 bits, not {self.bits}")
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
    def lo(self) -> int:
        if not self.signed:
            return 0
        return -self.hi - (1 if self.bits == 16 and not self.product else 0)

    @property
    def hi(self) -> int:
        return 2 ** (self.bits - (1 if self.signed else 0)) - 1

    def as_product(self) -> Format:
        """The same codes with a product's symmetric range."""
        return replace(self, product=True)

    def __str__(self) -> str:
        sign = "" if self.signed else "u"
        return f"{sign}fixed({self.bits},{self.frac})" if self.is_fixed else f"{sign}int({self.bits}, {self.step:.6g})"


def fixed(bits: int, frac: int, product: bool = False) -> Format:
    """Qm.n with ``bits`` in all, ``frac`` of them after the point."""
    return Format(bits, frac=frac, product=product)


def integer(bits: int, step: float, signed: bool = True) -> Format:
    """A code path (or weight) of any scale from 2^-64 to 2^64."""
    return Format(bits, step=float(np.float32(step)), signed=signed, product=True)


def encode(values, scale, lo: int, hi: int) -> np.ndarray:
    """Real values -> int64 codes at conversion, (3). scale: a number, or one per row of a matrix (as a column)."""
    return np.clip(np.floor(np.asarray(values, np.float64) / scale + 0.5), lo, hi).astype(np.int64)


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
    """int [rows, columns] -> uint8 [rows, ceil(columns*bits/8)], little-endian bit order, rows padded to bytes."""
    codes = np.ascontiguousarray(codes)
    if bits in (8, 16):
        return codes.astype(f"<i{bits // 8}").view(np.uint8)
    planes = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(planes.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")


def unpack(packed: np.ndarray, bits: int, columns: int) -> np.ndarray:
    """The inverse of :func:`pack`: int8 or int16 [rows, columns]. Raises if a row's unused bits are not zero."""
    rows = len(packed)
    if bits in (8, 16):
        return np.ascontiguousarray(packed).view(f"<i{bits // 8}")
    planes = np.unpackbits(packed, axis=1, bitorder="little")
    if planes[:, columns * bits :].any():
        raise RindleError("the unused bits at the end of a packed row are not zero")
    planes = planes[:, : columns * bits].reshape(rows, columns, bits).astype(np.int64)
    weights = 1 << np.arange(bits, dtype=np.int64)
    weights[-1] = -weights[-1]
    return (planes @ weights).astype(np.int8 if bits < 8 else np.int16)
