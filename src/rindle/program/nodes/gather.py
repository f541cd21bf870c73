"""Features of a value, in any order, each as often as named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .node import Node, each


@dataclass(frozen=True)
class GatherNode(Node):
    """index: the numbers of the features."""

    index: tuple[int, ...]

    kind: ClassVar[str] = "gather"
    since: ClassVar[int] = 3

    def size(self, sizes: Sequence[int]) -> int:
        return len(self.index)

    def elements(self, sizes: Sequence[int]) -> int:
        return self.size(sizes)

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        index = list(self.index)
        return each(lambda parts: parts[0][:, index], sources)
