"""Calibration data: checked batches, and their rows side by side, of whatever lengths, as one run over time.

A frame of one row costs the interpreter nearly as much as a frame of many. As ``graph.execute`` takes them, the rows of a
group are sorted by falling length, and each is computed as it would be alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ...errors import RindleError
from ...program.graph import Graph

ROWS = 64  # with more, a frame's products and not the interpreter are what takes time
ELEMENTS = 2**25  # float64 values that one run may keep, 256 MiB: as much as the libraries themselves take


def batches(calibration, batch_first: bool) -> Iterable[np.ndarray]:
    """Checked calibration batches, [B, T, I] float32 (of images with more dimensions), or ids [B, T] int64. calibration: one tensor or array, or an iterable
    of them; a (sequences, targets) pair of a data loader counts as its first part.
    """
    if isinstance(calibration, (torch.Tensor, np.ndarray)):
        calibration = [calibration]
    empty = True
    for number, batch in enumerate(calibration):
        if isinstance(batch, (tuple, list)) and batch:
            batch = batch[0]
        array = batch.detach().cpu().numpy() if isinstance(batch, torch.Tensor) else np.asarray(batch)
        ids = array.ndim == 2 and array.dtype.kind in "iu"
        if (array.ndim < 3 and not ids) or 0 in array.shape:
            raise RindleError(
                f"calibration batch {number} has shape {array.shape}; give three dimensions, none of them 0 (or two of "
                f"integers, for ids; or more, for images)"
            )
        if ids:
            empty = False
            yield np.ascontiguousarray(array if batch_first else array.T, dtype=np.int64)
            continue
        if array.dtype.kind not in "fiu":
            raise RindleError(f"calibration batch {number} has dtype {array.dtype}; give real numbers")
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array if batch_first else array.swapaxes(0, 1), dtype=np.float32)
        if not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise RindleError(
                f"calibration batch {number} holds a value that is not a finite float32, at [row, frame, feature] = {list(where)}"
            )
        empty = False
        yield array
    if empty:
        raise RindleError("the calibration data are empty; give at least one sequence")


def readable(graph: Graph, calibration, batch_first: bool) -> Iterator[np.ndarray]:
    """``batches`` that the graph can read, images as features."""
    for number, batch in enumerate(batches(calibration, batch_first)):
        batch = batch.reshape(*batch.shape[:2], -1) if batch.ndim > 3 else batch
        _check_batch(graph, batch, number)
        yield batch


def _check_batch(graph: Graph, batch: np.ndarray, number: int) -> None:
    if (batch.ndim == 2) != (graph.vocabulary > 0):
        kinds = "ids, integers [B, T]", "sequences of features, [B, T, I]"
        found, wanted = kinds if batch.ndim == 2 else kinds[::-1]
        raise RindleError(f"calibration batch {number} holds {found}; the model takes {wanted}")
    if graph.vocabulary and (batch.min() < 0 or batch.max() >= graph.vocabulary):
        worst = batch.min() if batch.min() < 0 else batch.max()
        raise RindleError(f"calibration batch {number} holds the id {worst}; the model knows 0..{graph.vocabulary - 1}")
    if not graph.vocabulary and batch.shape[2] != graph.input_size:
        raise RindleError(f"the calibration data have {batch.shape[2]} features; the model takes {graph.input_size}")


@dataclass(frozen=True)
class Group:
    """Some batches. places: number of a batch -> int [B], where its rows stand among the sorted ones. frames: as ``pack``."""

    batches: dict[int, np.ndarray]
    places: dict[int, np.ndarray]
    frames: list[torch.Tensor]

    def part(self, output, number: int) -> torch.Tensor:
        """One batch's part of a value: of frames, [rows still running, n] each, [B, T', n]; of [rows, n], [B, n]."""
        places = torch.from_numpy(self.places[number])
        if not isinstance(output, list):
            return output[places]
        return torch.stack([frame[places] for frame in output if len(frame) > places.max()], 1)


def groups(batches: Iterable[np.ndarray], width: int) -> Iterator[Group]:
    """Neighbouring batches together, within ROWS and ELEMENTS; one that is larger is a group of its own.

    batches: [B, T, I] float32 or ids [B, T]. width: elements that a run keeps of every row and frame, see ``kept``.
    """
    waiting: dict[int, np.ndarray] = {}
    rows = frames = 0
    for number, batch in enumerate(batches):
        more, longer = len(batch), len(batch) * batch.shape[1]
        if waiting and (rows + more > ROWS or (frames + longer) * width > ELEMENTS):
            yield _group(waiting)
            waiting, rows, frames = {}, 0, 0
        waiting[number] = batch
        rows, frames = rows + more, frames + longer
    if waiting:
        yield _group(waiting)


def _group(batches: dict[int, np.ndarray]) -> Group:
    rows = [row for batch in batches.values() for row in batch]
    place = np.argsort(_order(rows))
    ends = np.cumsum([len(batch) for batch in batches.values()])
    return Group(batches, dict(zip(batches, np.split(place, ends[:-1]))), pack(rows))


def pack(rows: list[np.ndarray]) -> list[torch.Tensor]:
    """Rows [T, I] or [T] as frames [rows still running, I] or [rows still running], the longest row first."""
    rows = [rows[k] for k in _order(rows)]
    return [torch.from_numpy(np.stack([row[t] for row in rows if len(row) > t])) for t in range(len(rows[0]))]


def _order(rows: list[np.ndarray]) -> np.ndarray:
    return np.argsort([-len(row) for row in rows], kind="stable")


def row_of(frames: list[torch.Tensor]) -> torch.Tensor:
    """Of all frames one after the other, whose they are: int64 [Σ rows still running]."""
    return torch.cat([torch.arange(len(frame)) for frame in frames])


def by_row(frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """Frames [rows still running, n] as rows [T, n], in their order."""
    rows = row_of(frames)
    return list(torch.cat(frames)[rows.argsort(stable=True)].split(rows.bincount().tolist()))


def kept(graph: Graph) -> int:
    """Elements that a recorded run keeps of every row and frame: what every operation makes, and every node."""
    made = [
        node.layer.program.sizes[path] for node in graph.programs for op in node.layer.program.ops for path in op.out
    ]
    return sum(made) + sum(graph.size_of(node.name) for node in graph.nodes)
