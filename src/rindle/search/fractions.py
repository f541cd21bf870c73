"""Qm.n by measurement: integer against fraction bits of each tensor, by what they do to the outputs of the whole model.

Calibration chooses each format by its own tensor. A bit that clips a tensor may still help the outputs, and the other way
round, so that this search tries: from the calibrated fraction bits, one tensor at a time, one bit up or down, and on as long
as it helps (coordinate descent). Formats of the same width have the same bytes, so that there is nothing to trade.

Drift on few rows is made by few of them, and a walk that follows its mean follows chance: on spoken digits, 3-bit codes, it
went down by 30 % on the 150 rows searched and up by 20 % on 300 others. So the rows are evaluated in parts, and a step must
lower the drift in all but an eighth of them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import journal

LEAST = 0.01  # share by which a step must lower the drift
SPAN = 4  # bits up or down from the start
PASSES = 3  # over all tensors; it ends before where one changes nothing


@dataclass(frozen=True)
class Trial:
    """Fraction bits of every tensor by name, and how far the outputs drift on each part of the rows; None where no model
    can be made of them.
    """

    fractions: dict[str, int]
    parts: tuple[float, ...] | None

    @property
    def drift(self) -> float:
        """Their mean."""
        return math.inf if self.parts is None else sum(self.parts) / len(self.parts)

    def beats(self, other: Trial) -> bool:
        """By a share of the drift, and in nearly all parts."""
        if self.parts is None or not self.drift < other.drift * (1 - LEAST):
            return False
        return other.parts is None or sum(a < b for a, b in zip(self.parts, other.parts)) >= len(self.parts) * 7 / 8


@dataclass(frozen=True)
class Fractions:
    """start: as calibrated. chosen: the best. trials: all that were evaluated, each once, in order."""

    start: Trial
    chosen: Trial
    trials: tuple[Trial, ...]

    @property
    def changes(self) -> dict[str, int]:
        """Fraction bits of the tensors that the search has changed."""
        return {name: frac for name, frac in self.chosen.fractions.items() if frac != self.start.fractions[name]}


def search_fractions(
    evaluate: Callable[[dict[str, int]], tuple[float, ...] | None],
    start: dict[str, int],
    *,
    log: str | os.PathLike | None = None,
    key: str = "",
    seen: Callable[[Trial, int], None] | None = None,
) -> Fractions:
    """evaluate: fraction bits by name -> drift on each part of the rows, 0 or more; None where no model can be made. start: the calibrated ones.

    log: a file of evaluations, which is read first and added to; key: what they depend on besides the fractions (model,
    data). seen(trial, number): called for every evaluation.
    """
    log, trials = Path(log) if log else None, {}
    known = {_name(one.fractions): one for one in journal.read(log, key, _parse)} if log else {}

    def look_up(fractions: dict[str, int]) -> Trial:
        name = _name(fractions)
        if name not in known:
            known[name] = Trial(dict(fractions), evaluate(dict(fractions)))
            if log:
                journal.append(log, {"key": key, "fractions": fractions, "parts": known[name].parts})
        if name not in trials:
            trials[name] = known[name]
            if seen:
                seen(known[name], len(trials))
        return known[name]

    best = first = look_up(start)
    for _ in range(PASSES):
        before = best
        for name in start:
            for direction in (1, -1):
                stood = best
                while abs(best.fractions[name] + direction - start[name]) <= SPAN:
                    trial = look_up(best.fractions | {name: best.fractions[name] + direction})
                    if not trial.beats(best):
                        break
                    best = trial
                if best is not stood:
                    break
        if best is before:
            break
    return Fractions(first, best, tuple(trials.values()))


def _name(fractions: dict[str, int]) -> str:
    return json.dumps(fractions, sort_keys=True)


def _parse(entry: dict) -> Trial:
    return Trial(dict(entry["fractions"]), None if entry["parts"] is None else tuple(map(float, entry["parts"])))
