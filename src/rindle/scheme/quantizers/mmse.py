"""The step with the least mean squared error, clipping included: minimum mean squared error (Sung et al. 2015;
Rezk et al. 2022 choose their clipping thresholds so).
"""

import numpy as np

PARAMETER = (0, 0)
CANDIDATES = np.linspace(0.1, 1.0, 91)


def step(values, counts, hi, grid=None, parameter=None):
    top = values.max(axis=1)
    mass = 1.0 if counts is None else counts
    best, least = np.zeros_like(top), np.full_like(top, np.inf)
    for candidate in candidates(top, hi, grid):
        safe = np.where(candidate > 0, candidate, 1.0)[:, None]
        error = (mass * (np.minimum(np.floor(values / safe + 0.5), hi) * safe - values) ** 2).sum(axis=1)
        better = (error < least) & (top > 0)
        best[better], least[better] = candidate[better], error[better]
    return best


def candidates(top, hi, grid):
    if grid is None:
        return [share * top / hi for share in CANDIDATES]
    useful = grid[(grid >= top.min() / hi / 64) & (grid <= 2 * max(top.max(), np.finfo(float).tiny) / hi)]
    return [np.full_like(top, one) for one in (useful if len(useful) else grid[:1])]
