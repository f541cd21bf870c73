"""What every node of a graph has, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...numbers.formats import Format

INPUT = "input"  # the name of the model's input among the sources of a node


@dataclass(frozen=True)
class Node:
    """A step of a graph: it reads earlier values and makes one, under its name. Each kind is a subclass in a file of its own.

    sources: the nodes that it reads, or INPUT. The fields of a kind follow; a file holds them (``file/nodes.py``).
    """

    name: str
    sources: tuple[str, ...]

    kind: ClassVar[str]  # its name in files
    since: ClassVar[int] = 1  # the first version of the file format that has the kind
    arity: ClassVar[tuple[int, int]] = (1, 1)  # the least and largest number of sources
    reads_ids: ClassVar[bool] = False  # its source is the model's input of ids, which no other kind reads
    reads_sequences: ClassVar[bool] = False  # its source must be a sequence; the other kinds read vectors, too
    keeps_format: ClassVar[bool] = True  # its value has the one format of its sources, and only what they hold
    needs_wide: ClassVar[bool] = False  # what it reads should not be coded as narrowly as one product wants it
    is_float: ClassVar[bool] = False  # it reads and makes float32 values; the other kinds read codes

    @property
    def source(self) -> str:
        """The node that it reads, or the first of them."""
        return self.sources[0]

    @property
    def label(self) -> str:
        """A word for people: what it computes."""
        return self.kind

    @property
    def version(self) -> int:
        """The first version of the file format that can say what it is."""
        return self.since

    def size(self, sizes: Sequence[int]) -> int:
        """The number of features of its value. sizes: those of its sources."""
        return sum(sizes)

    def elements(self, sizes: Sequence[int]) -> int:
        """The number of elements that it makes and keeps by itself, which a file limits."""
        return 0

    def saved(self, sizes: Sequence[int]) -> int:
        """The number of codes that a saved stream has of it."""
        return 0

    def is_sequence(self, source: bool) -> bool:
        """Whether its value has one vector per frame, or one per row. source: the same of what it reads."""
        return source

    @property
    def time_change(self) -> tuple[int, int]:
        """What it does to the number of frames T of a row, (T − n − 1) // stride + 1: n and stride."""
        return 0, 1

    @property
    def own_format(self) -> Format | None:
        """The format of its value where it does not keep that of its sources, once converted; None of float values."""
        raise NotImplementedError

    @property
    def why_whole(self) -> str | None:
        """Why it has no value before the whole sequence is there; None if it has."""
        return None

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        """Its value: a list of frames [rows still running, features], or an array [rows, features].

        xp: the array namespace. sources: their values. numerics: those of a program; None of the other kinds.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Reduction(Node):
    """A node that makes one vector of the frames of a row."""

    reads_sequences: ClassVar[bool] = True

    def is_sequence(self, source: bool) -> bool:
        return False


def each(function: Callable[[Sequence], Any], sources: list) -> Any:
    """function of the sources' arrays: frame by frame where they are sequences, else once."""
    if isinstance(sources[0], list):
        return [function(parts) for parts in zip(*sources, strict=True)]
    return function(sources)
