"""Models of one calibration under other rules, for ``rindle.sensitivity``: the data are looked at once."""

from __future__ import annotations

from ...engines.model import Model
from ...scheme.rules import parse_rule
from ..calibrate.plan import replan
from ..conversion.rounding import refuse_words
from ..quantize import Calibrated


class Variants:
    """A callable: overrides, "layer/path" -> rule, to the model that :func:`rindle.quantize` would make with them. A rule with
    ``median`` can only be one that the calibration had.
    """

    def __init__(self, first: Calibrated):
        refuse_words(first.plan.rules, "sensitivity is that of a scheme's formats")
        self.first, self.memo = first, {}

    def __call__(self, overrides: dict[str, str]) -> Model:
        changed = {tuple(key.rpartition("/")[::2]): parse_rule(text) for key, text in overrides.items()}
        plan = replan(self.first.plan, changed, self.memo)
        return Calibrated(plan, self.first.provenance | {"overrides": overrides}).model()
