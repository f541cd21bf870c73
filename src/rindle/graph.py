"""A model: a chain of nodes on sequences, and the one loop over time that every numerics shares.

A sequence is a list of frames, [rows still running, features] each: rows are sorted by falling length, so that a
row that has ended simply leaves the batch, and is computed exactly as it would be alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .formats import Format
from .program import step

INPUT = "input"
KINDS = ("program", "last", "mean")


@dataclass(frozen=True)
class Node:
    """kind: one of KINDS. source: the node it reads, or INPUT. layer: what a "program" node runs."""

    name: str
    kind: str
    source: str
    layer: object = None


@dataclass(frozen=True)
class Graph:
    """nodes in the order in which they run; output: the name of the one whose value is the model's."""

    input_size: int
    nodes: tuple[Node, ...]
    output: str

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def node(self, name: str) -> Node:
        return self._by_name[name]

    @property
    def programs(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.kind == "program")

    @property
    def recurrent(self) -> tuple[Node, ...]:
        return tuple(node for node in self.programs if node.layer.program.states)

    def is_sequence(self, name: str) -> bool:
        """Whether a value has one vector per frame, or one per row."""
        while name != INPUT and self.node(name).kind == "program":
            name = self.node(name).source
        return name == INPUT

    def _origin(self, name: str) -> Node | None:
        """The program whose output a value consists of; None: it is the model's input."""
        while name != INPUT and self.node(name).layer is None:
            name = self.node(name).source
        return None if name == INPUT else self.node(name)

    def size_of(self, name: str) -> int:
        """Features of a node's value, or of the input."""
        node = self._origin(name)
        return self.input_size if node is None else node.layer.program.sizes[node.layer.program.output]

    def format_of(self, name: str, input_format: Format) -> Format:
        """Format of a node's value, or of the input, once converted."""
        node = self._origin(name)
        return input_format if node is None else node.layer.formats[node.layer.program.output]

    @property
    def whole_sequence(self) -> str | None:
        """The node, if any, that needs the whole sequence before it has a value: such a graph cannot be streamed."""
        return next((node.name for node in self.nodes if node.kind == "mean"), None)


def execute(graph: Graph, numerics: dict, xp, frames: list) -> dict:
    """Runs the graph over whole sequences.

    frames: T arrays [k_t, I], k_t falling. numerics: program node's name -> its numerics. xp: their array namespace.
    Returns node name -> value: a list of frames, or an array [rows, F].
    """
    values = {INPUT: frames}
    for node in graph.nodes:
        source = values[node.source]
        if node.kind == "last":
            values[node.name] = _last(xp, source)
        elif node.kind == "mean":
            values[node.name] = _mean(xp, source)
        else:
            one, is_sequence = numerics[node.name], isinstance(source, list)
            sequence = source if is_sequence else [source]
            outputs, *_ = run_layer(node.layer.program, one, sequence, *one.initial(len(sequence[0])))
            values[node.name] = outputs if is_sequence else outputs[0]
    return values


def _last(xp, frames: list):
    """Each row's last frame. The rows that end with frame t stand at its end; the longest come first."""
    following = [len(frame) for frame in frames[1:]] + [0]
    return xp.concat([frame[k:] for frame, k in reversed(list(zip(frames, following)))])


def _mean(xp, frames: list):
    """(21) over each row's real frames."""
    total, ended = frames[0], []
    for t, frame in enumerate(frames[1:], 1):
        ended.append(xp.mean(total[len(frame) :], t))
        total = total[: len(frame)] + frame
    return xp.concat([xp.mean(total, len(frames)), *reversed(ended)])


def run_layer(program, numerics, frames: list, states: dict, held: dict) -> tuple[list, dict, dict]:
    """One layer over a sequence, from the given states. Returns (outputs, states, held) after the last frame."""
    outputs = []
    for x in frames:
        states, held = ({path: v[: len(x)] for path, v in d.items()} for d in (states, held))
        y, states, held = step(program, numerics, x, states, held)
        numerics.frames += len(x)
        outputs.append(y)
    return outputs, states, held
