"""A function of float values, at the output side. ``numbers/float_ops.py`` has the functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...numbers import float_ops
from ...numbers.float_ops import FloatOp
from ...numbers.formats import Format
from .node import Node


@dataclass(frozen=True)
class FloatNode(Node):
    """op: the function and its parameters."""

    op: FloatOp

    kind: ClassVar[str] = "float"
    since: ClassVar[int] = 3
    arity: ClassVar[tuple[int, int]] = (1, 2)
    keeps_format: ClassVar[bool] = False
    is_float: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return self.op.name

    def size(self, sizes: Sequence[int]) -> int:
        return float_ops.size_of(self.op, list(sizes))

    def elements(self, sizes: Sequence[int]) -> int:
        return self.size(sizes)

    def is_sequence(self, source: bool) -> bool:
        return source and self.op.name != "attention"

    @property
    def own_format(self) -> Format | None:
        return None

    @property
    def why_whole(self) -> str | None:
        return "weighs the whole sequence" if self.op.name == "attention" else None

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        return float_ops.run(self.op, sources)
