"""Sequences in a file, with or without what they should give. ``.npz``: x, and if there are any lengths and y. ``.npy``: x.

x        float32 [N, T, I] (or [T, I]: one sequence), or integer ids [N, T]
lengths  integers [N], the real frames of each row, 1..T; without it every row has T
y        labels: integers [N], or [N, T], one per frame; -1 is no label.  targets: floats [N, O] or [N, T, O]

What stands past a row's length is padding: it is never read, checked or counted.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import RindleError
from ..files import write_file

PARTS = ("x", "lengths", "y")
NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class Dataset:
    """x: float32 [N, T, I] or int64 ids [N, T]. lengths: int32 [N]. y: None, int64 [N] or [N, T], or float32 [N, O] or
    [N, T, O]. name: for messages. Make one with :func:`dataset` or :func:`load_data`, which check it.
    """

    x: np.ndarray
    lengths: np.ndarray
    y: np.ndarray | None = None
    name: str = "the data"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def frames(self) -> int:
        """Real frames of all rows."""
        return int(self.lengths.sum())

    @property
    def has_ids(self) -> bool:
        """Whether x holds the ids of an embedding, not features."""
        return self.x.ndim == 2

    @property
    def has_labels(self) -> bool:
        return self.y is not None and self.y.dtype.kind == "i"

    @property
    def real(self) -> np.ndarray:
        """bool [N, T]: frames within a row's length."""
        return np.arange(self.x.shape[1]) < self.lengths[:, None]

    @cached_property
    def sha256(self) -> str:
        """Of what is read: padding does not count."""
        digest = hashlib.sha256(repr((self.x.shape, self.x.dtype.str)).encode())
        digest.update(self.lengths.astype("<i8").tobytes())
        digest.update(np.ascontiguousarray(self.x[self.real]).tobytes())
        if self.y is not None:
            y = self.y[self.real] if self.per_frame else self.y
            digest.update(repr((y.shape, y.dtype.str)).encode() + np.ascontiguousarray(y).tobytes())
        return digest.hexdigest()

    @property
    def per_frame(self) -> bool:
        """Whether y has a value for every frame, not one for the row."""
        return self.y is not None and self.y.ndim == (2 if self.has_labels else 3)

    def check_fits(self, graph) -> None:
        """RindleError unless x is what a graph reads: frames of its features, or ids of its vocabulary."""
        if graph.vocabulary and self.has_ids:
            if (most := int(self.x[self.real].max())) >= graph.vocabulary:
                raise RindleError(f"{self.name}: x holds the id {most}; the model knows 0..{graph.vocabulary - 1}")
            return
        if graph.vocabulary or self.has_ids or self.x.shape[2] != graph.input_size:
            wanted = "integer ids [N, T]" if graph.vocabulary else f"float32 [N, T, {graph.input_size}]"
            raise RindleError(f"{self.name}: x is {self.x.dtype} {list(self.x.shape)}; the model takes {wanted}")

    def rows(self, chosen) -> Dataset:
        """Some of the rows: a slice, indices or a mask [N]."""
        return replace(
            self, x=self.x[chosen], lengths=self.lengths[chosen], y=None if self.y is None else self.y[chosen]
        )

    def batches(self, rows: int = 64):
        """(x [B, T, …], indices [B]) of equal length T, which need no padding; at most ``rows`` rows each."""
        for length in np.unique(self.lengths):
            same = np.flatnonzero(self.lengths == length)
            for start in range(0, len(same), rows):
                chosen = same[start : start + rows]
                yield self.x[chosen, :length], chosen

    def save(self, path: str | Path) -> None:
        """Writes an ``.npz`` that :func:`load_data` reads; whole or not at all."""
        parts = {"x": self.x, "lengths": self.lengths} | ({} if self.y is None else {"y": self.y})
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **parts)
        try:
            write_file(path, buffer.getvalue())
        except OSError as error:
            raise RindleError(f"{path} cannot be written: {error.strerror}") from None


def load_data(path: str | Path) -> Dataset:
    """Reads and checks a ``.npz`` or ``.npy`` file. Raises RindleError, which names the array and the fault."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            parts = {"x": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RindleError(f"{path} is not a readable .npy or .npz file of plain arrays: {error}") from None
    for key in parts:
        if key not in PARTS:
            near = get_close_matches(key, PARTS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(PARTS)}"
            raise RindleError(f"{path} has an array {key!r}, which means nothing here; {hint}")
    if "x" not in parts:
        raise RindleError(f"{path} has no array 'x'; it needs one: float32 [N, T, I], or integer ids [N, T]")
    return dataset(**parts, name=str(path))


def dataset(x: np.ndarray, lengths=None, y=None, name: str = "the data") -> Dataset:
    """Checks arrays and makes a :class:`Dataset` of them. Raises RindleError for a wrong shape, dtype, length or value."""
    x = np.asarray(x)
    if x.dtype.kind in "iu" and x.ndim == 2:
        x = x.astype(np.int64)
    elif x.dtype == np.float32 and x.ndim in (2, 3):
        x = x if x.ndim == 3 else x[None]
    else:
        raise RindleError(
            f"{name}: x is {x.dtype} {list(x.shape)}; it must be float32 [N, T, I], or integer ids [N, T]"
        )
    if 0 in x.shape:
        raise RindleError(f"{name}: x has shape {list(x.shape)}; none of its dimensions may be 0")
    found = Dataset(x, _lengths(lengths, x.shape, name), name=name)
    real = x[found.real]
    if found.has_ids and real.min() < 0:
        raise RindleError(f"{name}: x holds the id {real.min()}; ids are 0 or more")
    if not found.has_ids and not np.isfinite(real).all():
        row, frame, feature = np.argwhere(~np.isfinite(x) & found.real[..., None])[0]
        raise RindleError(f"{name}: x[{row}, {frame}, {feature}] is {x[row, frame, feature]}; give finite values")
    return found if y is None else replace(found, y=_answers(np.asarray(y), found, name))


def _lengths(lengths, shape: tuple, name: str) -> np.ndarray:
    if lengths is None:
        return np.full(shape[0], shape[1], np.int32)
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu" or lengths.shape != shape[:1]:
        raise RindleError(
            f"{name}: lengths is {lengths.dtype} {list(lengths.shape)}; it must be integers, one for each of the {shape[0]} rows"
        )
    wrong = np.flatnonzero((lengths < 1) | (lengths > shape[1]))
    if len(wrong):
        raise RindleError(f"{name}: lengths[{wrong[0]}] is {lengths[wrong[0]]}; it must be 1..{shape[1]}")
    return lengths.astype(np.int32)


def _answers(y: np.ndarray, data: Dataset, name: str) -> np.ndarray:
    rows, time = data.x.shape[:2]
    labels, targets = y.dtype.kind in "iu", y.dtype.kind == "f"
    fits = (labels and y.shape in ((rows,), (rows, time))) or (
        targets and y.ndim in (2, 3) and y.shape[: y.ndim - 1] == (rows, time)[: y.ndim - 1] and y.shape[-1] > 0
    )
    if not fits:
        raise RindleError(
            f"{name}: y is {y.dtype} {list(y.shape)}; for {rows} rows of {time} frames it must be integer labels [{rows}] or "
            f"[{rows}, {time}], or float targets [{rows}, O] or [{rows}, {time}, O]"
        )
    y = y.astype(np.int64 if labels else np.float32)
    counted = y[data.real] if y.ndim == (2 if labels else 3) else y
    if labels:
        if counted.min() < NO_LABEL:
            raise RindleError(f"{name}: y holds the label {counted.min()}; labels are 0 or more, and -1 is no label")
        if (counted == NO_LABEL).all():
            raise RindleError(f"{name}: y holds no label, only -1")
    elif not np.isfinite(counted).all():
        raise RindleError(f"{name}: y holds NaN or infinity; give finite targets")
    return y
