"""The largest value fits; the parameter is a margin on it (1.25: a quarter of headroom)."""

import numpy as np

PARAMETER = (0, 1000)


def step(values, counts, levels, grid=None, parameter=None):
    return cover(values.max(axis=1) * (parameter or 1.0), levels, grid)


def cover(limits, levels, grid):
    """The smallest allowed step with which codes reach each limit; on a grid, to within one code."""
    hi = levels.hi
    if grid is None:
        return limits / hi
    index = np.searchsorted(grid * (hi + 1), limits)
    return np.where(limits > 0, grid[np.minimum(index, len(grid) - 1)], 0.0)
