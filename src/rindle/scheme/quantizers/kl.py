"""The limit that changes the distribution least: minimum Kullback-Leibler divergence between the values and their codes, as
in TensorRT (Migacz, "8-bit inference with TensorRT", GTC 2017).

A histogram of |v| is cut behind bin i. P is what is left, with all that was cut put into its last bin; Q is what was left
without that, merged into one level per code and spread again evenly over the bins that were not empty. The cut with the
least Σ P log(P/Q) is the limit. TensorRT tries every i from the number of levels on; here it is CUTS of them.
"""

import numpy as np

from .maximum import cover

PARAMETER = (0, 0)
NEEDS_ZERO = True  # what a cut leaves is merged into one bin per code, from 0 on
BINS, CUTS = 2048, 128


def step(values, counts, levels, grid=None, parameter=None):
    top = values.max(axis=1)
    codes = levels.hi + 1
    if codes >= BINS:  # as many codes as bins: nothing is gained by a cut
        return cover(top, levels, grid)
    histogram = _histogram(values, counts, top)
    cuts = np.unique(np.linspace(codes, BINS, CUTS).astype(int))
    divergences = np.array([divergence(histogram, cut, codes) for cut in cuts])
    return cover(cuts[divergences.argmin(axis=0)] / BINS * top, levels, grid)


def divergence(histogram: np.ndarray, cut: int, levels: int) -> np.ndarray:
    """KL(P || Q) [R], in nats, of histograms [R, BINS] that are cut behind bin ``cut``; infinite where Q has nothing for P.

    With p = P's counts and q = Q's before both are normed to 1: Σ p log(p/q) / Σp + log(Σq/Σp).
    """
    kept = histogram[:, :cut]
    edges = np.arange(levels) * cut // levels
    mass = np.add.reduceat(kept, edges, axis=1)
    filled = np.add.reduceat(kept > 0, edges, axis=1, dtype=np.float64)
    outside = histogram[:, cut:].sum(axis=1)
    inside = kept.sum(axis=1)
    p = kept[:, -1] + outside  # of the last bin
    q = np.where(kept[:, -1] > 0, mass[:, -1] / np.maximum(filled[:, -1], 1), 0.0)
    total = (
        _x_log_x(kept[:, :-1]).sum(axis=1)
        + _x_log_x(p)
        - (_x_log_x(mass) - mass * np.log(np.maximum(filled, 1))).sum(axis=1)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        missing = np.where(outside > 0, outside * np.log(q), 0.0)
        found = (total - missing) / (inside + outside) + np.log(inside / (inside + outside))
    return np.where(inside > 0, found, np.inf)


def _histogram(values, counts, top) -> np.ndarray:
    """float64 [R, BINS] over 0..top of each row."""
    rows = np.arange(len(values))[:, None]
    index = np.minimum(values / np.where(top > 0, top, 1.0)[:, None] * BINS, BINS - 1).astype(np.int64)
    weights = None if counts is None else np.broadcast_to(counts, values.shape).ravel()
    flat = np.bincount((rows * BINS + index).ravel(), weights, len(values) * BINS)
    return flat.reshape(len(values), BINS).astype(np.float64)


def _x_log_x(x):
    return x * np.log(np.where(x > 0, x, 1.0))
