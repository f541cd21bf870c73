"""What a candidate is judged by: a model made for it, run in the C++ runtime on data, and measured.

A measure is a line in MEASURES: from a model and its run to a number. ``minimize`` or ``maximize`` says which way is better.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..engines.measurement import Measurement
from ..engines.model import Model
from ..errors import RindleError, RindleWarning
from ..file.artifact import Artifact
from ..file.dataset import Dataset
from ..measure.accelerators import HARDWARE, workload_of
from ..measure.cost import sizes
from ..measure.evaluate import Judge, Score
from ..measure.timing import Contender, in_turns, one_core
from .grid import scheme_of
from .precision import overrides_of, shares_of
from .workers import Candidate, Outcome


@dataclass(frozen=True)
class Run:
    """A model, what it gave on the data, and how good that is."""

    model: Model
    seen: Measurement
    score: Score
    data: Dataset


@dataclass(frozen=True)
class Measure:
    """unit: for people. direction: "minimize" or "maximize"."""

    value: Callable[[Run], float]
    unit: str
    direction: str = "minimize"


def error(run: Run) -> float:
    """Wrong answers in per cent, or the MSE."""
    return 100.0 * (1.0 - run.score.value) if run.score.higher_is_better else run.score.value


def step_time(run: Run) -> float:
    """One frame in this machine's runtime, µs: the median of 21 slices on one core. Of a stream over the data's own frames; of
    a model that needs whole sequences, of the longest row alone.
    """
    model, data = run.model, run.data
    if model.artifact.graph.whole_sequence is None:
        frames, stream, frames_per_call, position = data.x[data.real][:4096], model.stream(), 1, 0
        frames, out = np.ascontiguousarray(frames), np.empty(model.output_size, np.float32)

        def loop(n: int) -> None:
            nonlocal position
            for _ in range(n):
                stream.step(frames[position], out)
                position = (position + 1) % len(frames)
    else:
        longest = int(data.lengths.argmax())
        row = np.ascontiguousarray(data.x[longest, : data.lengths[longest]])
        frames_per_call = len(row)

        def loop(n: int) -> None:
            for _ in range(n):
                model.run(row)

    with one_core():
        return in_turns([Contender("rindle", "step", loop)], 21)[0].median / frames_per_call


def _hardware(name: str, what: str) -> Callable[[Run], float]:
    return lambda run: HARDWARE[name](workload_of(run.model.artifact))[what]


MEASURES: dict[str, Measure] = {
    "error": Measure(error, "% wrong, or MSE"),
    "bytes": Measure(lambda run: len(run.model.data), "of the file"),
    "weight bytes": Measure(lambda run: sizes(run.model.artifact)["weights"], "of the weights alone"),
    "operations": Measure(lambda run: 1.0 - run.seen.eliminated(), "share of recurrent MACs that is left"),
    "time": Measure(step_time, "µs per frame"),
    "silago speedup": Measure(_hardware("silago", "speedup"), "×", "maximize"),
    "silago energy": Measure(_hardware("silago", "energy"), "µJ per step"),
    "bitfusion speedup": Measure(_hardware("bitfusion", "speedup"), "×", "maximize"),
}


def directions(names) -> dict[str, str]:
    """Objective -> its direction. RindleError for an unknown one."""
    for name in names:
        if name not in MEASURES:
            raise RindleError(f"unknown objective {name!r}; there are {', '.join(MEASURES)}")
    return {name: MEASURES[name].direction for name in names}


STILL = "stands still"  # the constraint of a candidate that is no model any more


@dataclass(frozen=True)
class Evaluation:
    """A candidate -> Outcome, for a study. Can be pickled where ``make`` can.

    make: candidate, or candidate and retrained parameters -> Model. data: for validation. judge: of outputs on them, against the
    float model's. objectives: of MEASURES. limits: measure -> what it must not pass (fall below, where more is better); violations
    are constraints, and so is an output that stands still.
    """

    make: Callable[..., Model]
    data: Dataset
    judge: Judge
    objectives: tuple[str, ...]
    limits: dict[str, float] = field(default_factory=dict)

    def __call__(self, candidate: Candidate, parameters: dict | None = None) -> Outcome:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RindleWarning)
            model = self.make(candidate) if parameters is None else self.make(candidate, parameters)
        seen = model.measure(self.data.x, self.data.lengths)
        loss = self.judge.loss(seen.output)
        run = Run(model, seen, loss.score, self.data)
        values = {name: MEASURES[name].value(run) for name in {*self.objectives, *self.limits}}
        violated = {}
        for name, limit in self.limits.items():
            over = values[name] - limit if MEASURES[name].direction == "minimize" else limit - values[name]
            violated[name] = over / abs(limit) if limit else over
        if loss.still:
            violated[STILL] = 1.0
        parts = sizes(model.artifact)
        more = {
            "id": model.id,
            "metric": run.score.metric,
            "score": run.score.value,
            "error": error(run),
            "still": loss.still,
            "bytes": len(model.data),
            "weight bytes": parts["weights"],
            "eliminated": seen.eliminated(),
            "saturations": int(sum(seen.saturations.values())),
            "warnings": [str(one.message) for one in caught if issubclass(one.category, RindleWarning)],
        }
        return Outcome({name: float(values[name]) for name in self.objectives}, violated, more)


@dataclass(frozen=True)
class Swept:
    """A candidate of ``search.grid`` -> Model. make: (scheme, overrides) -> Model."""

    make: Callable[..., Model]

    def __call__(self, candidate: Candidate) -> Model:
        return self.make(*scheme_of(candidate))


@dataclass(frozen=True)
class Mixed:
    """A candidate of ``search.precision`` -> Model, its thresholds set. make: (scheme, overrides, parameters) -> Model. scheme: of all
    that the candidate says nothing of.
    """

    make: Callable[..., Model]
    scheme: str | dict = "int8"

    def __call__(self, candidate: Candidate, parameters: dict | None = None) -> Model:
        model = self.make(self.scheme, overrides_of(candidate), parameters)
        return model.with_thresholds(thetas_of(model.artifact, shares_of(candidate)))


def thetas_of(artifact: Artifact, shares: dict[str, float]) -> dict[str, int]:
    """Input -> θ in code units, from "layer/source" -> share of the codes' range; for every code that a source has."""
    found = {}
    for name, (node, code) in artifact.held_codes().items():
        layer = artifact.graph.program(node).layer
        source = next(term.source for term in layer.program.terms if term.code == code)
        if f"{node}/{source}" in shares:
            highest = layer.formats[code].hi
            found[name] = min(round(shares[f"{node}/{source}"] * (highest + 1)), highest - 1)
    return found


@dataclass(frozen=True)
class Region:
    """Where a beacon is worth its training: the error strictly between, and no other limit passed."""

    low: float
    high: float

    def __call__(self, outcome: Outcome) -> bool:
        others = (value for name, value in outcome.constraints.items() if name != "error")
        return self.low < outcome.more["error"] < self.high and all(value <= 0 for value in others)
