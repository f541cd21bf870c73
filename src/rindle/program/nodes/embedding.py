"""A row of a table for every id of the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...numbers.formats import Format
from .node import Node


@dataclass(frozen=True)
class EmbeddingNode(Node):
    """rows: [V, D], real values or, with their format, codes."""

    rows: Any
    format: Format | None = None

    kind: ClassVar[str] = "embedding"
    since: ClassVar[int] = 2
    reads_ids: ClassVar[bool] = True
    keeps_format: ClassVar[bool] = False

    def size(self, sizes: Sequence[int]) -> int:
        return int(self.rows.shape[1])

    def elements(self, sizes: Sequence[int]) -> int:
        return self.size(sizes)

    @property
    def own_format(self) -> Format | None:
        return self.format

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        rows = xp.array(self.rows)
        return [xp.take(rows, ids) for ids in sources[0]]
