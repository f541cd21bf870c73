"""Retraining by a function that the user names: what a beacon-based search calls (``search.beacons``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...errors import RindleError
from ...search.precision import overrides_of
from ..capture.source import named


@dataclass(frozen=True)
class Retrain:
    """name: ``package.module:function``, of overrides (path -> rule) to parameters by name, tensors or arrays."""

    name: str

    def __call__(self, candidate: dict) -> dict[str, np.ndarray]:
        found = named(self.name, "the function that retrains")(overrides_of(candidate))
        if not isinstance(found, dict) or not found:
            raise RindleError(f"{self.name} returns a {type(found).__name__}; it must return parameters by name")
        return {
            name: values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
            for name, values in found.items()
        }
