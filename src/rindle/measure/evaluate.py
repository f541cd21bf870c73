"""How good a model's outputs are on data: the one judge of eval, quantize, delta, sensitivity, sweep, search and the report.

labels   -> accuracy: of rows, or of frames; of all labels where there are several each. How an output becomes a label is
            ``measure.decide``'s matter, and is said.
targets  -> MSE; NMSE in dB, which is the error's energy over that of the targets about the mean of every output.
none     -> agreement with a reference: its decisions are the labels, or its outputs the targets.

Padding, and what the data's mask leaves out, never counts. Where there are no labels, outputs of a sigmoid are judged as values
*and* by what they decide at 1/2: they may be either.

A budget bounds a loss in points, of which there are two, and the larger counts: what the metric itself loses; and an upper
limit of what its smooth form loses (mean over rows plus DEVIATIONS standard errors). Accuracy on few rows is too coarse to
choose by: among 54 utterances the first wrong answer costs 1.9 points, and before it costs 0, however close to it the model
already is. Paired differences of probabilities are far less noisy, and their limit shrinks to the loss itself as rows are added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..errors import RindleError
from ..file.dataset import Dataset
from ..program.graph import Graph
from . import answers
from .answers import LABELS, TARGETS, TASKS, Answers, per_row
from .decide import Decision, decide, ending_of, parse_decision

DEVIATIONS = 1.0  # standard errors above the mean: a loss that is larger than this limit is seen about one time in six
LEAST_VARIANCE = 1e-6  # of an output, as a share of the liveliest one's: less is rounding

__all__ = [
    "TASKS",
    "Judge",
    "Loss",
    "Score",
    "Trivial",
    "decisions",
    "drift",
    "judge_of",
    "probabilities",
    "score",
    "task_of",
]


@dataclass(frozen=True, eq=False)
class Score:
    """value: what ``metric`` says, over all that counts; a share for accuracy, raw for MSE.

    items: float64 [N], each row's own value, and counts: int64 [N], how much it counts (labels or target values). soft:
    float64 [N], each row's smooth value: the mean probability of the true label; or the mean over outputs of the squared error
    relative to the output's variance. variation: what the MSE of the mean outputs would be, else None. more: further numbers
    for people. decision: how labels were decided, None where none were.
    """

    metric: str
    value: float
    higher_is_better: bool
    items: np.ndarray
    counts: np.ndarray
    soft: np.ndarray
    variation: float | None
    more: dict[str, float]
    decision: Decision | None = None

    def __str__(self) -> str:
        if self.higher_is_better:
            return f"{self.value:.2%}"
        return f"{self.value:.4g} ({self.more['NMSE dB']:.2f} dB)"

    def lost(self, base: Score) -> float:
        """How much worse than ``base``, in points: percentage points of accuracy, or per cent of the base's MSE (of the
        targets' variance where that is less, or where the base has no error at all). Negative: better.
        """
        whole = 1.0 if self.higher_is_better else _whole(base.value, base.variation)
        return _points(self._worse(base.value, self.value), whole)

    def soft_lost(self, base: Score) -> tuple[float, float]:
        """As :meth:`lost`, of the smooth values, and the standard error of that mean over rows, both in points.

        The rows are the same, so their differences are far less noisy than either score: the standard error is that of
        the paired difference. 0 and 0 for equal outputs.
        """
        difference = self._worse(base.soft, self.soft)
        weight = self.counts / self.counts.sum()
        mean = float(weight @ difference)
        rows = np.count_nonzero(self.counts)
        error = float(np.sqrt(weight**2 @ (difference - mean) ** 2 * rows / max(rows - 1, 1)))
        whole = 1.0 if self.higher_is_better else _whole(float(weight @ base.soft), 1.0)
        return _points(mean, whole), _points(error, whole)

    def _worse(self, base, found):
        return base - found if self.higher_is_better else found - base


def _whole(error: float, variation: float) -> float:
    """What a growth of the error is relative to."""
    return min(error, variation) if error and variation else error or variation


def _points(worse: float, whole: float) -> float:
    return 100.0 * worse / whole if whole else (0.0 if worse == 0 else np.inf)


@dataclass(frozen=True)
class Trivial:
    """What a model that looks at nothing scores: ``value`` of the same metric. what: it always says."""

    value: float
    what: str


@dataclass(frozen=True)
class Loss:
    """Of a model against the judge's base. limit: what a budget bounds, in points. still: what stands still in it that varies in
    the base, or "". useless: that, or that it is no better than looking at nothing where the base is better, or "". drift: 0 or
    more, smooth. more: lost, soft_lost, soft_error and others, by name.
    """

    limit: float
    still: str
    useless: str
    drift: float
    score: Score
    more: dict[str, float]


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges outputs on data, all alike. Made by :func:`judge_of`.

    task: "labels" or "targets". decision: of labels; beside targets, what is counted as well. answers: what should come out, and
    where it counts. real: all that is no padding, whether it has an answer or not. base: the outputs that others are compared
    with. agreement: answers are the base's own.
    """

    task: str
    decision: Decision | None
    answers: Answers
    real: Answers
    base: np.ndarray
    agreement: bool

    def __str__(self) -> str:
        """How outputs are judged, in a sentence."""
        by = f"{self.decision}" if self.decision else ""
        if self.task == TARGETS:
            by = "judged by their error relative to their variance" + (f", and by what is {by}" if by else "")
        return f"outputs are {by}" + (
            " (no y: the reference's own answers are the right ones)" if self.agreement else ""
        )

    def shown(self, value: float) -> str:
        """A value of the metric, for people."""
        return f"{value:.2%}" if self.task == LABELS else f"{value:.4g}"

    @cached_property
    def base_score(self) -> Score:
        return self.score(self.base)

    def score(self, output: np.ndarray) -> Score:
        """output: float32 [N, O] or [N, T', O], as ``Model.run`` gives."""
        found = self.answers.at(output)
        if self.task == TARGETS:
            return self._of_targets(found)
        one = self._of_labels(found) if self.decision.threshold is None else self._of_answers(found)
        return replace(one, metric="agreement", more={}) if self.agreement else one

    def loss(self, output: np.ndarray) -> Loss:
        """Of outputs against the base's."""
        found, score = self.real.at(output), self.score(output)
        lost, (soft, error) = score.lost(self.base_score), score.soft_lost(self.base_score)
        more = {"value": score.value, "lost": lost, "soft_lost": soft, "soft_error": error}
        limit = max(lost, soft + DEVIATIONS * error)
        if self.task == TARGETS and self.decision:
            changed = 100.0 * float((self.decision.labels(found) != self.decision.labels(self._base)).mean())
            more["changed_decisions"] = changed
            limit = max(limit, changed)
        still = self._still(np.asarray(output), found)
        return Loss(limit, still, still or self._useless(score), self._drift(found, slice(None)), score, more)

    def drift(self, output: np.ndarray, rows: slice = slice(None)) -> float:
        """How far outputs have moved from the base's, 0 for equal ones: smooth, and blind to y. rows: of these alone.

        labels: mean total variation distance of the two distributions, 0..1. targets: energy of the difference relative to
        the variance of each output of the base, mean over outputs.
        """
        chosen = np.isin(self.real.rows, np.arange(len(self.real.counted))[rows])
        return self._drift(self.real.at(output), chosen)

    @cached_property
    def trivial(self) -> Trivial:
        """What always saying the most frequent label, or the mean outputs, scores."""
        y, known = self.answers.y, self.answers.known
        if self.task == TARGETS:
            return Trivial(float(y.var(axis=0).mean()), "the mean of every output")
        if self.decision.threshold is None:
            labels, counts = np.unique(y, return_counts=True)
            return Trivial(float(counts.max() / counts.sum()), f"label {labels[counts.argmax()]}")
        yes = (y * known).sum(0)
        right = np.maximum(yes, known.sum(0) - yes)
        what = f"label {int(2 * yes[0] > known.sum())}" if y.shape[1] == 1 else "the more frequent answer of each label"
        return Trivial(float(right.sum() / known.sum()), what)

    @cached_property
    def _base(self) -> np.ndarray:
        """float64 [K, O], at all real places."""
        return self.real.at(self.base)

    def _still(self, output: np.ndarray, found: np.ndarray) -> str:
        real = self.real.counted
        for what, mine, wanted in zip(MOVES, moves(output, real), moves(self.base, real)):
            stuck = np.flatnonzero(wanted & ~mine)
            if len(stuck):
                return f"output {stuck[0]} stands still: it should differ {what}"
        if self.decision and self._constant(found) and not self._constant(self._base):
            return "all decisions are the same, where they should vary"
        return ""

    def _useless(self, score: Score) -> str:
        better, base, trivial = score.higher_is_better, self.base_score.value, self.trivial
        beaten = [value > trivial.value if better else value < trivial.value for value in (base, score.value)]
        return f"it is no better than a model that always says {trivial.what}" if beaten == [True, False] else ""

    def _constant(self, output: np.ndarray) -> bool:
        return not np.ptp(self.decision.labels(output), axis=0).any()

    @cached_property
    def _base_scales(self) -> np.ndarray:
        return _scales(_variances(self._base))

    def _drift(self, found: np.ndarray, chosen) -> float:
        found, base = found[chosen], self._base[chosen]
        if self.task == LABELS:
            moved = np.abs(self.decision.chances(found) - self.decision.chances(base))
            return float(moved.sum(-1).mean() / 2 if self.decision.threshold is None else moved.mean())
        return float((((found - base) ** 2).mean(axis=0) / self._base_scales).mean())

    def _of_labels(self, found: np.ndarray) -> Score:
        y = self.answers.y
        true = np.take_along_axis(self.decision.chances(found), y[:, None], -1)[:, 0]
        return self._accuracy((self.decision.labels(found) == y).astype(float), true, np.ones(len(y), np.int64), {})

    def _of_answers(self, found: np.ndarray) -> Score:
        y, known, said = self.answers.y, self.answers.known, self.decision.labels(found)
        yes = self.decision.chances(found)
        true = np.where(y == 1, yes, 1 - yes)
        hits = int((said * y * known).sum())
        most = int((said * known).sum() + (y * known).sum())
        more = {"F1": 2 * hits / most if most else 1.0}
        return self._accuracy(((said == y) & known).sum(1).astype(float), true, known.sum(1), more, known)

    def _accuracy(self, right, true, counts, more, known=None) -> Score:
        known = np.ones_like(true, bool) if known is None else known
        nats = -np.log(np.maximum(true[known], np.finfo(np.float64).tiny)).mean()
        soft = (true * known).reshape(len(true), -1).sum(1)
        counts, right, soft = (per_row(self.answers, one) for one in (counts, right, soft))
        each, value = np.maximum(counts, 1), float(right.sum() / counts.sum())
        name = "frame accuracy" if self.answers.per_frame else "accuracy"
        name = f"label {name}" if known.ndim == 2 and known.shape[1] > 1 else name
        more = {"cross-entropy": float(nats), **more}
        return Score(name, value, True, right / each, counts, soft / each, None, more, self.decision)

    def _of_targets(self, found: np.ndarray) -> Score:
        squared, variances = (found - self.answers.y) ** 2, _variances(self.answers.y)
        outputs = squared.shape[1]
        counts = per_row(self.answers, np.full(len(found), outputs, np.int64))
        each = np.maximum(counts, 1)
        sums = per_row(self.answers, squared.sum(1))
        relative = per_row(self.answers, (squared / _scales(variances)).sum(1))
        value, variation = float(sums.sum() / counts.sum()), float(variances.mean())
        ratio = value / variation if variation else (np.inf if value else 0.0)
        decibel = float(10 * np.log10(ratio)) if ratio > 0 else -np.inf
        name = "MSE to reference" if self.agreement else "MSE"
        more = {"NMSE dB": decibel}
        return Score(name, value, False, sums / each, counts, relative / each, variation, more, self.decision)


MOVES = ("between rows and frames", "between rows", "between the later frames of a row")


def moves(output: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which outputs of [N, O] or [N, T', O] differ at all; between rows at the same frame; and within the later half of a row: bool
    [O] each. A model that no longer looks at its input may still run in, alike in every row, and so is not constant.
    """

    def differ(chosen: np.ndarray, axis) -> np.ndarray:
        most = np.where(chosen, output, -np.inf).max(axis)
        return (most > np.where(chosen, output, np.inf).min(axis)).reshape(-1, output.shape[-1]).any(0)

    chosen = real[..., None]
    between = differ(chosen, 0)
    if output.ndim == 2:
        return between, between, between
    frames = np.arange(real.shape[1])
    ends = np.where(real, frames + 1, 0).max(1, keepdims=True)
    return differ(chosen, (0, 1)), between, differ(chosen & (frames >= ends // 2)[..., None], 1)


def _variances(values: np.ndarray) -> np.ndarray:
    """[K, O] -> [O]: of each output about its mean; their power, where none varies."""
    found = values.var(axis=0)
    return found if found.any() else (values**2).mean(axis=0)


def _scales(variances: np.ndarray) -> np.ndarray:
    """What a squared error of each output is relative to."""
    most = variances.max()
    return np.maximum(variances, LEAST_VARIANCE * most) if most else np.ones_like(variances)


def judge_of(
    data: Dataset,
    base: np.ndarray,
    graph: Graph | None = None,
    task: str | None = None,
    decision: str | float | None = None,
) -> Judge:
    """The judge of models that do the same.

    base: float32 [N, O] or [N, T', O], outputs of a model that is known to work (float, or dense): what others are compared
    with, and the answers where data have no y. graph: the model's, which tells what its outputs are and how many frames they
    have. task: "labels" or "targets", in place of what follows from y, or from the graph where there is none. decision: see
    ``measure.decide``. Raises RindleError where data, outputs and these do not fit.
    """
    wanted, ending = parse_decision(decision), ending_of(graph)
    base, frames = np.asarray(base), answers.output_lengths(data, graph)
    found = answers.answers_of(data, base, frames, ending, task)
    real = answers.answers_of(replace(data, y=None), base, frames, ending, found.task)
    at = real.at(base)
    if found.task == TARGETS:
        if wanted is not None:
            raise RindleError(
                f"{data.name}: the decision {wanted!r} is of labels; these outputs are judged as values: give --task labels"
            )
        if data.y is not None:
            return Judge(TARGETS, None, found, real, base, False)
        both = decide(at, False, ending) if task is None and ending == "sigmoid" else None
        return Judge(TARGETS, both, replace(found, y=at), real, base, True)
    chosen = decide(at, found.several, ending, wanted)
    if data.y is None:
        found = replace(found, y=chosen.labels(at), known=None if found.several else np.ones(at.shape, bool))
    return Judge(LABELS, chosen, found, real, base, data.y is None)


def task_of(data: Dataset, outputs: int, task: str | None = None) -> str:
    """ "labels" or "targets": what data hold; without y as asked, or labels where there are several outputs."""
    return answers.task_of(data, outputs, None, task)


def score(
    output: np.ndarray,
    data: Dataset,
    reference: np.ndarray | None = None,
    task: str | None = None,
    decision: str | float | None = None,
    graph: Graph | None = None,
) -> Score:
    """output: float32 [N, O] or [N, T', O], as ``Model.run`` gives. reference: another model's, needed where data have no y.
    task, decision, graph: as of :func:`judge_of`.
    """
    output = np.asarray(output)
    answers.check_fits(output, data, answers.output_lengths(data, graph))
    if data.y is None and reference is None:
        raise RindleError(f"{data.name} has no y; give labels or targets, or a reference model to agree with")
    return judge_of(data, output if reference is None else reference, graph, task, decision).score(output)


def drift(output: np.ndarray, base: np.ndarray, data: Dataset, task: str) -> float:
    """How far outputs have moved from those of another model: :meth:`Judge.drift`."""
    return judge_of(replace(data, y=None), base, task=task).drift(output)


def probabilities(output: np.ndarray) -> np.ndarray:
    """Softmax of scores [..., O]; one score is that of label 1, against 0 for label 0."""
    output = np.asarray(output, np.float64)
    output = np.concatenate([np.zeros_like(output), output], -1) if output.shape[-1] == 1 else output
    return Decision(None, False, "").chances(output)


def decisions(output: np.ndarray) -> np.ndarray:
    """The label of the highest score, the first among equals; of one score whether it is above 0: int64 [...]."""
    output = np.asarray(output)
    return Decision(0.0, False, "").labels(output)[..., 0] if output.shape[-1] == 1 else output.argmax(-1)
