"""The last frame of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .node import Reduction


@dataclass(frozen=True)
class LastNode(Reduction):
    """In a stream, its value is at every frame what it would be if the sequence ended there."""

    kind: ClassVar[str] = "last"

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        """The rows that end with frame t stand at its end; the longest come first."""
        (frames,) = sources
        following = [len(frame) for frame in frames[1:]] + [0]
        return xp.concat([frame[k:] for frame, k in reversed(list(zip(frames, following)))])
