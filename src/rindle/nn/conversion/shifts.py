"""M, b and s of an affine from real ratios, docs/numerics.md (8a), (8b): one rule a function.

Everywhere: ratios: m, float64 [terms, rows]; reaches: A, [terms, rows]; bias: in output codes, float64 [rows]; multipliers: M, int64
[terms, rows].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...errors import RindleError
from ...numbers import bounds
from ...numbers.bounds import LIMIT, MAX_MULTIPLIER, MAX_SHIFT

FINE, ROUGH = 2**11, 2**7  # an inexact M of the leading term, and of any term, is at least so large


class Integers(NamedTuple):
    """multipliers: int64 [terms, rows]; bias: int64 [rows]; shift: s, 0..40, of all rows."""

    multipliers: np.ndarray
    bias: np.ndarray
    shift: int


def choose_shift(ratios: np.ndarray, reaches: np.ndarray, bias: np.ndarray, where: str) -> Integers:
    """M, b and s by (8a). Raises RindleError where none fit, with the numbers, and where M is too coarse."""
    found = fitting(ratios, reaches, bias, where)
    if reason := too_coarse(ratios, reaches, found, where):
        raise RindleError(reason)
    return stripped(found)


def fitting(ratios: np.ndarray, reaches: np.ndarray, bias: np.ndarray, where: str) -> Integers:
    """M, b and s for which (8b) holds, however coarse; factors of two not stripped. Raises RindleError where none fit."""
    if not np.all(np.isfinite(ratios)) or not np.all(np.isfinite(bias)):
        raise RindleError(f"{where}: a scale ratio or a bias is not finite")
    rule = smallest_exact if are_powers_of_two(ratios) else largest
    return rule(ratios, reaches, bias, where)


def are_powers_of_two(ratios: np.ndarray) -> bool:
    """Whether every ratio that is not 0 is one, and some is: the affine is shifts only."""
    nonzero = ratios[ratios > 0]
    return len(nonzero) > 0 and bool(np.all(np.frexp(nonzero)[0] == 0.5))


def smallest_exact(ratios: np.ndarray, reaches: np.ndarray, bias: np.ndarray, where: str) -> Integers:
    """Of powers of two: the smallest s that makes all M integers."""
    exponents = np.frexp(ratios[ratios > 0])[1] - 1
    shift = max(0, -int(exponents.min()))
    if shift <= MAX_SHIFT and _fits(found := _integers(ratios, bias, shift), reaches):
        return found
    raise RindleError(
        f"{where}: powers of two from 2^{int(exponents.min())} to 2^{int(exponents.max())} with sums up to "
        f"{reaches.max():.0f} do not fit a common shift of at most {MAX_SHIFT}; give the result fewer fraction bits"
    )


def largest(ratios: np.ndarray, reaches: np.ndarray, bias: np.ndarray, where: str) -> Integers:
    """The largest s for which (8b) and M < 2²² hold in every row."""
    for shift in range(MAX_SHIFT, -1, -1):
        found = _integers(ratios, bias, shift)
        if _fits(found, reaches):
            return found
    raise RindleError(
        f"{where}: no shift fits: the ratios reach {ratios.max():.4g}, the sums {reaches.max():.4g} and the bias "
        f"{np.abs(bias).max():.4g} output codes; give the result fewer fraction bits"
    )


def too_coarse(ratios: np.ndarray, reaches: np.ndarray, found: Integers, where: str) -> str | None:
    """Why some M cannot carry its ratio; None where all can. The leading term of a row has the largest A·M; no other may vanish, either."""
    multipliers, scale = found.multipliers, 2.0**found.shift
    exact = ratios * scale
    inexact = (ratios > 0) & (np.abs(multipliers - exact) > exact * 2.0**-22)  # steps are float32
    error = 0.5 * np.where(inexact, reaches, 0.0).sum(0) / scale
    leads = np.arange(len(ratios))[:, None] == np.argmax(reaches * multipliers, axis=0)
    coarse = leads & (multipliers < FINE) & (error > 1.0)
    coarse |= (multipliers < ROUGH) & (0.5 * reaches / scale > 1.0)
    coarse &= inexact
    if not coarse.any():
        return None
    row = int(np.argmax(coarse.any(0)))
    term = int(np.argmax(coarse[:, row]))
    return (
        f"{where}: in row {row} the multiplier {multipliers[term, row]} is too coarse for the ratio "
        f"{ratios[term, row]:.6g}: up to {error[row]:.1f} output codes of error at shift {found.shift}; give the result fewer "
        f"fraction bits, or the terms scales that lie closer together"
    )


def stripped(found: Integers) -> Integers:
    """The same without the factors of two that all M and b of the affine have in common."""
    multipliers, bias, shift = found
    while shift > 0 and not (multipliers & 1).any() and not (bias & 1).any():
        multipliers, bias, shift = multipliers >> 1, bias >> 1, shift - 1
    return Integers(multipliers, bias, shift)


def _integers(ratios: np.ndarray, bias: np.ndarray, shift: int) -> Integers:
    """(8a) at one shift; what is far beyond (8b) stays within int64."""
    wide = np.clip(np.floor(bias * 2.0**shift + 0.5), -(2.0**60), 2.0**60)
    multipliers = np.clip(np.floor(ratios * 2.0**shift + 0.5), 0, 2.0**40)
    return Integers(multipliers.astype(np.int64), wide.astype(np.int64), shift)


def _fits(found: Integers, reaches: np.ndarray) -> bool:
    if (found.multipliers >= MAX_MULTIPLIER).any():
        return False
    terms = ((slice(None), a.astype(np.int64), m) for a, m in zip(reaches, found.multipliers))
    return int(bounds.sums(terms, found.bias).max()) + bounds.rounding(found.shift) < LIMIT
