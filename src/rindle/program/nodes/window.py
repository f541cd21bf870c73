"""Several frames, one after the other as the features of one, (23). With a layer behind it, a convolution over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import RindleError
from .node import Node


@dataclass(frozen=True)
class Window:
    """What is joined, (23): ``size`` frames, ``dilation`` apart, every ``stride`` frames, of a row with ``before`` and ``after``
    frames of zeros at its ends.
    """

    size: int = 1
    dilation: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0

    @property
    def reach(self) -> int:
        """From the oldest frame that it joins to the newest."""
        return self.dilation * (self.size - 1)

    @property
    def shrinks(self) -> int:
        """By how many frames a row gets shorter, at stride 1."""
        return self.reach - self.before - self.after

    @property
    def causal(self) -> bool:
        return (self.stride, self.before, self.after) == (1, self.reach, 0)


@dataclass(frozen=True)
class WindowNode(Node):
    window: Window

    kind: ClassVar[str] = "window"
    since: ClassVar[int] = 3
    reads_sequences: ClassVar[bool] = True

    def size(self, sizes: Sequence[int]) -> int:
        return sizes[0] * self.window.size

    def elements(self, sizes: Sequence[int]) -> int:
        return self.size(sizes) + self.saved(sizes)

    def saved(self, sizes: Sequence[int]) -> int:
        return self.window.reach * sizes[0]

    @property
    def time_change(self) -> tuple[int, int]:
        return self.window.shrinks, self.window.stride

    @property
    def why_whole(self) -> str | None:
        if self.window.causal:
            return None
        if self.window.stride > 1 or self.window.shrinks:
            return "changes the number of frames"
        return "reads frames ahead"

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        """Each row within its own length."""
        (frames,), window = sources, self.window
        lengths = [sum(len(frame) > row for frame in frames) for row in range(len(frames[0]))]
        after = [frames_after(self.time_change, length) for length in lengths]
        if after[-1] < 1:
            raise RindleError(
                f"a row with {lengths[-1]} frames is too short for {self.name!r}, which needs {window.shrinks + 1}"
            )

        def part(t: int, rows: int) -> Any:
            inside = frames[t][:rows] if 0 <= t < len(frames) else frames[0][:0]
            return xp.concat([inside, xp.zeros(rows - len(inside), frames[0].shape[1])])

        value = []
        for t in range(after[0]):
            rows = sum(length > t for length in after)
            first = t * window.stride - window.before
            value.append(xp.join([part(first + k * window.dilation, rows) for k in range(window.size)]))
        return value


def frames_after(change: tuple[int, int], time: int) -> int:
    """T' of a row of ``time`` frames, given a node's ``time_change``; less than 1 where it is too short."""
    shrinks, stride = change
    return (time - shrinks - 1) // stride + 1
