"""What the readers of one document share."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..numbers.formats import Format
from ..numbers.tables import Table
from ..program.graph import Graph
from .fields import Tensors


@dataclass
class Reading:
    """version: of the document. store: its tensors. graph: the nodes so far. input_format: None of ids. used_tables: the names of
    the tables that an operation has taken.
    """

    version: int
    store: Tensors
    tables: dict[str, Table]
    graph: Graph
    input_format: Format | None
    used_tables: set[str] = field(default_factory=set)
