"""The simulation: the converted program on codes in float64 tensors. Exact; the reference's twin on torch."""

from __future__ import annotations

import numpy as np

from ..reference import Result
from ..reference import run as run_reference
from .numerics import DoubleCodes


def run(artifact, x: np.ndarray, lengths: np.ndarray | None = None, states=None) -> Result:
    """As :func:`rindle.reference.run`, computed by torch in float64."""
    return run_reference(artifact, x, lengths, xp=DoubleCodes, states=states)
