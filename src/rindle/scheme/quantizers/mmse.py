"""The step with the least mean squared error, clipping included: minimum mean squared error (Sung et al. 2015;
Rezk et al. 2022 choose their clipping thresholds so).

Of level sets without a 0, exactly: Σ(v − s·l)² over given levels l is least at s = Σ v·l / Σ l², where it is Σ v² − (Σ v·l)² / Σ l². As s
falls from infinity, each |v| goes from the lowest magnitude of the set to its highest, one after the other where |v|/s passes the
middle of two. The best s is that of one of these assignments, and so all are tried. (Binary: the mean of |v|, Rastegari et al. 2016.)
"""

import numpy as np

PARAMETER = (0, 0)
CANDIDATES = np.linspace(0.1, 1.0, 91)


def step(values, counts, levels, grid=None, parameter=None):
    if not levels.has_zero and grid is None:
        return exact(values, 1.0 if counts is None else counts, levels.magnitudes)
    top = values.max(axis=1)
    mass = 1.0 if counts is None else counts
    best, least = np.zeros_like(top), np.full_like(top, np.inf)
    for candidate in candidates(top, levels.hi, grid):
        safe = np.where(candidate > 0, candidate, 1.0)[:, None]
        error = (mass * (levels.nearest(values / safe) * safe - values) ** 2).sum(axis=1)
        better = (error < least) & (top > 0)
        best[better], least[better] = candidate[better], error[better]
    return best


def candidates(top, hi, grid):
    if grid is None:
        return [share * top / hi for share in CANDIDATES]
    useful = grid[(grid >= top.min() / hi / 64) & (grid <= 2 * max(top.max(), np.finfo(float).tiny) / hi)]
    return [np.full_like(top, one) for one in (useful if len(useful) else grid[:1])]


def exact(values, mass, magnitudes):
    """The best step of each row of |v| [R, N] for levels of these magnitudes, above 0 and rising; 0 for a row of zeros."""
    low, high, weight = magnitudes[:-1], magnitudes[1:], np.broadcast_to(mass, values.shape)
    passed = (values[:, :, None] / ((low + high) / 2)).reshape(
        len(values), -1
    )  # the step at which |v| passes the middle of two
    order = np.argsort(-passed, axis=1, kind="stable")

    def running(start, steps):
        """[R, assignments]: a sum over the columns, as |v| after |v| moves up."""
        moved = np.take_along_axis((weight[:, :, None] * steps).reshape(passed.shape), order, axis=1)
        return np.cumsum(np.concatenate([start[:, None], moved], axis=1), axis=1)

    products = running((weight * values).sum(1) * magnitudes[0], values[:, :, None] * (high - low))
    squares = running(weight.sum(1) * magnitudes[0] ** 2, np.ones_like(values)[:, :, None] * (high**2 - low**2))
    best = np.argmax(products**2 / squares, axis=1)[:, None]
    return (np.take_along_axis(products, best, 1) / np.take_along_axis(squares, best, 1))[:, 0]
