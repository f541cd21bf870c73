"""Which paths cannot bear few bits: what each costs by itself, and which to leave at 16 bits for the least bytes.

A callable evaluates a model in which some parts (a product's weights, or the codes that they multiply) are kept at 16 bits and
the others have the low precision. Of every path two numbers are asked for, since errors neither add nor stay apart:

    alone    only this path is low: what it does to a model that is otherwise whole
    spared   all paths are low but this one: what keeping it buys

The proposal is greedy: from all low, it keeps the path that takes away the most drift per added byte, until the error is
within the budget; then it gives back, the last first, what the others have made superfluous. Drift (how far outputs move
from those of the model with all paths at 16 bits) orders, since it is smooth; the error only admits, as in ``thresholds``. Only the
path that looks best is evaluated anew before it is taken (``greedy``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..errors import RindleError
from .greedy import Book, cheapest, check_budget

Parts = frozenset[str]
KINDS = ("both", "weights", "codes")


@dataclass(frozen=True)
class Path:
    """A product, or several that are chosen together: the parts that are its weights, and its codes."""

    weights: Parts
    codes: Parts

    @property
    def both(self) -> Parts:
        return self.weights | self.codes


@dataclass(frozen=True)
class Outcome:
    """Of one evaluation. error: what the budget bounds; drift: 0 or more, smooth; both against all at 16 bits. bytes: of the
    file. more: anything else worth keeping, numbers by name. still: why this is no model any more, whatever its error (its
    outputs stand still); "" if it is one.
    """

    error: float
    drift: float
    bytes: int
    more: dict[str, float]
    still: str = ""

    def within(self, budget: float) -> bool:
        return self.error <= budget and not self.still


@dataclass(frozen=True)
class Contribution:
    """Of one path and kind, "weights", "codes" or "both". bought: the drift that keeping it takes away, for ``bytes`` more."""

    path: str
    kind: str
    alone: Outcome
    spared: Outcome
    bought: float
    bytes: int


@dataclass(frozen=True)
class Found:
    """low, high: all paths low, all at 16 bits. contributions: by falling ``bought``. kept: the proposal, in the order in which
    its paths were taken. steps: (path, outcome) of every step of the walk. chosen: the proposal's outcome.
    """

    budget: float
    low: Outcome
    high: Outcome
    contributions: tuple[Contribution, ...]
    kept: tuple[str, ...]
    steps: tuple[tuple[str, Outcome], ...]
    chosen: Outcome
    evaluations: int

    def of_kind(self, kind: str) -> tuple[Contribution, ...]:
        return tuple(one for one in self.contributions if one.kind == kind)


def search(
    evaluate: Callable[[Parts], Outcome],
    paths: dict[str, Path],
    budget: float,
    kinds: tuple[str, ...] = KINDS,
    *,
    log: str | os.PathLike | None = None,
    key: str = "",
    seen: Callable[[int, int], None] | None = None,
) -> Found:
    """evaluate: the parts that are kept at 16 bits -> Outcome. paths: by name. budget: the largest error allowed, 0 or more.

    kinds: what to measure of every path; "both" is needed. log: a file of evaluations, which is read first and added to;
    key: what they depend on besides the kept parts (model, data). seen(done, planned): called after every evaluation. Raises
    RindleError for a bad budget or no paths.
    """
    if not paths:
        raise RindleError("there is no path to measure: the scheme leaves every product at 16 bits")
    check_budget(budget)
    if "both" not in kinds or not set(kinds) <= set(KINDS):
        raise RindleError(f"kinds is {kinds!r}; give both, and weights and codes if they are to be told apart")
    everything = frozenset().union(*(path.both for path in paths.values()))
    planned = 2 + 2 * len(kinds) * len(paths)
    look = Book(
        evaluate,
        log,
        key,
        lambda kept, outcome: {"kept": sorted(kept), "outcome": asdict(outcome)},
        lambda entry: (frozenset(entry["kept"]), Outcome(**entry["outcome"])),
        lambda kept, outcome, done: seen and seen(done, max(planned, done)),
    )
    low, high = look(frozenset()), look(everything)
    contributions = []
    for name, path in paths.items():
        for kind in kinds:
            parts = getattr(path, kind)
            alone, spared = look(everything - parts), look(parts)
            contributions.append(
                Contribution(name, kind, alone, spared, low.drift - spared.drift, spared.bytes - low.bytes)
            )
    contributions.sort(key=lambda one: -one.bought)
    kept, steps = _walk(look, paths, budget, {one.path: one for one in contributions if one.kind == "both"}, low)
    chosen = look(_parts(paths, kept))
    return Found(budget, low, high, tuple(contributions), kept, tuple(steps), chosen, len(look.used))


def _walk(look, paths, budget, contributions, low) -> tuple[tuple[str, ...], list[tuple[str, Outcome]]]:
    costs = {name: -_ratio(one.bought, one.bytes) for name, one in contributions.items()}
    kept, steps, current = [], [], low

    def keep(name: str) -> tuple[Outcome, float]:
        after = look(_parts(paths, [*kept, name]))
        return after, -_ratio(current.drift - after.drift, after.bytes - current.bytes)

    while not current.within(budget) and len(kept) < len(paths):
        name, current = cheapest((name for name in paths if name not in kept), costs, keep)
        kept.append(name)
        steps.append((name, current))
    for name in reversed(kept[:-1]):
        fewer = [one for one in kept if one != name]
        if look(_parts(paths, fewer)).within(budget):
            kept = fewer
    return tuple(kept), steps


def _parts(paths: dict[str, Path], names) -> Parts:
    return frozenset().union(*(paths[name].both for name in names))


def _ratio(bought: float, added: int) -> float:
    """Drift per byte. What is bought for nothing is counted as for one byte."""
    return bought / max(added, 1)
