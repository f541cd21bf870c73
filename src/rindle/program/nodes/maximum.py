"""The largest code of each feature over a row's frames, (24)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .node import Reduction


@dataclass(frozen=True)
class MaxNode(Reduction):
    kind: ClassVar[str] = "max"
    since: ClassVar[int] = 3

    @property
    def why_whole(self) -> str | None:
        return "is the maximum over the whole sequence"

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        (frames,) = sources
        largest, ended = frames[0], []
        for frame in frames[1:]:
            ended.append(largest[len(frame) :])
            largest = xp.maximum(largest[: len(frame)], frame)
        return xp.concat([largest, *reversed(ended)])
