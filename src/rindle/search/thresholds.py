"""Thresholds of a delta network under an error budget: which θ for which input eliminates the most for the least error.

A candidate is a θ per input, and a callable evaluates it. The walk begins where nothing is skipped, θ = 0 everywhere, and
raises one θ at a time by one rung of a ladder of whole numbers, towards the rung 1, 3 or 6 ahead by which outputs drift
least per operation that is eliminated. (Who looks one rung ahead only stays before the plateaus that inputs have,
where small θ skip nothing yet; who leaps leaves the budget by leaping.) It stops when the error has left the budget for good, and the best of all evaluated candidates
within the budget is chosen.

- *Few evaluations.* A rung of one input changes little for the others, so their old ratios are kept, and only the input
  that looks best is evaluated anew before it is raised (lazy greedy, Minoux 1978). Their number grows as inputs x rungs,
  where a grid has rungs ** inputs. For an 8-bit GRU and an LSTM with two inputs each it was about 60 where the grid has 324;
  of the operations, the grid's best within the same budget eliminated 0.7 points more in the mean over twelve budgets,
  2.2 at most.
- *The walk does not know the budget*; the budget says only where it ends. So a larger budget walks on from where a
  smaller one stopped, and never eliminates less.
- *Steps are ordered by drift, not by error.* Error on few validation rows moves in jumps, one row at a time, and a
  walk that follows it follows chance. Drift (how far outputs move from the dense model's) is smooth and asks no labels.
  The error only admits or refuses.
- *It resumes.* Every evaluation is a line of a file; a search that was killed reads them back and repeats none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import RindleError
from . import journal

PER_OCTAVE = 4  # rungs per doubling of θ, once they are more than 1 apart
AHEAD = (1, 3, 6)  # rungs that the walk looks ahead
PATIENCE = 3  # steps beyond the budget before the walk ends: error is not quite monotone


@dataclass(frozen=True)
class Evaluation:
    """What the callable says of a candidate.

    error: what the budget bounds, in its unit; 0 for the dense model. drift: 0 or more, smooth, what orders the walk.
    eliminated: share of operations, 0..1. more: anything else worth keeping, numbers by name. still: why the candidate is no
    model any more, whatever its error (its outputs stand still); "" if it is one.
    """

    error: float
    drift: float
    eliminated: float
    more: dict[str, float]
    still: str = ""


@dataclass(frozen=True)
class Point:
    """A candidate that was evaluated: θ of every input by name."""

    thetas: dict[str, int]
    evaluation: Evaluation


@dataclass(frozen=True)
class Found:
    """chosen: the admissible point that eliminates the most. walk: the points that the search stood on, from θ = 0 on.
    points: all that were evaluated, in order.
    """

    budget: float
    chosen: Point
    walk: tuple[Point, ...]
    points: tuple[Point, ...]

    @property
    def front(self) -> tuple[Point, ...]:
        """The evaluated points that no other beats in both error and eliminated operations, by rising error. What stands still
        is not among them.
        """
        return pareto(tuple(point for point in self.points if not point.evaluation.still))


def pareto(points: tuple[Point, ...]) -> tuple[Point, ...]:
    best, front = -1.0, []
    for point in sorted(points, key=lambda p: (p.evaluation.error, -p.evaluation.eliminated, p.evaluation.drift)):
        if point.evaluation.eliminated > best:
            best = point.evaluation.eliminated
            front.append(point)
    return tuple(front)


def ladder(limit: int, per_octave: int = PER_OCTAVE) -> list[int]:
    """0, 1, 2, …, up to ``limit``, the largest θ allowed: one apart at first, then ``per_octave`` to every doubling."""
    rungs = [0]
    while rungs[-1] < limit:
        octave = 1 << max(rungs[-1].bit_length() - 1, 0)
        rungs.append(min(limit, rungs[-1] + max(1, octave // per_octave)))
    return rungs


def search(
    evaluate: Callable[[dict[str, int]], Evaluation],
    limits: dict[str, int],
    budget: float,
    *,
    per_octave: int = PER_OCTAVE,
    log: str | os.PathLike | None = None,
    key: str = "",
    seen: Callable[[Point, int], None] | None = None,
) -> Found:
    """evaluate: θ by input name -> Evaluation. limits: input name -> the largest θ that it may have. budget: the largest
    error allowed, 0 or more.

    log: a file of evaluations, one JSON line each, which is read first and added to. key: what the evaluations depend
    on besides θ (model, data, measure); lines of another key are left alone. seen(point, total): called for every
    evaluation. Raises RindleError for a bad budget or no inputs.
    """
    if not limits:
        raise RindleError("there is no input whose changes could be skipped: the model has no recurrent layer")
    if not budget >= 0:
        raise RindleError(f"the budget is {budget!r}; it must be 0 or more")
    book = _Book(evaluate, Path(log) if log else None, key, seen)
    rungs = {name: ladder(limit, per_octave) for name, limit in limits.items()}
    at = dict.fromkeys(limits, 0)  # rung of each input

    def point(rung: dict[str, int]) -> Point:
        return book.look_up({name: rungs[name][k] for name, k in rung.items()})

    current = point(at)
    walk, beyond = [current], 0
    moves = [(name, ahead) for name in limits for ahead in AHEAD]
    ratios = dict.fromkeys(moves, float("-inf"))  # old ones, until a move is looked at anew
    while beyond < PATIENCE:
        open_ = [(name, ahead) for name, ahead in moves if at[name] + ahead < len(rungs[name])]
        if not open_:
            break
        fresh: dict[tuple[str, int], Point] = {}
        while (best := min(open_, key=lambda move: (ratios[move], at[move[0]], move[1]))) not in fresh:
            fresh[best] = point(at | {best[0]: at[best[0]] + best[1]})
            ratios[best] = _ratio(current, fresh[best])
        name = best[0]
        at[name] += 1
        current = point(at)
        walk.append(current)
        # of the raised input, only what lies one rung ahead has not come nearer than its old ratio says
        ratios |= {(name, ahead): float("-inf") for ahead in AHEAD[1:]} | {best: float("-inf")}
        beyond = beyond + 1 if current.evaluation.error > budget or current.evaluation.still else 0
    admissible = [one for one in book.used if one.evaluation.error <= budget and not one.evaluation.still]
    if not admissible:
        first = walk[0].evaluation
        why = first.still or f"the error is {first.error:g} already, above the budget {budget:g}"
        raise RindleError(f"with all θ = 0 {why}")
    chosen = max(admissible, key=lambda one: (one.evaluation.eliminated, -one.evaluation.drift))
    return Found(budget, chosen, tuple(walk), tuple(book.used))


def _ratio(before: Point, after: Point) -> float:
    """Drift per eliminated share. A step that eliminates nothing more costs infinitely much, unless it costs nothing."""
    drift = after.evaluation.drift - before.evaluation.drift
    gained = after.evaluation.eliminated - before.evaluation.eliminated
    if drift <= 0:
        return drift * max(gained, 0.0)
    return drift / gained if gained > 0 else float("inf")


class _Book:
    """Evaluations, each made once: those in the file are not made again."""

    def __init__(self, evaluate, log: Path | None, key: str, seen):
        self.evaluate, self.log, self.key, self.seen = evaluate, log, key, seen
        self.known = {_name(p.thetas): p for p in journal.read(log, key, _parse)} if log else {}
        self.used: list[Point] = []
        self.taken: set[str] = set()

    def look_up(self, thetas: dict[str, int]) -> Point:
        name = _name(thetas)
        if name not in self.known:
            self.known[name] = Point(dict(thetas), self.evaluate(dict(thetas)))
            if self.log:
                journal.append(self.log, {"key": self.key, **asdict(self.known[name])})
        if name not in self.taken:
            self.taken.add(name)
            self.used.append(self.known[name])
            if self.seen:
                self.seen(self.known[name], len(self.used))
        return self.known[name]


def _name(thetas: dict[str, int]) -> str:
    return json.dumps(thetas, sort_keys=True)


def _parse(entry: dict) -> Point:
    return Point(dict(entry["thetas"]), Evaluation(**entry["evaluation"]))
