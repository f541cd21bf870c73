"""Sequences in a file, with or without what they should give. ``.npz``: x, and if there are any lengths and y. ``.npy``: x.

x        float32 [N, T, I] (or [T, I]: one sequence), or integer ids [N, T]
lengths  integers [N], the real frames of each row, 1..T; without it every row has T
y        labels: integers (or bool) [N], or [N, T], one per frame; several labels, a yes (1) or a no (0) for each output: [N, O] or
         [N, T, O]; -1 is no label.  targets: floats [N, O] or [N, T, O]; floats of 0 and 1 alone are labels
mask     bool [N] or [N, T]: the rows or frames of y that count; without it all do

Of a model whose windows change the number of frames, y and mask have those of its output. What stands past a row's length is
padding: it is never read, checked or counted.
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

PARTS = ("x", "lengths", "y", "mask")
NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class Dataset:
    """x: float32 [N, T, I] or int64 ids [N, T]. lengths: int32 [N]. y: None, int64 [N], [N, T], [N, O] or [N, T, O], or float32
    [N, O] or [N, T, O]. mask: None, or bool [N] or [N, T]. name: for messages. Make one with :func:`dataset` or
    :func:`load_data`, which check it.
    """

    x: np.ndarray
    lengths: np.ndarray
    y: np.ndarray | None = None
    name: str = "the data"
    mask: np.ndarray | None = None

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
        for one in (self.y, self.mask):
            if one is not None:
                one = one[self.real] if one.shape[:2] == self.real.shape else one
                digest.update(repr((one.shape, one.dtype.str)).encode() + np.ascontiguousarray(one).tobytes())
        return digest.hexdigest()

    @property
    def per_frame(self) -> bool:
        """Whether y has a value for every frame, not one for the row. (Labels [N, O] of a model of T outputs look alike.)"""
        if self.y is None:
            return False
        return self.y.ndim == 3 or (self.has_labels and self.y.shape == self.x.shape[:2])

    @property
    def yes_or_no(self) -> bool:
        """Whether y holds floats that are 0 and 1 alone, and both: labels in the form that losses take."""
        if self.y is None or self.has_labels:
            return False
        counted = self.y[self.real] if self.y.shape[:2] == self.real.shape else self.y
        return bool(((counted == 0) | (counted == 1)).all() and 0 < counted.mean() < 1)

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
        y, mask = (None if one is None else one[chosen] for one in (self.y, self.mask))
        return replace(self, x=self.x[chosen], lengths=self.lengths[chosen], y=y, mask=mask)

    def batches(self, rows: int = 64):
        """(x [B, T, …], indices [B]) of equal length T, which need no padding; at most ``rows`` rows each."""
        for length in np.unique(self.lengths):
            same = np.flatnonzero(self.lengths == length)
            for start in range(0, len(same), rows):
                chosen = same[start : start + rows]
                yield self.x[chosen, :length], chosen

    def save(self, path: str | Path) -> None:
        """Writes an ``.npz`` that :func:`load_data` reads; whole or not at all."""
        parts = {key: one for key in PARTS if (one := getattr(self, key)) is not None}
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


def dataset(x: np.ndarray, lengths=None, y=None, name: str = "the data", mask=None) -> Dataset:
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
    found = found if mask is None else replace(found, mask=_mask(np.asarray(mask), found, name))
    return found if y is None else replace(found, y=_answers(np.asarray(y), found, name))


def _mask(mask: np.ndarray, data: Dataset, name: str) -> np.ndarray:
    if mask.dtype != bool or mask.ndim not in (1, 2) or mask.shape[:1] != data.x.shape[:1] or 0 in mask.shape:
        rows, time = data.x.shape[:2]
        raise RindleError(
            f"{name}: mask is {mask.dtype} {list(mask.shape)}; it must be bool [{rows}] or [{rows}, {time}]"
        )
    if not (mask & data.real if mask.shape == data.real.shape else mask).any():
        raise RindleError(f"{name}: the mask leaves nothing to count")
    return mask


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
    labels, targets = y.dtype.kind in "iub", y.dtype.kind == "f"
    if not (y.ndim in ((1, 2, 3) if labels else (2, 3) if targets else ()) and len(y) == rows and 0 not in y.shape):
        raise RindleError(
            f"{name}: y is {y.dtype} {list(y.shape)}; for {rows} rows of {time} frames it must be integer labels [{rows}] or "
            f"[{rows}, {time}] (several labels: [{rows}, O] or [{rows}, {time}, O]), or float targets [{rows}, O] or "
            f"[{rows}, {time}, O]"
        )
    y = y.astype(np.int64 if labels else np.float32)
    by_frame = y.shape[:2] == (rows, time) and y.ndim >= (2 if labels else 3)
    counted = y[data.real] if by_frame else y
    if data.mask is not None and data.mask.shape == y.shape[: data.mask.ndim]:
        counted = y[data.mask & data.real] if by_frame and data.mask.ndim == 2 else y[data.mask]
    if labels:
        if counted.min() < NO_LABEL:
            raise RindleError(f"{name}: y holds the label {counted.min()}; labels are 0 or more, and -1 is no label")
        if (counted == NO_LABEL).all():
            raise RindleError(f"{name}: y holds no label, only -1")
    elif not np.isfinite(counted).all():
        raise RindleError(f"{name}: y holds NaN or infinity; give finite targets, or a mask of what counts")
    return y
