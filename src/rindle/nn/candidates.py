"""Many schemes for one model: its calibration data are looked at once, and every scheme's formats are chosen from what was seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..dataset import Dataset
from ..formats import RindleError
from ..scheme import load_overrides, resolve
from .calibrate import Plan, choose_formats, choose_origins, keys_of
from .quantize import Calibrated, calibrated
from .source import load_model


def rule_words(rule) -> frozenset[str]:
    return getattr(rule, "modifiers", frozenset())


def replan(plan: Plan, scheme, overrides=None) -> Plan:
    """A plan by another scheme, from what ``plan`` has seen. Equal to calibrating anew, in a fraction of the time.

    Raises RindleError for rules that want more of the data than their histograms: those with words.
    """
    rules = resolve(scheme, overrides, keys_of(plan.graph))
    words = sorted({word for rule in rules.values() for word in rule_words(rule)})
    if words:
        raise RindleError(f"rules with {', '.join(words)} want the data themselves; calibrate anew")
    made = replace(plan, input_format=None, layers={}, rules=rules, origins={})
    choose_formats(made, plan.histograms)
    choose_origins(made, plan.histograms)
    return made


@dataclass(frozen=True)
class Candidates:
    """Models by scheme, of one trained model. first: its calibration. again: (scheme, overrides, parameters) -> Calibrated, for what
    needs the model and the data themselves. Can be pickled where ``again`` can.
    """

    first: Calibrated
    again: Callable[..., Calibrated]

    def __call__(self, scheme, overrides: dict | None = None, parameters: dict[str, np.ndarray] | None = None):
        """The :class:`rindle.Model`. parameters: retrained ones, by their names in the module. RindleError where the scheme does
        not fit, or no integers do.
        """
        overrides = load_overrides(overrides)
        rules = resolve(scheme, overrides, keys_of(self.first.plan.graph))
        if parameters is not None or any(rule_words(rule) for rule in rules.values()):
            return self.again(scheme, overrides, parameters).model()
        provenance = self.first.provenance | {"scheme": scheme, "overrides": overrides}
        return Calibrated(replan(self.first.plan, scheme, overrides), provenance).model()


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
