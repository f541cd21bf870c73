"""The given percentile of |v| fits, the rest saturates. The parameter is the percentile, 99.9 by default."""

import numpy as np

from .maximum import cover

PARAMETER = (0, 100)


def step(values, counts, levels, grid=None, parameter=None):
    share = (99.9 if parameter is None else parameter) / 100
    order = np.argsort(values, axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    mass = np.ones_like(values) if counts is None else np.broadcast_to(counts, values.shape)
    reached = np.cumsum(np.take_along_axis(mass, order, axis=1), axis=1)
    index = (reached < share * reached[:, -1:]).sum(axis=1)
    limits = ranked[np.arange(len(ranked)), np.minimum(index, values.shape[1] - 1)]
    # a percentile of 0 is not a scale when something is not 0
    return cover(np.where(limits > 0, limits, values.max(axis=1)), levels, grid)
