"""What a model reads, and the one check of what callers give: whole rows and single frames, features and ids, for every engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import RindleError
from ..numbers.formats import Format


class Rows(NamedTuple):
    """batch: float32 or int16 [B, T, I], or int32 ids [B, T]. lengths: real frames of each row, int32 [B]; None: all of them. one: it
    was given without B.
    """

    batch: np.ndarray
    lengths: np.ndarray | None
    one: bool

    @property
    def frames(self) -> np.ndarray:
        """Real frames of each row, int [B]."""
        return np.full(len(self.batch), self.batch.shape[1]) if self.lengths is None else self.lengths

    def as_given(self, y: np.ndarray) -> np.ndarray:
        """Outputs with B where the inputs had it."""
        return y[0] if self.one else y


def check_array(name: str, array, dtypes: tuple, shapes: tuple[tuple, ...]) -> None:
    """Raises RindleError unless it is an array of one of these dtypes and shapes, in which a letter stands for any size."""
    wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
    wanted += " " + " or ".join(f"[{', '.join(map(str, shape))}]" for shape in shapes)
    if not isinstance(array, np.ndarray):
        raise RindleError(f"{name} is a {type(array).__name__}; it must be a NumPy array of {wanted}")
    fits = any(
        array.ndim == len(shape) and all(isinstance(n, str) or n == m for n, m in zip(shape, array.shape))
        for shape in shapes
    )
    if array.dtype not in dtypes or not fits:
        remedy = f": {name}.astype(np.{np.dtype(dtypes[0]).name})" if fits else ""
        raise RindleError(f"{name} is {array.dtype} {list(array.shape)}; it must be {wanted}{remedy}")


@dataclass(frozen=True)
class Inputs:
    """size: features of a frame, I. vocabulary: V, where a frame is one id 0..V-1; else 0. format: of the codes; None for ids."""

    size: int
    vocabulary: int
    format: Format | None

    def rows(self, x, dtype, lengths) -> Rows:
        """Whole rows of values of the dtype (or of ids, int32 or int64), checked but for the values, which the core checks: only an id
        that int32 cannot hold is refused here.
        """
        kinds = (np.int32, np.int64) if self.vocabulary else (dtype,)
        frame = () if self.vocabulary else (self.size,)
        check_array("x", x, kinds, (("T", *frame), ("B", "T", *frame)))
        one = x.ndim == 1 + len(frame)
        batch = np.ascontiguousarray(x[None] if one else x)
        if 0 in batch.shape:
            raise RindleError(
                f"x has shape {list(x.shape)}; a sequence has at least one frame, a batch at least one row"
            )
        if lengths is not None:
            lengths = _checked_lengths(lengths, *batch.shape[:2])
        rows = Rows(batch, lengths, one)
        if batch.dtype == np.int64:
            self.check_values(rows)
            rows = rows._replace(batch=batch.astype(np.int32))
        return rows

    def check_values(self, rows: Rows) -> None:
        """What the core refuses in real frames, in its words: NaN and infinity, a code or an id out of range."""
        batch = rows.batch
        if self.vocabulary:
            wrong, what, range_ = (
                (batch < 0) | (batch >= self.vocabulary),
                "the id ",
                f"must be 0..{self.vocabulary - 1}",
            )
        elif batch.dtype.kind == "f":
            wrong, what, range_ = ~np.isfinite(batch), "", "inputs must be finite"
        else:
            lo, hi = self.format.lo, self.format.hi
            wrong, what, range_ = (batch < lo) | (batch > hi), "the code ", f"must be {lo}..{hi}"
        real = np.arange(batch.shape[1]) < rows.frames[:, None]
        found = np.argwhere(wrong & (real if self.vocabulary else real[..., None]))
        if len(found):
            at = tuple(map(int, found[0]))
            place = ", ".join(f"{name} {i}" for name, i in zip(("row", "frame", "feature"), at))
            separator = ": " if batch.dtype.kind == "f" else ", "
            place += "," if self.vocabulary else ""
            raise RindleError(f"input {place} is {what}{batch[at]}{separator}{range_}")

    def id(self, x) -> int:
        """An integer of Python or NumPy as the core takes it; a bool is none."""
        if type(x) is not int and not (
            isinstance(x, (np.ndarray, np.integer)) and x.dtype.kind in "iu" and x.size == 1
        ):
            found = f"{x.dtype} {list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
            raise RindleError(f"x is {found}; this model reads one id per frame, an integer")
        number = x if type(x) is int else int(x.reshape(-1)[0])
        if not 0 <= number < self.vocabulary:
            raise RindleError(f"x is the id {number}; this model knows 0..{self.vocabulary - 1}")
        return number

    def check_frame(self, x, out, dtype, out_size: int) -> None:
        """Why the binding did not take a frame and its output, where it is their kind, shape or layout."""
        for name, array, size in ((("x", x, self.size),) if not self.vocabulary else ()) + (("out", out, out_size),):
            check_array(name, array, (dtype,), ((size,),))
            if not array.flags.c_contiguous or (name == "out" and not array.flags.writeable):
                raise RindleError(f"{name} must be contiguous{' and writable' if name == 'out' else ''}")


def _checked_lengths(lengths, batch: int, time: int) -> np.ndarray:
    rows = np.asarray(lengths)
    if rows.shape != (batch,) or rows.dtype.kind not in "iu":
        raise RindleError(
            f"lengths is {rows.dtype} {list(rows.shape)}; it must be integers, one for each of the {batch} rows"
        )
    if rows.min() < 1 or rows.max() > time:
        wrong = int(np.flatnonzero((rows < 1) | (rows > time))[0])
        raise RindleError(f"lengths[{wrong}] is {rows[wrong]}; it must be 1..{time}")
    return np.ascontiguousarray(rows, np.int32)
