"""Thresholds for a converted model, chosen on validation data: ``search.thresholds`` over the runtime. Needs no torch.

What a budget bounds. The error of a candidate is measured against the dense model on the same rows, in points: percentage
points of accuracy, or per cent of the dense model's MSE. It is the larger of two numbers:

- what the metric itself loses;
- an upper limit of what its smooth form loses (the mean probability of the true label; the MSE itself): the mean over
  rows plus ``DEVIATIONS`` standard errors of that mean.

The second is there because accuracy on few rows is too coarse to choose by: among 54 utterances the first wrong answer
costs 1.9 points, and before it costs 0, however close to it the model already is. Paired differences of probabilities
are far less noisy, move before any answer does, and their limit shrinks to the loss itself as rows are added. With no
y in the data, the dense model's own decisions (or outputs) stand for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..engines.model import Model
from ..errors import RindleError
from ..file.dataset import Dataset
from ..measure.evaluate import Score, drift, score, task_of
from ..measure.rezk import check_formula, executed_of
from .thresholds import PER_OCTAVE, Evaluation, Found, Point, search

FRONT = 12  # points of the front that go into the provenance: it is part of the file's size
DEVIATIONS = 1.0  # standard errors above the mean: a loss that is larger than this limit is seen about one time in six


@dataclass(frozen=True)
class Chosen:
    """model: with the chosen thresholds, and the search in its provenance. dense: the score of the dense model."""

    model: Model
    found: Found
    dense: Score


def choose_thresholds(
    model: Model,
    data: Dataset,
    budget: float,
    *,
    task: str | None = None,
    per_octave: int = PER_OCTAVE,
    log: str | Path | None = None,
    seen: Callable[[Point, int], None] | None = None,
    formula: str | None = None,
    together: bool = False,
) -> Chosen:
    """Holds every input of the recurrent layers with the θ that eliminates the most within ``budget``, in points (above).

    data: for validation; never test data, which would then be used up. task: "labels" or "targets", for data without y.
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
    measured = still.measure(data.x, data.lengths)
    dense, chosen_task = measured.output, task_of(data, model.output_size, task)
    base = score(dense, data, dense, chosen_task)

    def evaluate(thetas: dict[str, int]) -> Evaluation:
        held = still.with_thresholds(spread(model.artifact, thetas) if together else thetas)
        seen = held.measure(data.x, data.lengths)
        found = score(seen.output, data, dense, chosen_task)
        lost, (soft, error) = found.lost(base), found.soft_lost(base)
        more = {
            "value": found.value,
            "lost": lost,
            "soft_lost": soft,
            "soft_error": error,
            "eliminated_input": seen.eliminated(hidden=False),
            "eliminated_hidden": seen.eliminated(hidden=True),
        }
        limit = max(lost, soft + DEVIATIONS * error)
        share = 1 - executed_of(held.artifact, seen, elementwise=True) if formula else seen.eliminated()
        return Evaluation(limit, drift(seen.output, dense, data, chosen_task), share, more)

    known = model.artifact.held_codes()
    limits = {}
    for name in names:
        node, code = known[name]
        limits[name] = model.artifact.graph.node(node).layer.formats[code].hi - 1
    key = " ".join(
        map(str, (still.id, data.sha256, chosen_task, DEVIATIONS, *(one for one in (formula, together) if one)))
    )
    found = search(evaluate, limits, budget, per_octave=per_octave, log=log, key=key, seen=seen)
    chosen = found.chosen.thetas
    made = model.with_thresholds(spread(model.artifact, chosen) if together else chosen)
    story = {
        "budget": budget,
        **({"formula": formula} if formula else {}),
        "metric": base.metric,
        "data": {"sha256": data.sha256, "rows": len(data), "frames": data.frames},
        "dense": base.value,
        "evaluations": len(found.points),
        "inputs": names,
        "columns": ["thetas", "lost", "error", "eliminated"],
        "chosen": _row(found.chosen),
        "front": [_row(point) for point in thinned(found, FRONT)],
    }
    artifact = replace(made.artifact, provenance={**made.artifact.provenance, "delta": story})
    return Chosen(Model(artifact, kernel=model.kernel), found, base)


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
    """A point as plain data: θ by input, error in points, the metric's value, eliminated shares."""
    one = point.evaluation
    return {"thetas": point.thetas, "error": one.error, "drift": one.drift, "eliminated": one.eliminated, **one.more}


def set_thresholds(model: Model, thetas: dict[str, int | np.ndarray | None]) -> Model:
    """θ by hand. What a search has written into the provenance no longer holds, and goes."""
    made = model.with_thresholds(thetas)
    provenance = {key: value for key, value in made.artifact.provenance.items() if key != "delta"}
    return Model(replace(made.artifact, provenance=provenance), kernel=model.kernel)


def parse_threshold(text: str) -> tuple[str, int | None]:
    """ "node/input=8", or "node/input=none" for dense."""
    name, equals, value = text.rpartition("=")
    if equals and value.strip().lower() in ("none", "dense"):
        return name.strip(), None
    try:
        return name.strip(), int(value if equals else "")
    except ValueError:
        raise RindleError(f"the threshold {text!r} cannot be read; write node/input=8, or node/input=none") from None
