"""Stream: one running copy of a model's states, frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from ..errors import RindleError
from ..numbers.formats import decode, encode_counted
from .measurement import Measurement, measured_inputs

if TYPE_CHECKING:
    from .model import Model

STATE_HEADER = 8 + 32 + 4  # of a saved state: magic, id, count


class Stream:
    """One running copy of a model's states: frames in, one by one, outputs out. From ``Model.stream()``.

    Cheap, and independent of other streams. It belongs to one thread at a time: a second one is refused (RuntimeError).
    """

    def __init__(self, model: Model):
        self.model = model
        self._core = _core.Stream(model._named_core)
        self._step = self._core.step
        self._size = model.output_size
        self._inputs = model._inputs
        self._vocabulary = model.vocabulary
        self._clipped: dict[tuple[str, str], int] = {}  # (node, state) -> elements of given states beyond their format

    def __copy__(self):
        raise RindleError(
            "a Stream is one running copy; for another make model.stream() and restore(stream.save()) into it"
        )

    def __deepcopy__(self, memo):
        return self.__copy__()

    def __reduce__(self):
        raise RindleError("a Stream is not pickled; keep stream.save(), and restore it into model.stream()")

    def step(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """One frame. x: float32 [I], or an id (an integer). Returns float32 [O], in ``out`` if given.

        Where the model's output is one vector per sequence, it is what it would be if the sequence ended here.
        Raises RindleError for a wrong shape or dtype, for NaN or infinity, and for an id out of range; the states are then
        unchanged.
        """
        if self._vocabulary:
            x = self._inputs.id(x)
        if out is None:
            out = np.empty(self._size, np.float32)
        try:
            self._step(x, out)
        except (TypeError, ValueError) as error:
            raise self._explain(error, np.float32, x, out) from None
        return out

    def step_codes(self, codes: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """As :meth:`step`, from int16 input codes [I] (or an id) to int16 output codes [O]."""
        self.model._refuse_floats()
        if self._vocabulary:
            codes = self._inputs.id(codes)
        if out is None:
            out = np.empty(self._size, np.int16)
        try:
            self._step(codes, out)
        except (TypeError, ValueError) as error:
            raise self._explain(error, np.int16, codes, out) from None
        return out

    def _explain(self, error: Exception, dtype, x, out) -> RindleError:
        """The binding says only that it does not take these arrays; what is wrong with them is found here, where time is no matter."""
        try:
            self._inputs.check_frame(x, out, dtype, self._size)
        except RindleError as found:
            return found
        return RindleError(str(error))

    def reset(self) -> None:
        """States to the initial ones, as before the first frame: zeros, unless the model has its own."""
        self._core.reset()

    def save(self) -> bytes:
        """The states, as bytes that any stream of the same model restores: on any machine, with any kernel."""
        return self._core.save()

    def restore(self, state: bytes) -> None:
        """Continues from a saved state. RindleError if it belongs to another model; the stream is then unchanged."""
        if not isinstance(state, bytes):
            raise RindleError(f"the state is a {type(state).__name__}; give the bytes that Stream.save returned")
        self.model._call(self._core.restore, state)

    def states(self) -> dict[str, np.ndarray]:
        """The states after the last frame: "node/state" -> float32 [n]."""
        codes = self._saved_codes()[1]
        return {name: decode(codes[span], fmt) for name, (span, fmt) in self.model._states.items()}

    def set_states(self, values: dict[str, np.ndarray]) -> None:
        """Continues from these states, "node/state" -> [n] finite values, each the nearest code of its format (3); those that
        are not named stay as they are. What lies beyond its format saturates, and is counted: ``measure().saturations`` has it
        under (node, state). RindleError for an unknown name or a wrong shape; the stream is then unchanged.
        """
        (header, codes), clipped = self._saved_codes(), dict(self._clipped)
        for name, given in values.items():
            if name not in self.model._states:
                raise RindleError(f"no state named {name!r}; there are {', '.join(self.model._states)}")
            span, fmt = self.model._states[name]
            value = np.asarray(given, np.float32)
            if value.shape != (span.stop - span.start,) or not np.isfinite(value).all():
                raise RindleError(
                    f"the state {name} is {list(value.shape)}, or not finite; give {span.stop - span.start} finite values"
                )
            codes[span], outside = encode_counted(value, fmt)
            if outside:
                key = tuple(name.rsplit("/", 1))
                clipped[key] = clipped.get(key, 0) + outside
        self.restore(header + codes.tobytes())
        self._clipped = clipped

    def _saved_codes(self) -> tuple[bytes, np.ndarray]:
        """A saved state in its two parts (docs/format.md): header, and int16 values."""
        state = self.save()
        return state[:STATE_HEADER], np.frombuffer(state, "<i2", offset=STATE_HEADER).copy()

    def measure(self) -> Measurement:
        """What the frames so far have cost; see ``Model.measure``. Its output is empty."""
        saturations, changes = self.model._counts(self._core)
        frames = max((seen for _, seen in changes.values()), default=0)
        inputs = measured_inputs(self.model.artifact, changes, [frames])
        return Measurement(np.empty(0, np.float32), inputs, saturations | self._clipped)
