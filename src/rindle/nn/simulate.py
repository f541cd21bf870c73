"""The simulation: the converted program on codes in float64 tensors. Exact; the reference's twin on torch."""

from __future__ import annotations

import numpy as np

from ..engines.reference import Result
from ..engines.reference import run as run_reference
from .numerics import DoubleCodes


def run(artifact, x: np.ndarray, lengths: np.ndarray | None = None, states=None) -> Result:
    """As :func:`rindle.engines.reference.run`, computed by torch in float64."""
    return run_reference(artifact, x, lengths, xp=DoubleCodes, states=states)
