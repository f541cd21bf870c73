"""Rules with the word ``median``: a path's step is the median of those that every calibration sequence alone would give it.

So no single sequence decides, however loud. Rezk et al. 2022 choose their clipping thresholds so. Of a sequence only its steps
are kept, one number for each rule.
"""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import torch

from ...errors import RindleError
from ...program.program import Program
from ...scheme.rules import Rule
from .groups import by_row
from .histogram import Histogram

WORD = "median"


class Medians:
    """What every sequence is asked. programs: nodes. rules: (node, path) -> Rule. choosers: node -> its step of a histogram, a
    function of (path, rule, product, histogram).
    """

    def __init__(self, programs, rules: dict[tuple[str, str], Rule], choosers: dict):
        self.choosers = choosers
        self.wanted: dict[str, dict[str, set]] = {}  # node -> path -> (product, rule)
        for node in programs:
            program = node.layer.program
            paths = [(path, path, False) for path in (*program.paths, *program.inputs)]
            paths += [(f"code.{gate}.{source}", source, True) for gate, source in program.blocks]
            for key, path, product in paths:
                rule = rules.get((node.name, key))
                if rule is not None and WORD in rule.modifiers:
                    name = program.format_name(path)
                    self.wanted.setdefault(node.name, {}).setdefault(name, set()).add((product, rule))

    @torch.no_grad()
    def add(self, node: str, program: Program, observed: dict[str, list[torch.Tensor]], histograms: dict) -> None:
        """observed: path -> its frames of some sequences, [rows still running, n] each. The steps go into the histograms."""
        for name, rules in self.wanted.get(node, {}).items():
            parts = [by_row(frames) for path, frames in observed.items() if program.format_name(path) == name]
            if not parts:
                continue
            kept = histograms[node, name].steps
            for of_row in zip_longest(*parts):
                one = Histogram()
                for values in of_row:
                    if values is not None:
                        one.add(values)
                for product, rule in rules:
                    steps = kept.setdefault((product, rule), [])
                    if one.largest > 0:  # a sequence of zeros says nothing of a scale
                        steps.append(self.choosers[node](name, rule, product, one))


def median_of(rule: Rule, histogram: Histogram | None, product: bool, where: str) -> float:
    """The step, 0 where all sequences were zeros. RindleError where no sequence was seen by itself."""
    if histogram is None or (product, rule) not in histogram.steps:
        raise RindleError(f"{where}: {str(rule)!r} needs calibration sequences, and there are none; leave out {WORD!r}")
    steps = histogram.steps[product, rule]
    if not steps:
        return 0.0
    if (
        rule.kind == "fixed"
    ):  # of an even number the upper one in the middle, which clips less: a mean is no power of two
        return sorted(steps)[len(steps) // 2]
    return float(np.median(steps))
