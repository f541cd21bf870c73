"""What makes more of a calibrated plan: codes of weights and biases, chosen on calibration rows. docs/rounding.md.

A way of rounding is a file here, a line in ROUNDINGS, and its word in ``scheme.MODIFIERS``:

    function(plan, layer name, rows, settings) -> what it did, as plain data for the provenance

It changes ``codes`` and ``biases`` of that layer's plan alone. Layers go in the order of the graph, so that each sees its
inputs as the integers of those below make them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ....errors import RindleError
from ...calibrate.plan import Plan
from .bias import correct_layer
from .gptq import round_layer
from .learned import learn_layer
from .runs import Rows

# in the order in which they act on a layer
ROUNDINGS = {"gptq": round_layer, "learned": learn_layer, "corrected": correct_layer}


@dataclass(frozen=True)
class Rounding:
    """steps, seed: of learned rounding. progress: is told what is done next."""

    steps: int = 300
    seed: int = 0
    progress: Callable[[str], None] = lambda text: None


def refine(plan: Plan, calibration, batch_first: bool, settings: Rounding | None = None) -> dict[str, dict]:
    """Rounds every layer by the words of its rules. Returns layer -> word -> what it did; {} for a scheme without words."""
    words = {node.name: _words(plan.rules, node.name) for node in plan.graph.programs}
    for name, found in words.items():
        _check(plan, name, found)
    rows, settings = Rows(calibration, batch_first), settings or Rounding()
    return {
        name: {word: act(plan, name, rows, settings) for word, act in ROUNDINGS.items() if word in found}
        for name, found in words.items()
        if found
    }


def _words(rules: dict, name: str) -> set[str]:
    return {
        word
        for (layer, path), rule in rules.items()
        if layer == name and path.startswith("weight.")
        for word in rule.modifiers
        if word in ROUNDINGS or word == "actorder"
    }


def words_of(rule) -> frozenset[str]:
    """Of a format's rule; those of tables and accumulators have none."""
    return getattr(rule, "modifiers", frozenset())


def _check(plan: Plan, name: str, words: set[str]) -> None:
    if {"gptq", "learned"} <= words:
        raise RindleError(f"{name}: its weights are to be rounded by gptq and learned; one layer takes one of the two")
    for (layer, path), rule in plan.rules.items():
        own = words_of(rule)
        if layer == name and "actorder" in own and "gptq" not in own:
            raise RindleError(f'{name}/{path}: "actorder" is the order in which gptq goes; write "gptq actorder"')


def refuse_words(rules: dict, why: str) -> None:
    """For those who cannot round so."""
    for (layer, path), rule in rules.items():
        found = words_of(rule) & {*ROUNDINGS, "actorder"}
        if found:
            raise RindleError(f"{layer}/{path} is {rule}: {why}; leave out {' and '.join(sorted(found))}")
