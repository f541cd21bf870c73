"""A model: nodes on sequences, each reading earlier ones, and the one loop over time that every numerics shares.

A sequence is a list of frames, [rows still running, features] each: rows are sorted by falling length, so that a
row that has ended simply leaves the batch, and is computed exactly as it would be alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

from ..errors import RindleError
from ..numbers import float_ops
from ..numbers.float_ops import FloatOp
from ..numbers.formats import Format
from .program import step

INPUT = "input"
KINDS = ("program", "last", "first", "mean", "concat", "embedding", "window", "gather", "max", "float")
FRAME_WISE = ("program", "concat", "window", "gather", "float")  # a sequence of a sequence, a vector of a vector


@dataclass(frozen=True, eq=False)
class Embedding:
    """What an "embedding" node looks up. rows: [V, D], real values or, with their format, codes."""

    rows: object
    format: Format | None = None


@dataclass(frozen=True)
class Window:
    """What a "window" node joins, (23): ``size`` frames, ``dilation`` apart, every ``stride`` frames, of a row with ``before``
    and ``after`` frames of zeros at its ends.
    """

    size: int = 1
    dilation: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0

    @property
    def reach(self) -> int:
        """From the oldest frame that it joins to the newest."""
        return self.dilation * (self.size - 1)

    @property
    def shrinks(self) -> int:
        """By how many frames a row gets shorter, at stride 1."""
        return self.reach - self.before - self.after

    @property
    def causal(self) -> bool:
        return (self.stride, self.before, self.after) == (1, self.reach, 0)

    def frames(self, time: int) -> int:
        """T' of a row of ``time`` frames; less than 1 where it is too short."""
        return (time - self.shrinks - 1) // self.stride + 1


@dataclass(frozen=True)
class Node:
    """kind: one of KINDS. source: the node it reads, or INPUT; several for a "concat", and for what has several inputs.
    layer: what a "program" runs.

    reverse: the program goes over each row from its last frame to its first; its value is in the order of time again.
    table: the :class:`Embedding` of an "embedding". window: of a "window". index: the features that a "gather"
    takes. op: what a "float" node computes.
    """

    name: str
    kind: str
    source: str | tuple[str, ...]
    layer: object = None
    reverse: bool = False
    table: Embedding | None = None
    window: Window | None = None
    index: tuple[int, ...] | None = None
    op: FloatOp | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def why_whole(self) -> str | None:
        """Why the node has no value before the whole sequence is there; None if it has."""
        if self.reverse:
            return "reads the sequence from its end"
        if self.kind == "window" and not self.window.causal:
            if self.window.stride > 1 or self.window.shrinks:
                return "changes the number of frames"
            return "reads frames ahead"
        if self.kind == "float" and self.op.name == "attention":
            return "weighs the whole sequence"
        return {
            "mean": "averages over the whole sequence",
            "max": "is the maximum over the whole sequence",
            "first": "keeps the first frame",
        }.get(self.kind)


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
        while name != INPUT:
            node = self.node(name)
            if node.kind not in FRAME_WISE or (node.kind == "float" and node.op.name == "attention"):
                return node.kind == "embedding"
            name = node.sources[0]
        return True

    def is_float(self, name: str) -> bool:
        """Whether a value is of float32, and not of codes."""
        return name != INPUT and self.node(name).kind == "float"

    def time_base(self, name: str) -> tuple[tuple[int, int], ...]:
        """What windows have done to the number of frames of a sequence: (frames taken off, stride), one after the other."""
        base: list[tuple[int, int]] = []
        for window in self._windows(name):
            pair = window.shrinks, window.stride
            if base and base[-1][1] == pair[1] == 1:
                pair = base.pop()[0] + pair[0], 1
            if pair != (0, 1):
                base.append(pair)
        return tuple(base)

    def _windows(self, name: str) -> list[Window]:
        """Those between the input and a sequence, from the input on."""
        found = []
        while name != INPUT:
            node = self.node(name)
            found += [node.window] if node.window else []
            name = node.sources[0]
        return found[::-1]

    @cached_property
    def least_frames(self) -> int:
        """Of a row that is long enough for every window."""
        least = 1
        for node in self.nodes:
            if node.window and self.is_sequence(node.name):
                wanted = 1
                for window in reversed(self._windows(node.name)):
                    wanted = max((wanted - 1) * window.stride + window.shrinks + 1, 1)
                least = max(least, wanted)
        return least

    def frames(self, name: str, time: int) -> int:
        """Frames of a sequence where the input has ``time``. RindleError where a row is too short for a window."""
        for window in self._windows(name):
            after = window.frames(time)
            if after < 1:
                raise RindleError(f"a row of {time} frames is too short: {name} needs {window.shrinks + 1} there")
            time = after
        return time

    @cached_property
    def _sizes(self) -> dict[str, int]:
        sizes = {INPUT: self.input_size}
        for node in self.nodes:
            if node.kind == "program":
                program = node.layer.program
                sizes[node.name] = program.sizes[program.output]
            elif node.kind == "embedding":
                sizes[node.name] = int(node.table.rows.shape[1])
            elif node.kind == "window":
                sizes[node.name] = sizes[node.source] * node.window.size
            elif node.kind == "gather":
                sizes[node.name] = len(node.index)
            elif node.kind == "float":
                sizes[node.name] = float_ops.size_of(node.op, [sizes[source] for source in node.sources])
            else:
                sizes[node.name] = sum(sizes[source] for source in node.sources)
        return sizes

    def size_of(self, name: str) -> int:
        """Features of a node's value, or of the input."""
        return self._sizes[name]

    def format_of(self, name: str, input_format: Format | None) -> Format | None:
        """Format of a node's value, or of the input (None for ids and for float values), once converted."""
        while name != INPUT:
            node = self.node(name)
            if node.kind == "float":
                return None
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


def execute(graph: Graph, numerics: dict, xp, frames: list, decode=None) -> dict:
    """Runs the graph over whole sequences.

    frames: T arrays [k_t, I], or ids [k_t], k_t falling. numerics: program node's name -> its numerics. xp: their array
    namespace. decode: (node, array) -> float32 NumPy array of the values, which float nodes read. Returns node name ->
    value: a list of frames, or an array [rows, F]; of float nodes, NumPy arrays.
    """
    values = {INPUT: frames}
    for node in graph.nodes:
        sources = [values[name] for name in node.sources]
        source = sources[0]
        if node.kind == "last":
            value = _last(xp, source)
        elif node.kind == "first":
            value = source[0]
        elif node.kind == "mean":
            value = _mean(xp, source)
        elif node.kind == "max":
            value = _max(xp, source)
        elif node.kind == "concat":
            value = each(xp.join, sources)
        elif node.kind == "gather":
            value = each(partial(_gather, list(node.index)), sources)
        elif node.kind == "window":
            value = _window(xp, node, source)
        elif node.kind == "embedding":
            rows = xp.array(node.table.rows)
            value = [xp.take(rows, ids) for ids in source]
        elif node.kind == "float":
            value = float_ops.run(node.op, [_decoded(graph, decode, name, values[name]) for name in node.sources])
        else:
            value = _run_program(node, numerics[node.name], xp, sources)
        values[node.name] = value
    return values


def each(function, sources: list):
    """function of the sources' arrays: frame by frame where they are sequences, else once."""
    if isinstance(sources[0], list):
        return [function(parts) for parts in zip(*sources, strict=True)]
    return function(sources)


def _gather(index: list, parts):
    return parts[0][:, index]


def _decoded(graph: Graph, decode, name: str, value):
    if graph.is_float(name):
        return value
    return each(lambda parts: decode(name, parts[0]), [value])


def _run_program(node: Node, numerics, xp, sources: list):
    is_sequence = isinstance(sources[0], list)
    sequences = sources if is_sequence else [[source] for source in sources]
    sequences = [flipped(xp, sequence) for sequence in sequences] if node.reverse else sequences
    frames = list(zip(*sequences, strict=True))
    outputs, *_ = run_layer(node.layer.program, numerics, frames, *numerics.initial(len(frames[0][0])))
    outputs = flipped(xp, outputs) if node.reverse else outputs
    return outputs if is_sequence else outputs[0]


def flipped(xp, frames: list) -> list:
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


def _max(xp, frames: list):
    """(24) over each row's real frames."""
    largest, ended = frames[0], []
    for frame in frames[1:]:
        ended.append(largest[len(frame) :])
        largest = xp.maximum(largest[: len(frame)], frame)
    return xp.concat([largest, *reversed(ended)])


def _window(xp, node: Node, frames: list) -> list:
    """(23), each row within its own length."""
    window = node.window
    lengths = [sum(len(frame) > row for frame in frames) for row in range(len(frames[0]))]
    after = [window.frames(length) for length in lengths]
    if after[-1] < 1:
        raise RindleError(
            f"a row with {lengths[-1]} frames is too short for {node.name!r}, which needs {window.shrinks + 1}"
        )

    def part(t: int, rows: int):
        inside = frames[t][:rows] if 0 <= t < len(frames) else frames[0][:0]
        return xp.concat([inside, xp.zeros(rows - len(inside), frames[0].shape[1])])

    value = []
    for t in range(after[0]):
        rows = sum(length > t for length in after)
        first = t * window.stride - window.before
        value.append(xp.join([part(first + k * window.dilation, rows) for k in range(window.size)]))
    return value


def run_layer(program, numerics, frames: list, states: dict, held: dict) -> tuple[list, dict, dict]:
    """One layer over a sequence, from the given states. frames: per frame, a tuple of one array [k_t, F] per input.

    Returns (outputs, states, held) after the last frame.
    """
    outputs = []
    running = None
    for inputs in frames:
        if running != len(inputs[0]):  # some rows have ended
            running = len(inputs[0])
            states, held = ({path: v[:running] for path, v in d.items()} for d in (states, held))
        y, states, held = step(program, numerics, inputs, states, held)
        numerics.frames += running
        outputs.append(y)
    return outputs, states, held
