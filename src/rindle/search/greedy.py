"""The greedy walk of ``thresholds`` and ``sensitivity``: the choice of its next step, and evaluations that are each made once.

A step changes little for the others, so their old costs are kept, and only the step that looks cheapest is evaluated anew before it
is taken (lazy greedy, Minoux 1978).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

from ..errors import RindleError
from . import journal


def check_budget(budget: float) -> None:
    """RindleError unless the largest error allowed is a number, 0 or more."""
    if not budget >= 0:
        raise RindleError(f"the budget is {budget!r}; it must be 0 or more")


def cheapest(
    moves: Iterable,
    costs: dict,
    evaluate: Callable[[Hashable], tuple[object, float]],
    order: Callable[[Hashable], tuple] = lambda move: (),
) -> tuple:
    """The move of the least cost, and what it leads to.

    costs: of every move, from earlier steps; -inf for one to look at in any case. Those that are looked at anew are changed in it.
    evaluate: move -> what it leads to, cost. order: which of equal costs comes first; by default the first in ``moves``.
    """
    moves, fresh = list(moves), {}
    while (best := min(moves, key=lambda move: (costs[move], *order(move)))) not in fresh:
        fresh[best], costs[best] = evaluate(best)
    return best, fresh[best]


class Book:
    """Evaluations by candidate, each made once: those in the log are not made again.

    evaluate: candidate -> outcome. log: a file of evaluations, or None; key: which of its lines are of this search. entry: candidate,
    outcome -> what a line holds; parse: its inverse. seen(candidate, outcome, total): called when one is first used here.
    """

    def __init__(self, evaluate: Callable, log: str | os.PathLike | None, key: str, entry, parse, seen):
        self.evaluate, self.log, self.key, self.entry, self.seen = (
            evaluate,
            Path(log) if log else None,
            key,
            entry,
            seen,
        )
        self.logged = dict(journal.read(self.log, key, parse)) if self.log else {}
        self.used: dict = {}  # in the order in which they were first asked for

    def __call__(self, candidate: Hashable):
        if candidate not in self.used:
            if candidate not in self.logged:
                self.logged[candidate] = self.evaluate(candidate)
                if self.log:
                    journal.append(self.log, {"key": self.key, **self.entry(candidate, self.logged[candidate])})
            self.used[candidate] = self.logged[candidate]
            self.seen(candidate, self.used[candidate], len(self.used))
        return self.used[candidate]
