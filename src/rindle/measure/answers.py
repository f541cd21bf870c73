"""What data say should come out of a model, brought into one form for every kind of y, and where it counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import RindleError
from ..file.dataset import NO_LABEL, Dataset
from ..program.graph import Graph

LABELS, TARGETS = TASKS = ("labels", "targets")


@dataclass(frozen=True, eq=False)
class Answers:
    """What counts, in one list of K places: rows, or frames of rows.

    task: "labels" or "targets". several: one of several outputs is the label; else each output has a yes or a no. counted: bool
    [N] or [N, T']. rows: int64 [K], the row of each place. y: int64 [K] labels, int64 [K, O] of 0 and 1, float64 [K, O]
    targets, or None without answers. known: bool [K, O], which yes or no is given.
    """

    name: str
    task: str
    several: bool
    counted: np.ndarray
    rows: np.ndarray
    y: np.ndarray | None
    known: np.ndarray | None = None

    @property
    def per_frame(self) -> bool:
        return self.counted.ndim == 2

    def at(self, output: np.ndarray) -> np.ndarray:
        """float64 [K, O]: outputs [N, O] or [N, T', O] at what counts. RindleError for another shape, NaN or infinity."""
        output = np.asarray(output)
        if output.shape[:-1] != self.counted.shape:
            raise RindleError(
                f"{self.name}: the reference gives {[*self.counted.shape, '…']}, the model {list(output.shape)}: they do not do the same"
            )
        return output[self.counted].astype(np.float64)


def per_row(answers: Answers, values: np.ndarray) -> np.ndarray:
    """[K] -> [N]: sums over what counts of each row."""
    total = np.bincount(answers.rows, values, minlength=len(answers.counted))
    return total.astype(np.int64) if values.dtype.kind == "i" else total


def output_lengths(data: Dataset, graph: Graph | None) -> np.ndarray:
    """int64 [N]: real frames of each row's output."""
    if graph is None or not graph.is_sequence(graph.output):
        return data.lengths.astype(np.int64)
    unique, where = np.unique(data.lengths, return_inverse=True)
    return np.array([graph.frames(graph.output, int(length)) for length in unique])[where]


def task_of(data: Dataset, outputs: int, ending: str | None = None, task: str | None = None) -> str:
    """What data hold; without y as asked, or what the model's ending tells: one of several outputs is a label, unless they are
    values of a sigmoid, a state and the like.
    """
    if task not in (None, *TASKS):
        raise RindleError(f"unknown task {task!r}; there are {', '.join(TASKS)}")
    if data.y is None:
        labels = outputs > 1 and ending in (None, "scores", "softmax")
        return task or (LABELS if labels else TARGETS)
    if data.has_labels:
        if task == TARGETS:
            raise RindleError(f"{data.name}: y holds labels, so the task cannot be 'targets'")
        return LABELS
    yes_or_no = data.yes_or_no
    if task == LABELS and not yes_or_no:
        raise RindleError(f"{data.name}: y holds targets, so the task cannot be 'labels'")
    return task or (LABELS if yes_or_no else TARGETS)


def check_fits(output: np.ndarray, data: Dataset, lengths: np.ndarray) -> None:
    """RindleError unless an output is one of these rows, per frame or per row."""
    shape = output.shape
    fits = output.ndim in (2, 3) and shape[0] == len(data) and (output.ndim == 2 or shape[1] >= lengths.max())
    same_frames = output.ndim == 2 or np.array_equal(lengths, data.lengths) <= (shape[1] == data.x.shape[1])
    if not (fits and same_frames):
        raise RindleError(
            f"{data.name}: outputs {list(shape)} do not fit x {list(data.x.shape)}; they must be [N, O] or [N, T, O]"
        )


def answers_of(data: Dataset, output: np.ndarray, lengths: np.ndarray, ending: str | None, task: str | None) -> Answers:
    """Of outputs like this one. RindleError unless y fits them."""
    check_fits(output, data, lengths)
    size, places = output.shape[-1], output.shape[:-1]
    task = task_of(data, size, ending, task)
    real = np.ones(places, bool) if output.ndim == 2 else np.arange(places[1]) < lengths[:, None]
    real &= _mask(data, places)
    if data.y is None:
        return Answers(data.name, task, task == LABELS and size > 1, real, np.nonzero(real)[0], None)
    y, several = _shaped(data, output, task, ending)
    if task == TARGETS:
        return Answers(data.name, task, False, real, np.nonzero(real)[0], y[real].astype(np.float64))
    known = y != NO_LABEL
    real &= known if several else known.any(-1)
    if not real.any():
        raise RindleError(f"{data.name}: y holds no label within the rows' lengths and the mask")
    most, tells = int(y[real].max()), size if several else 2
    if most >= tells:
        raise RindleError(
            f"{data.name}: y holds the label {most}, but the model tells only {tells} apart: 0..{tells - 1}"
        )
    rows, y, known = np.nonzero(real)[0], y[real].astype(np.int64), known[real]
    return Answers(
        data.name, task, several, real, rows, y if several else np.where(known, y, 0), None if several else known
    )


def _shaped(data: Dataset, output: np.ndarray, task: str, ending: str | None) -> tuple[np.ndarray, bool]:
    """y as [N] or [N, T'] labels of several outputs, or as [N, O] or [N, T', O] of yes and no, or of targets; and which."""
    y, places = data.y, output.shape[:-1]
    if y.shape == output.shape and (data.has_labels or task == LABELS):
        one_hot = y.shape[-1] > 1 and not data.has_labels and ending != "sigmoid" and (y.sum(-1) == 1).all()
        return (y.argmax(-1), True) if one_hot else (y, False)
    if data.has_labels and y.shape == places:
        return (y, True) if output.shape[-1] > 1 else (y[..., None], False)
    per_frame = output.ndim == 3
    if data.per_frame != per_frame and y.shape != output.shape:
        has, gives = ("one per row", "a value per frame") if per_frame else ("a value per frame", "one per row")
        raise RindleError(
            f"{data.name}: y has {has}, but the model gives {gives}: y is {list(y.shape)}, the output {list(output.shape)}"
        )
    if y.shape != output.shape:
        what = f"has {y.shape[-1]} values each" if y.shape[:-1] == places else f"is {list(y.shape)}"
        raise RindleError(f"{data.name}: y {what}, but the model gives {output.shape[-1]} for each of {list(places)}")
    return y, False


def _mask(data: Dataset, places: tuple[int, ...]) -> np.ndarray:
    if data.mask is None:
        return np.ones(places, bool)
    if data.mask.shape == places:
        return data.mask
    if len(places) == 2 and data.mask.shape == places[:1]:
        return np.broadcast_to(data.mask[:, None], places)
    raise RindleError(
        f"{data.name}: the mask is {list(data.mask.shape)}; of outputs like these it must be {list(places)}"
    )
