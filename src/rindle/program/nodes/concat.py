"""The features of several values, one after the other: of one format, all sequences or all vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .node import Node, each


@dataclass(frozen=True)
class ConcatNode(Node):
    kind: ClassVar[str] = "concat"
    since: ClassVar[int] = 2
    arity: ClassVar[tuple[int, int]] = (2, 64)
    needs_wide: ClassVar[bool] = True

    def elements(self, sizes: Sequence[int]) -> int:
        return self.size(sizes)

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        return each(xp.join, sources)
