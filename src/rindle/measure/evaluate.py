"""How good a model's outputs are on data. What is counted follows from the type of the targets; padding never counts.

labels   -> accuracy: of rows [N], or of frames [N, T]. One output is a score for label 1 against 0, several are one per label.
targets  -> MSE, and NMSE in dB.
none     -> agreement with a reference: its decisions are the labels, or its outputs the targets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import RindleError
from ..file.dataset import NO_LABEL, Dataset

TASKS = ("labels", "targets")


@dataclass(frozen=True, eq=False)
class Score:
    """value: what ``metric`` says, over all that counts; a share for accuracy, raw for MSE.

    items: float64 [N], each row's own value, and counts: int64 [N], how much it counts (labels or target values). soft:
    float64 [N], each row's smooth value: the mean probability of the true label (softmax of the outputs), or the MSE.
    energy: mean square of the targets, else None. more: further numbers for people.
    """

    metric: str
    value: float
    higher_is_better: bool
    items: np.ndarray
    counts: np.ndarray
    soft: np.ndarray
    energy: float | None
    more: dict[str, float]

    def __str__(self) -> str:
        if self.higher_is_better:
            return f"{self.value:.2%}"
        return f"{self.value:.4g} ({self.more['NMSE dB']:.2f} dB)"

    def lost(self, base: Score) -> float:
        """How much worse than ``base``, in points: percentage points of accuracy, or per cent of the base's MSE (of the
        targets' energy where the base has no error at all). Negative: better.
        """
        return self._points(self._worse(base.value, self.value), base)

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
        return self._points(mean, base), self._points(error, base)

    def _worse(self, base, found):
        return base - found if self.higher_is_better else found - base

    def _points(self, worse: float, base: Score) -> float:
        whole = 1.0 if self.higher_is_better else base.value or self.energy
        return 100.0 * worse / whole if whole else (0.0 if worse == 0 else np.inf)


def task_of(data: Dataset, outputs: int, task: str | None = None) -> str:
    """ "labels" or "targets": what data hold; without y as asked, or labels where there are several outputs."""
    if task not in (None, *TASKS):
        raise RindleError(f"unknown task {task!r}; there are {', '.join(TASKS)}")
    if data.y is None:
        return task or ("labels" if outputs > 1 else "targets")
    found = "labels" if data.has_labels else "targets"
    if task not in (None, found):
        raise RindleError(f"{data.name}: y holds {found}, so the task cannot be {task!r}")
    return found


def score(output: np.ndarray, data: Dataset, reference: np.ndarray | None = None, task: str | None = None) -> Score:
    """output: float32 [N, O] or [N, T, O], as ``Model.run`` gives. reference: another model's, needed where data have no y."""
    output = np.asarray(output)
    if output.ndim not in (2, 3) or output.shape[: output.ndim - 1] != data.x.shape[: output.ndim - 1]:
        raise RindleError(
            f"{data.name}: outputs {list(output.shape)} do not fit x {list(data.x.shape)}; they must be [N, O] or [N, T, O]"
        )
    chosen = task_of(data, output.shape[-1], task)
    agreement = data.y is None
    if agreement:
        if reference is None:
            raise RindleError(f"{data.name} has no y; give labels or targets, or a reference model to agree with")
        data = _answered_by(np.asarray(reference), output, data, chosen)
    counted = _counted(output, data)
    found = (_accuracy if chosen == "labels" else _mse)(output.astype(np.float64), data, counted)
    if not agreement:
        return found
    name = "agreement" if chosen == "labels" else "MSE to reference"
    return replace(found, metric=name, more={key: one for key, one in found.more.items() if key != "cross-entropy"})


def drift(output: np.ndarray, base: np.ndarray, data: Dataset, task: str) -> float:
    """How far outputs have moved from those of another model, 0 for equal ones: smooth, and blind to y.

    labels: mean total variation distance of the two distributions (softmax), 0..1. targets: energy of the difference over
    that of the base. Over real frames.
    """
    output, base = np.asarray(output, np.float64), np.asarray(base, np.float64)
    if output.ndim == 3:
        output, base = output[data.real], base[data.real]
    if task == "labels":
        return float(np.abs(probabilities(output) - probabilities(base)).sum(-1).mean() / 2)
    energy = float((base**2).sum())
    return float(((output - base) ** 2).sum()) / energy if energy else float((output != base).any())


def probabilities(output: np.ndarray) -> np.ndarray:
    """Softmax of scores [..., O]; one score is that of label 1, against 0 for label 0."""
    output = _scores(np.asarray(output, np.float64))
    powers = np.exp(output - output.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def decisions(output: np.ndarray) -> np.ndarray:
    """The label of the highest score: int64 [...]; of the first among equals."""
    return _scores(np.asarray(output)).argmax(-1)


def _scores(output: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(output), output], -1) if output.shape[-1] == 1 else output


def _answered_by(reference: np.ndarray, output: np.ndarray, data: Dataset, task: str) -> Dataset:
    if reference.shape != output.shape:
        raise RindleError(
            f"the reference gives {list(reference.shape)}, the model {list(output.shape)}: they do not do the same"
        )
    return replace(data, y=decisions(reference) if task == "labels" else reference.astype(np.float32))


def _counted(output: np.ndarray, data: Dataset) -> np.ndarray:
    """bool, over the rows or frames: which of them count. RindleError unless y fits the outputs."""
    per_frame, labels, size = output.ndim == 3, data.has_labels, output.shape[-1]
    if per_frame != data.per_frame:
        has, gives = ("a value per frame", "one per row")[:: 1 if data.per_frame else -1]
        raise RindleError(
            f"{data.name}: y has {has}, but the model gives {gives}: y is {list(data.y.shape)}, the output {list(output.shape)}"
        )
    real = data.real if per_frame else np.ones(len(data), bool)
    if not labels:
        if data.y.shape[-1] != size:
            raise RindleError(f"{data.name}: y has {data.y.shape[-1]} values each, but the model gives {size}")
        return real
    counted = real & (data.y != NO_LABEL)
    top, known = int(data.y[counted].max()), max(size, 2)
    if top >= known:
        raise RindleError(
            f"{data.name}: y holds the label {top}, but the model tells only {known} apart: 0..{known - 1}"
        )
    return counted


def _accuracy(output: np.ndarray, data: Dataset, counted: np.ndarray) -> Score:
    labels = np.where(counted, data.y, 0)
    right = (decisions(output) == labels) & counted
    true = np.where(counted, np.take_along_axis(probabilities(output), labels[..., None], -1)[..., 0], 0.0)
    counts, items, soft = (_per_row(array) for array in (counted, right, true))
    nats = -np.log(np.maximum(true[counted], np.finfo(np.float64).tiny)).mean()
    name = "accuracy" if counted.ndim == 1 else "frame accuracy"
    each = np.maximum(counts, 1)
    value = float(items.sum() / counts.sum())
    return Score(name, value, True, items / each, counts, soft / each, None, {"cross-entropy": float(nats)})


def _mse(output: np.ndarray, data: Dataset, counted: np.ndarray) -> Score:
    target = np.where(counted[..., None], data.y.astype(np.float64), 0.0)
    squared = ((np.where(counted[..., None], output, 0.0) - target) ** 2).sum(-1)
    counts = _per_row(counted) * output.shape[-1]
    items = _per_row(squared) / counts
    value, energy = float(squared.sum() / counts.sum()), float((target**2).sum() / counts.sum())
    ratio = value / energy if energy else np.inf
    decibel = float(10 * np.log10(ratio)) if ratio > 0 else -np.inf
    return Score("MSE", value, False, items, counts, items, energy, {"NMSE dB": decibel})


def _per_row(array: np.ndarray) -> np.ndarray:
    total = array if array.ndim == 1 else array.sum(1)
    return total.astype(np.int64 if array.dtype == bool else np.float64)
