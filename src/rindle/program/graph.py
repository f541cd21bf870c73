"""A model: nodes on sequences, each reading earlier ones, and the one loop over them that every numerics shares.

A sequence is a list of frames, [rows still running, features] each: rows are sorted by falling length, so that a
row that has ended simply leaves the batch, and is computed exactly as it would be alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic

from ..errors import RindleError
from ..numbers.formats import Format
from .nodes import INPUT, EmbeddingNode, Node, ProgramNode, each
from .nodes.program import L
from .nodes.window import frames_after

Decode = Callable[[str, Any], Any]  # (node, array) -> float32 NumPy array of the values


@dataclass(frozen=True)
class Graph(Generic[L]):
    """nodes in the order in which they run; output: the name of the one whose value is the model's.

    vocabulary: V if the model's input is one id 0..V-1 per frame, which only embeddings read, and input_size is then 1;
    0 if it is a frame of input_size features. L: what its program nodes have as their layer.
    """

    input_size: int
    nodes: tuple[Node, ...]
    output: str
    vocabulary: int = 0

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def node(self, name: str) -> Node:
        return self._by_name[name]

    def program(self, name: str) -> ProgramNode[L]:
        """A program node by its name. KeyError of any other name."""
        node = self.node(name)
        if not isinstance(node, ProgramNode):
            raise KeyError(name)
        return node

    @property
    def programs(self) -> tuple[ProgramNode[L], ...]:
        return tuple(node for node in self.nodes if isinstance(node, ProgramNode))

    @property
    def recurrent(self) -> tuple[ProgramNode[L], ...]:
        return tuple(node for node in self.programs if node.layer.program.states)

    @property
    def embeddings(self) -> tuple[EmbeddingNode, ...]:
        return tuple(node for node in self.nodes if isinstance(node, EmbeddingNode))

    @cached_property
    def _sequences(self) -> dict[str, bool]:
        found = {INPUT: True}
        for node in self.nodes:
            found[node.name] = node.is_sequence(found[node.source])
        return found

    def is_sequence(self, name: str) -> bool:
        """Whether a value has one vector per frame, or one per row."""
        return self._sequences[name]

    def is_float(self, name: str) -> bool:
        """Whether a value is of float32, and not of codes."""
        return name != INPUT and self.node(name).is_float

    def time_base(self, name: str) -> tuple[tuple[int, int], ...]:
        """What windows have done to the number of frames of a sequence: (frames taken off, stride), one after the other."""
        base: list[tuple[int, int]] = []
        for shrinks, stride in self._time_changes(name):
            if base and base[-1][1] == stride == 1:
                shrinks += base.pop()[0]
            if (shrinks, stride) != (0, 1):
                base.append((shrinks, stride))
        return tuple(base)

    def _time_changes(self, name: str) -> list[tuple[int, int]]:
        """Those of the nodes between the input and a sequence, from the input on."""
        found = []
        while name != INPUT:
            node = self.node(name)
            found.append(node.time_change)
            name = node.source
        return found[::-1]

    @cached_property
    def least_frames(self) -> int:
        """The smallest number of frames of a row with which every window has a value."""
        least = 1
        for node in self.nodes:
            if self.is_sequence(node.name):
                wanted = 1
                for shrinks, stride in reversed(self._time_changes(node.name)):
                    wanted = max((wanted - 1) * stride + shrinks + 1, 1)
                least = max(least, wanted)
        return least

    def frames(self, name: str, time: int) -> int:
        """Frames of a sequence where the input has ``time``. RindleError where a row is too short for a window."""
        for change in self._time_changes(name):
            after = frames_after(change, time)
            if after < 1:
                raise RindleError(f"a row of {time} frames is too short: {name} needs {change[0] + 1} there")
            time = after
        return time

    @cached_property
    def _sizes(self) -> dict[str, int]:
        sizes = {INPUT: self.input_size}
        for node in self.nodes:
            sizes[node.name] = node.size([sizes[source] for source in node.sources])
        return sizes

    def size_of(self, name: str) -> int:
        """Features of a node's value, or of the input."""
        return self._sizes[name]

    def sizes_of(self, names: tuple[str, ...]) -> list[int]:
        return [self._sizes[name] for name in names]

    def format_of(self, name: str, input_format: Format | None) -> Format | None:
        """Format of a node's value, or of the input (None for ids and for float values), once converted."""
        while name != INPUT:
            node = self.node(name)
            if not node.keeps_format:
                return node.own_format
            name = node.source  # what a concat reads has one format
        return input_format

    @property
    def whole_sequence(self) -> str | None:
        """The node, if any, that needs the whole sequence before it has a value: such a graph cannot be streamed."""
        return next((node.name for node in self.nodes if node.why_whole), None)


def execute(graph: Graph, numerics: Mapping[str, Any], xp: Any, frames: list, decode: Decode | None = None) -> dict:
    """Runs the graph over whole sequences.

    frames: T arrays [k_t, I], or ids [k_t], k_t falling. numerics: program node's name -> its numerics. xp: their array
    namespace. decode: gives float nodes what they read; a graph without float nodes needs none. Returns node name -> value: a
    list of frames, or an array [rows, F]; of float nodes, NumPy arrays.
    """
    values: dict[str, Any] = {INPUT: frames}
    for node in graph.nodes:
        sources = [values[name] for name in node.sources]
        if node.is_float:
            sources = [_decoded(graph, decode, *pair) for pair in zip(node.sources, sources)]
        values[node.name] = node.run(xp, sources, numerics.get(node.name))
    return values


def _decoded(graph: Graph, decode: Decode | None, name: str, value: Any) -> Any:
    if graph.is_float(name):
        return value
    assert decode is not None, "float nodes read values, so that codes need a decode"
    return each(lambda parts: decode(name, parts[0]), [value])
