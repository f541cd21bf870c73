"""The first frame of a row: the final state of a reversed layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .node import Reduction


@dataclass(frozen=True)
class FirstNode(Reduction):
    kind: ClassVar[str] = "first"
    since: ClassVar[int] = 2

    @property
    def why_whole(self) -> str | None:
        return "keeps the first frame"

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        return sources[0][0]
