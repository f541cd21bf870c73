"""Many schemes for one model: its calibration data are looked at once, and every scheme's formats are chosen from what was seen.

Rules with words (``median``, ``gptq``, …) ask the data themselves, and so calibrate anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...errors import RindleError
from ...file.dataset import Dataset
from ...scheme import rezk as presets
from ...scheme.paths import keys_of
from ...scheme.rules import load_overrides, resolve
from ..calibrate.plan import replan
from ..calibrate.wide import STRICT, WIDE
from ..capture.source import load_model
from ..conversion.rounding import words_of
from ..quantize import Calibrated, calibrated


@dataclass(frozen=True)
class Candidates:
    """Models by scheme, of one trained model. first: its calibration. again: (scheme, overrides, parameters) -> Calibrated, for what
    needs the model and the data themselves. Can be pickled where ``again`` can.
    """

    first: Calibrated
    again: Callable[..., Calibrated]
    memo: dict = field(default_factory=dict, repr=False, compare=False)  # weights' formats by their rules

    def __call__(self, scheme, overrides: dict | None = None, parameters: dict[str, np.ndarray] | None = None):
        """The :class:`rindle.Model`. parameters: retrained ones, by their names in the module. RindleError where the scheme does
        not fit, or no integers do.
        """
        overrides = load_overrides(overrides)
        graph = self.first.plan.graph
        rules = resolve(presets.rules(scheme, graph), overrides, keys_of(graph))
        if parameters is not None or any(words_of(rule) - {WIDE, STRICT} for rule in rules.values()):
            return self.again(scheme, overrides, parameters).model()
        provenance = self.first.provenance | {"scheme": scheme, "overrides": overrides}
        return Calibrated(replan(self.first.plan, rules, self.memo), provenance).model()


@dataclass(frozen=True)
class FromFiles:
    """Calibrates anew, from where the model came: for worker processes, into which not every module can be sent."""

    model: str
    weights: Path | None
    calibration: Dataset

    def __call__(self, scheme, overrides=None, parameters=None) -> Calibrated:
        model = load_model(self.model, self.weights)
        if parameters is not None:
            if not isinstance(model, nn.Module):
                raise RindleError(f"{self.model} cannot take other parameters; give package.module:factory")
            load_arrays(model, parameters)
        return calibrated(model, scheme, self.calibration, overrides)


def load_arrays(model: nn.Module, parameters: dict[str, np.ndarray]) -> None:
    """Into ``model``, by name; all of them, and no other."""
    try:
        model.load_state_dict({name: torch.from_numpy(values) for name, values in parameters.items()})
    except RuntimeError as error:
        raise RindleError(f"the retrained parameters do not fit the model: {error}") from None


def candidates_of(model: str, weights: Path | None, calibration: Dataset) -> Candidates:
    """Of ``package.module:factory`` or a ``.pt2`` file, as ``load_model`` takes them."""
    again = FromFiles(model, weights, calibration)
    return Candidates(again("int8"), again)
