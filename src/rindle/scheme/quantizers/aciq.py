"""Analytical clipping: the limit with the least expected squared error under a normal or a Laplace distribution, whichever of
the two serves the values better. Banner et al. 2019 (arXiv 1810.05723), equations (5) to (11), for a symmetric range of
m = bits − 1 magnitude bits, whose 2^m − 1 steps share the range of 2^m: the quantization noise of a limit α is

    α² (1 − 2^−m) / (3 · 4^m)

The limits are where its slope and that of the clipping noise cancel: α/b = W(3 · 4^m / (1 − 2^−m)) for Laplace (Lambert's W),
and the root of 4 (φ(a) − a Q(a)) = 2 a (1 − 2^−m) / (3 · 4^m), a = α/σ, for a normal distribution. For 2 to 8 bits these are the
constants in use (Rezk et al. 2022): α/b = 2.332 … 8.653, α/σ = 1.478 … 3.617. b is the mean of |v| and σ the root of the mean
of v², both about 0.
"""

import math

import numpy as np

from .maximum import cover

PARAMETER = (0, 0)
NEEDS_ZERO = True  # the noise is that of steps from 0 on


def step(values, counts, levels, grid=None, parameter=None):
    mass = np.ones(values.shape[1]) if counts is None else counts
    deviation = np.sqrt((mass * values**2).sum(axis=1) / mass.sum())
    spread = (mass * values).sum(axis=1) / mass.sum()
    top, bits = values.max(axis=1), math.log2(levels.hi + 1)
    steps, errors = [], []
    for limit in (deviation * normal_limit(bits), spread * laplace_limit(bits)):
        one = cover(np.minimum(limit, top), levels, grid)
        safe = np.where(one > 0, one, 1.0)[:, None]
        steps.append(one)
        errors.append((mass * (levels.nearest(values / safe) * safe - values) ** 2).sum(axis=1))
    return np.where(errors[0] <= errors[1], *steps)


def noise_slope(bits: float) -> float:
    """k of the quantization noise's slope 2 k α, of ``bits`` magnitude bits."""
    return (1 - 2.0**-bits) / (3 * 4.0**bits)


def normal_limit(bits: float) -> float:
    """α/σ for ``bits`` magnitude bits."""

    def excess(a):
        density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        tail = math.erfc(a / math.sqrt(2)) / 2
        return 4 * (density - a * tail) - 2 * a * noise_slope(bits)

    return _root(excess, 12.0)


def laplace_limit(bits: float) -> float:
    """α/b for ``bits`` magnitude bits."""
    return _root(lambda x: math.exp(-x) - x * noise_slope(bits), 30.0)


def _root(falling, high: float) -> float:
    """Where a falling function of 0..high is 0, by bisection to the last bit that matters."""
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return low
