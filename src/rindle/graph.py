"""A model: nodes on sequences, each reading earlier ones, and the one loop over time that every numerics shares.

A sequence is a list of frames, [rows still running, features] each: rows are sorted by falling length, so that a
row that has ended simply leaves the batch, and is computed exactly as it would be alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from .formats import Format
from .program import step

INPUT = "input"
KINDS = ("program", "last", "first", "mean", "concat", "embedding")


@dataclass(frozen=True, eq=False)
class Embedding:
    """What an "embedding" node looks up. rows: [V, D], real values or, with their format, codes."""

    rows: object
    format: Format | None = None


@dataclass(frozen=True)
class Node:
    """kind: one of KINDS. source: the node it reads, or INPUT; several for a "concat". layer: what a "program" runs.

    reverse: the program goes over each row from its last frame to its first; its value is in the order of time again.
    table: the :class:`Embedding` of an "embedding".
    """

    name: str
    kind: str
    source: str | tuple[str, ...]
    layer: object = None
    reverse: bool = False
    table: Embedding | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def why_whole(self) -> str | None:
        """Why the node has no value before the whole sequence is there; None if it has."""
        if self.reverse:
            return "reads the sequence from its end"
        return {"mean": "averages over the whole sequence", "first": "keeps the first frame"}.get(self.kind)


@dataclass(frozen=True)
class Graph:
    """nodes in the order in which they run; output: the name of the one whose value is the model's.

    vocabulary: V if the model's input is one id 0..V-1 per frame, which only embeddings read, and input_size is then 1;
    0 if it is a frame of input_size features.
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

    @property
    def programs(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.kind == "program")

    @property
    def recurrent(self) -> tuple[Node, ...]:
        return tuple(node for node in self.programs if node.layer.program.states)

    @property
    def embeddings(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.kind == "embedding")

    def is_sequence(self, name: str) -> bool:
        """Whether a value has one vector per frame, or one per row."""
        while name != INPUT and self.node(name).kind in ("program", "concat"):
            name = self.node(name).sources[0]
        return name == INPUT or self.node(name).kind == "embedding"

    @cached_property
    def _sizes(self) -> dict[str, int]:
        sizes = {INPUT: self.input_size}
        for node in self.nodes:
            if node.kind == "program":
                program = node.layer.program
                sizes[node.name] = program.sizes[program.output]
            elif node.kind == "embedding":
                sizes[node.name] = int(node.table.rows.shape[1])
            else:
                sizes[node.name] = sum(sizes[source] for source in node.sources)
        return sizes

    def size_of(self, name: str) -> int:
        """Features of a node's value, or of the input."""
        return self._sizes[name]

    def format_of(self, name: str, input_format: Format | None) -> Format | None:
        """Format of a node's value, or of the input (None for ids), once converted."""
        while name != INPUT:
            node = self.node(name)
            if node.kind == "program":
                return node.layer.formats[node.layer.program.output]
            if node.kind == "embedding":
                return node.table.format
            name = node.sources[0]  # what a concat reads has one format
        return input_format

    @property
    def whole_sequence(self) -> str | None:
        """The node, if any, that needs the whole sequence before it has a value: such a graph cannot be streamed."""
        return next((node.name for node in self.nodes if node.why_whole), None)


def execute(graph: Graph, numerics: dict, xp, frames: list) -> dict:
    """Runs the graph over whole sequences.

    frames: T arrays [k_t, I], or ids [k_t], k_t falling. numerics: program node's name -> its numerics. xp: their array
    namespace. Returns node name -> value: a list of frames, or an array [rows, F].
    """
    values = {INPUT: frames}
    for node in graph.nodes:
        source = values[node.sources[0]]
        if node.kind == "last":
            value = _last(xp, source)
        elif node.kind == "first":
            value = source[0]
        elif node.kind == "mean":
            value = _mean(xp, source)
        elif node.kind == "concat":
            parts = [values[name] for name in node.sources]
            value = [xp.join(part) for part in zip(*parts)] if isinstance(source, list) else xp.join(parts)
        elif node.kind == "embedding":
            rows = xp.array(node.table.rows)
            value = [xp.take(rows, ids) for ids in source]
        else:
            value = _run_program(node, numerics[node.name], xp, source)
        values[node.name] = value
    return values


def _run_program(node: Node, numerics, xp, source):
    is_sequence = isinstance(source, list)
    sequence = source if is_sequence else [source]
    sequence = _flipped(xp, sequence) if node.reverse else sequence
    outputs, *_ = run_layer(node.layer.program, numerics, sequence, *numerics.initial(len(sequence[0])))
    outputs = _flipped(xp, outputs) if node.reverse else outputs
    return outputs if is_sequence else outputs[0]


def _flipped(xp, frames: list) -> list:
    """Each row from its own end to its start, (22). Its own inverse."""
    ends = [0, *(len(frame) for frame in reversed(frames))]  # the rows of length T - i end at ends[i + 1]
    blocks = [(len(frames) - i, a, b) for i, (a, b) in enumerate(pairwise(ends)) if a < b]
    return [
        xp.concat([frames[length - 1 - t][a:b] for length, a, b in blocks if length > t]) for t in range(len(frames))
    ]


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
