"""The mean of a row's frames, (21)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .node import Reduction


@dataclass(frozen=True)
class MeanNode(Reduction):
    kind: ClassVar[str] = "mean"
    needs_wide: ClassVar[bool] = True

    @property
    def why_whole(self) -> str | None:
        return "averages over the whole sequence"

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        (frames,) = sources
        total, ended = frames[0], []
        for t, frame in enumerate(frames[1:], 1):
            ended.append(xp.mean(total[len(frame) :], t))
            total = total[: len(frame)] + frame
        return xp.concat([xp.mean(total, len(frames)), *reversed(ended)])
