"""Thresholds for a converted model, chosen on validation data: ``search.thresholds`` over the runtime. Needs no torch.

A candidate is judged as everywhere (``measure.evaluate``), against the dense model on the same rows, in points: percentage
points of accuracy, or per cent of the dense model's MSE. With no y in the data, the dense model's own decisions (or outputs)
stand for it. A candidate whose outputs stand still, or that is no better than a model that looks at nothing, is never chosen,
whatever the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engines.model import Model
from ..errors import RindleError
from ..file.dataset import Dataset
from ..measure.evaluate import DEVIATIONS, Judge, Score, judge_of
from ..measure.rezk import check_formula, executed_of
from .thresholds import PER_OCTAVE, Evaluation, Found, Point, search

FRONT = 12  # points of the front that go into the provenance: it is part of the file's size


@dataclass(frozen=True)
class Chosen:
    """model: with the chosen thresholds, and the search in its provenance. judge: of all candidates, against the dense model."""

    model: Model
    found: Found
    judge: Judge

    @property
    def dense(self) -> Score:
        """The score of the dense model."""
        return self.judge.base_score


def choose_thresholds(
    model: Model,
    data: Dataset,
    budget: float,
    *,
    task: str | None = None,
    decision: str | float | None = None,
    per_octave: int = PER_OCTAVE,
    log: str | Path | None = None,
    seen: Callable[[Point, int], None] | None = None,
    formula: str | None = None,
    together: bool = False,
) -> Chosen:
    """Holds every input of the recurrent layers with the θ that eliminates the most within ``budget``, in points (above).

    data: for validation; never test data, which would then be used up. task, decision: see ``measure.evaluate.judge_of``.
    per_octave, log, seen: see ``search.thresholds.search``. Thresholds that the model has already are not looked at.
    formula: "rezk" holds the inputs of all layers, and what is eliminated is counted as published (``rindle.formula``). together:
    both directions of a layer get one θ, and points name the forward one's input alone; ``spread`` names both.
    """
    check_formula(formula)
    looked = model.measure(data.x[:1], data.lengths[:1])
    names = [one.name for one in (*looked.inputs, *(looked.others if formula else ()))]
    still = model.with_thresholds(dict.fromkeys(names, 0))
    if together:
        names = [name for name in names if name not in backwards(model.artifact)]
    graph = model.artifact.graph
    judge = judge_of(data, still.run(data.x, data.lengths), graph, task, decision)

    def evaluate(thetas: dict[str, int]) -> Evaluation:
        held = still.with_thresholds(spread(model.artifact, thetas) if together else thetas)
        seen = held.measure(data.x, data.lengths)
        loss = judge.loss(seen.output)
        more = loss.more | {
            "eliminated_input": seen.eliminated(hidden=False),
            "eliminated_hidden": seen.eliminated(hidden=True),
        }
        share = 1 - executed_of(held.artifact, seen, elementwise=True) if formula else seen.eliminated()
        return Evaluation(loss.limit, loss.drift, share, more, loss.useless)

    known = model.artifact.held_codes()
    limits = {}
    for name in names:
        node, code = known[name]
        limits[name] = graph.program(node).layer.formats[code].hi - 1
    key = " ".join(map(str, (still.id, data.sha256, judge, DEVIATIONS, *(one for one in (formula, together) if one))))
    found = search(evaluate, limits, budget, per_octave=per_octave, log=log, key=key, seen=seen)
    chosen = found.chosen.thetas
    made = model.with_thresholds(spread(model.artifact, chosen) if together else chosen)
    story = {
        "budget": budget,
        **({"formula": formula} if formula else {}),
        "metric": judge.base_score.metric,
        **({"decision": judge.decision.rule} if judge.decision and judge.decision.threshold is not None else {}),
        "data": {"sha256": data.sha256, "rows": len(data), "frames": data.frames},
        "dense": judge.base_score.value,
        "trivial": judge.trivial.value,
        "evaluations": len(found.points),
        "inputs": names,
        "columns": ["thetas", "lost", "error", "eliminated"],
        "chosen": _row(found.chosen),
        "front": [_row(point) for point in thinned(found, FRONT)],
    }
    return Chosen(made.with_provenance({**made.artifact.provenance, "delta": story}), found, judge)


def backwards(artifact) -> dict[str, str]:
    """Input of a layer that runs backwards -> that of the layer that runs forwards on the same inputs, with the same program."""
    nodes = artifact.graph.programs
    twins = {
        back.name: ahead.name
        for back in nodes
        for ahead in nodes
        if back.reverse
        and not ahead.reverse
        and back.sources == ahead.sources
        and back.layer.program == ahead.layer.program
    }
    names = (name.split("/", 1) for name in artifact.held_codes())
    return {f"{node}/{rest}": f"{twins[node]}/{rest}" for node, rest in names if node in twins}


def spread(artifact, thetas: dict[str, int]) -> dict[str, int]:
    """Gives the θ of an input to the same input of the other direction, where that is not named."""
    return {back: thetas[ahead] for back, ahead in backwards(artifact).items() if ahead in thetas} | thetas


def _row(point: Point) -> list:
    one = point.evaluation
    return [list(point.thetas.values()), *(round(value, 4) for value in (one.more["lost"], one.error, one.eliminated))]


def thinned(found: Found, most: int) -> list[Point]:
    """The front up to twice the budget, at most about ``most`` points of it, the chosen one always among them."""
    near = [p for p in found.front if p.evaluation.error <= 2 * found.budget or p == found.chosen]
    step = max(1, -(-len(near) // most))
    kept = [p for i, p in enumerate(near) if i % step == 0 or p == found.chosen]
    return kept if found.chosen in kept else [*kept, found.chosen]


def entry(point: Point) -> dict:
    """A point as plain data: θ by input, error in points, the metric's value, eliminated shares; "still" where it is none."""
    one = point.evaluation
    shares = {"error": one.error, "drift": one.drift, "eliminated": one.eliminated, **one.more}
    return {"thetas": point.thetas, **shares, **({"still": one.still} if one.still else {})}


def set_thresholds(model: Model, thetas: dict[str, int | np.ndarray | None], unit: str = "code") -> Model:
    """θ by hand, as ``Model.with_thresholds`` has them. What a search has written into the provenance no longer holds, and goes."""
    made = model.with_thresholds(thetas, unit)
    return made.with_provenance({key: value for key, value in made.artifact.provenance.items() if key != "delta"})


def parse_threshold(text: str, unit: str = "code") -> tuple[str, int | float | None]:
    """ "node/input=8" (or "node/input=0.05", where the unit is "value"), or "node/input=none" for dense."""
    name, equals, value = text.rpartition("=")
    if equals and value.strip().lower() in ("none", "dense"):
        return name.strip(), None
    try:
        return name.strip(), (int if unit == "code" else float)(value if equals else "")
    except ValueError:
        like = "node/input=8" if unit == "code" else "node/input=0.05"
        raise RindleError(f"the threshold {text!r} cannot be read; write {like}, or node/input=none") from None
