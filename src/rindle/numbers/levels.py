"""What a stored code of a weight is worth: docs/numerics.md, section 1. Level sets other than the integers are rows of ``LEVELS``.

Every set is an arithmetic progression of integers in the unsigned stored code q of b bits,

    level = alpha * q + beta,   lowest <= q < 2^b                                                       (2a)

so a product of levels is the product of the stored codes, and beta times the sum of what they meet: Σ level·x = alpha·Σ q·x + beta·Σ x.
A weight is its level times a scale, as an integer code is its code times a scale: a level set is for weights alone, everything
else has integers. The twin of this table is kLevels in core/kernels/levels.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Levels:
    """alpha, beta, lowest: of (2a). flip: what the file's code is q XOR of: the top bit where it stores two's complement."""

    name: str
    bits: int
    alpha: int
    beta: int
    lowest: int = 0
    flip: int = 0

    @property
    def lo(self) -> int:
        """The lowest level."""
        return self.alpha * self.lowest + self.beta

    @property
    def hi(self) -> int:
        """The highest level, and the largest magnitude: no set reaches further below 0 than above it."""
        return self.alpha * (2**self.bits - 1) + self.beta

    @property
    def magnitudes(self) -> np.ndarray:
        """|level|, each once, rising: int64."""
        return np.unique(np.abs(np.arange(self.lo, self.hi + 1, self.alpha)))

    @property
    def has_zero(self) -> bool:
        """Whether 0 is a level: if not, a row of zeros has the multiplier 0."""
        return self.beta % self.alpha == 0

    def nearest(self, v: np.ndarray) -> np.ndarray:
        """The nearest level of each real number, the upper of two, float64: (3) with v/scale for v."""
        return nearest(v, self.lo, self.hi, self.alpha)

    def stored(self, levels: np.ndarray) -> np.ndarray:
        """The code that the file stores for each level, unsigned."""
        return (np.asarray(levels, np.int64) - self.beta) // self.alpha ^ self.flip

    def values(self, stored: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`stored`; a code below ``lowest`` gives less than ``lo``."""
        return self.alpha * (np.asarray(stored, np.int64) ^ self.flip) + self.beta


# A set is a line here and one in its twin.
LEVELS = {one.name: one for one in (Levels("binary", 1, 2, -1), Levels("uniform2", 2, 2, -3))}


@lru_cache
def integers(bits: int) -> Levels:
    """The symmetric integers of 2..16 bits, stored as two's complement. Those of 2 bits are the ternary weights."""
    return Levels(f"int{bits}", bits, 1, -(2 ** (bits - 1)), 1, 2 ** (bits - 1))


def nearest(v, lo, hi, spacing=1):
    """The nearest of lo, lo + spacing, …, hi, the upper of two, float64. All are numbers, or arrays that broadcast."""
    v = np.asarray(v, np.float64)
    if np.ndim(spacing) == 0 and spacing == 1:
        return np.clip(np.floor(v + 0.5), lo, hi)
    offset = np.mod(lo, spacing)
    return np.clip(spacing * np.floor((v - offset) / spacing + 0.5) + offset, lo, hi)
