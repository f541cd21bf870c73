"""How a file holds each kind of node. FORMS has, for a kind, the function that reads it and the one that writes its own keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import RindleError
from ..numbers import float_ops
from ..numbers.float_ops import FloatOp
from ..numbers.formats import pack
from ..program.nodes import (
    INPUT,
    NODES,
    ConcatNode,
    EmbeddingNode,
    FirstNode,
    FloatNode,
    GatherNode,
    LastNode,
    MaxNode,
    MeanNode,
    Node,
    ProgramNode,
    Window,
    WindowNode,
)
from . import limits
from .fields import Fields, names, read_format, short, unpack_codes, write_format
from .read_program import read_program
from .reading import Reading
from .write_program import write_program


@dataclass(frozen=True)
class Form:
    """read: (reading, entry, name) -> the node; it takes all keys but name and kind. write: (node, tensors, tables) -> those keys
    that are its own; it adds to the tensors and tables of the document.
    """

    read: Callable[[Reading, Fields, str], Node]
    write: Callable[[Any, dict, dict], dict] = lambda node, tensors, tables: {}


def write_node(node: Node, tensors: dict, tables: dict) -> dict:
    source = node.source if len(node.sources) == 1 else list(node.sources)
    return {"name": node.name, "kind": node.kind, "input": source} | FORMS[node.kind].write(node, tensors, tables)


def read_node(reading: Reading, entry: Fields) -> Node:
    """The next node of a document. RindleError, which names the field, for what docs/format.md forbids."""
    name, kind = entry.take("name", str), entry.take("kind", str)
    if name in (INPUT, *(node.name for node in reading.graph.nodes)):
        raise RindleError(f"{entry.where}.name is {name!r}, which is taken")
    known = [kind for kind, node in NODES.items() if node.since <= reading.version]
    if kind not in known:
        raise RindleError(f"node {name!r}.kind is {kind!r}; it must be one of {', '.join(known)}")
    entry.where = f"node {name!r}"
    node = FORMS[kind].read(reading, entry, name)
    entry.done()
    return node


def _sources(
    reading: Reading, entry: Fields, kind: type[Node], arity: tuple[int, int] | None = None, word: str = ""
) -> tuple[str, ...]:
    """What a node reads: one name, or an array of several where the kind takes that. word: what to call it in an error."""
    graph, (least, most) = reading.graph, arity or kind.arity
    sources: tuple[str, ...]
    if most == 1 or (least == 1 and not entry.is_list("input")):
        sources = (entry.take("input", str),)
    else:
        sources, least = names(entry.take("input", list), f"{entry.where}.input"), max(least, 2)
        if not least <= len(sources) <= most:
            wanted = str(least) if least == most else f"{least}..{most}"
            raise RindleError(f"{entry.where}.input has {len(sources)} entries; a {word or kind.kind} has {wanted}")
    for one in sources:
        _check_source(reading, entry.where, kind, one)
    first = sources[0]
    for one in sources[1:]:
        if graph.is_sequence(one) != graph.is_sequence(first):
            raise RindleError(f"{entry.where}.input: one of {first!r} and {one!r} is a sequence, the other a vector")
        if graph.is_sequence(first) and graph.time_base(one) != graph.time_base(first):
            raise RindleError(f"{entry.where}.input: {first!r} and {one!r} differ in their number of frames")
    if kind.reads_sequences and not graph.is_sequence(first):
        raise RindleError(f"{entry.where}.input is {first!r}, which is not a sequence")
    return sources


def _check_source(reading: Reading, where: str, kind: type[Node], name: str) -> None:
    graph = reading.graph
    if name not in (INPUT, *(node.name for node in graph.nodes)):
        raise RindleError(f"{where}.input is {short(name)}, which is neither the input nor an earlier node")
    if kind.reads_ids != (name == INPUT and graph.vocabulary > 0):
        raise RindleError(
            f"{where}.input is {name!r}; ids, and nothing else, are read by embeddings, and by nothing else"
        )
    if graph.is_float(name) and not kind.is_float:
        raise RindleError(f"{where}.input is {name!r}, which is of float values; only float nodes read them")


# -- each kind


def _plain(kind: type[Node]) -> Form:
    """A kind with no keys of its own."""
    return Form(lambda reading, entry, name: kind(name, _sources(reading, entry, kind)))


def _read_program(reading: Reading, entry: Fields, name: str) -> ProgramNode:
    arity = ProgramNode.arity if reading.version > 2 else (1, 1)
    sources = _sources(reading, entry, ProgramNode, arity)
    where, graph = entry.where, reading.graph
    sequence = graph.is_sequence(sources[0])
    reverse = reading.version > 1 and entry.has("reverse")
    if reverse and not entry.take("reverse", bool):
        raise RindleError(f"{where}.reverse is false; it must be true, or left out")
    if reverse and not sequence:
        raise RindleError(f"{where}.reverse is true, but its input {sources[0]!r} is not a sequence")
    inputs = [(graph.size_of(one), graph.format_of(one, reading.input_format)) for one in sources]
    layer = read_program(reading, Fields(entry.take("program", dict), where), inputs)
    if layer.program.states and not sequence:
        raise RindleError(f"{where} has states, but its input {sources[0]!r} is not a sequence")
    return ProgramNode(name, sources, layer, reverse)


def _write_program(node: ProgramNode, tensors: dict, tables: dict) -> dict:
    entry = {"program": write_program(node.name, node.layer, tensors, tables)}
    return entry | ({"reverse": True} if node.reverse else {})


def _read_concat(reading: Reading, entry: Fields, name: str) -> ConcatNode:
    sources = _sources(reading, entry, ConcatNode)
    first, *others = (reading.graph.format_of(one, reading.input_format) for one in sources)
    for one, other in zip(sources[1:], others):
        if other != first:
            raise RindleError(f"{entry.where}.input: {sources[0]!r} is {first} and {one!r} is {other}; they must agree")
    size = sum(reading.graph.sizes_of(sources))
    if size > limits.SIZE:
        raise RindleError(f"{entry.where}.input has {size} features in all; at most {limits.SIZE} are allowed")
    return ConcatNode(name, sources)


def _read_embedding(reading: Reading, entry: Fields, name: str) -> EmbeddingNode:
    sources, where = _sources(reading, entry, EmbeddingNode), entry.where
    size = entry.integer("size", 1, limits.SIZE)
    form = Fields(entry.take("format", dict), f"{where}.format")
    fmt = read_format(form, product=False)
    form.done()
    if not fmt.signed:
        raise RindleError(f"{where}.format: embeddings are signed")
    shape = reading.graph.vocabulary, (size * fmt.bits + 7) // 8
    packed = reading.store.take(entry.take("weight", str), f"{where}.weight", np.uint8, shape)
    return EmbeddingNode(name, sources, unpack_codes(packed, fmt.as_product(), size, f"{where}.weight"), fmt)


def _write_embedding(node: EmbeddingNode, tensors: dict, tables: dict) -> dict:
    name, fmt = f"{node.name}/embedding", node.format
    assert fmt is not None, "a converted embedding has a format"
    tensors[name] = pack(node.rows, fmt.bits)
    return {"size": node.rows.shape[1], "format": write_format(fmt), "weight": name}


def _read_window(reading: Reading, entry: Fields, name: str) -> WindowNode:
    sources = _sources(reading, entry, WindowNode)
    size, dilation, stride = (entry.integer(key, 1, limits.WINDOW) for key in ("size", "dilation", "stride"))
    window = Window(size, dilation, stride, *(entry.integer(key, 0, limits.SIZE) for key in ("before", "after")))
    features = reading.graph.size_of(sources[0])
    if window.reach > limits.SIZE or features * size > limits.SIZE:
        raise RindleError(
            f"{entry.where} joins {size} frames of {features} features over {window.reach + 1} frames; at most "
            f"{limits.SIZE} features and {limits.SIZE + 1} frames are allowed"
        )
    return WindowNode(name, sources, window)


def _write_window(node: WindowNode, tensors: dict, tables: dict) -> dict:
    return asdict(node.window)


def _read_gather(reading: Reading, entry: Fields, name: str) -> GatherNode:
    sources = _sources(reading, entry, GatherNode)
    index = reading.store.take(entry.take("index", str), f"{entry.where}.index", np.int32, (None,))
    features = reading.graph.size_of(sources[0])
    if index.min() < 0 or index.max() >= features or len(index) > limits.SIZE:
        raise RindleError(f"{entry.where}.index must have at most {limits.SIZE} entries, each 0..{features - 1}")
    return GatherNode(name, sources, tuple(index.tolist()))


def _write_gather(node: GatherNode, tensors: dict, tables: dict) -> dict:
    name = f"{node.name}/index"
    tensors[name] = np.array(node.index, np.int32)
    return {"index": name}


def _read_float(reading: Reading, entry: Fields, name: str) -> FloatNode:
    op = entry.take("op", str)
    if op not in float_ops.NAMES:
        raise RindleError(f"{entry.where}.op is {op!r}; it must be one of {', '.join(float_ops.NAMES)}")
    count = float_ops.SOURCES.get(op, 1)
    sources = _sources(reading, entry, FloatNode, (count, count), op)
    sizes = reading.graph.sizes_of(sources)
    if op == "attention":
        if not reading.graph.is_sequence(sources[0]) or sizes[0] != 1:
            raise RindleError(f"{entry.where}.input: the scores of an attention must be a sequence of 1 feature")
    elif len(set(sizes)) > 1:
        raise RindleError(f"{entry.where}.input: {op} joins {sizes[0]} and {sizes[1]} features; they must agree")
    read = FLOAT_PARAMETERS.get(op, lambda reading, entry, features: {})
    return FloatNode(name, sources, FloatOp(op, read(reading, entry, sizes[0])))


def _write_float(node: FloatNode, tensors: dict, tables: dict) -> dict:
    entry = {"op": node.op.name}
    for key, value in node.op.parameters.items():
        entry[key] = value
        if isinstance(value, np.ndarray):
            entry[key] = f"{node.name}/{key}"
            tensors[entry[key]] = value.astype(np.float32)
    return entry


def _finite(reading: Reading, entry: Fields, key: str, shape: tuple) -> np.ndarray:
    values = reading.store.take(entry.take(key, str), f"{entry.where}.{key}", np.float32, shape)
    if not np.isfinite(values).all():
        raise RindleError(f"{entry.where}.{key} holds a value that is not finite")
    return values


def _groups(reading: Reading, entry: Fields, features: int) -> dict:
    groups = entry.integer("groups", 1, limits.SIZE)
    if features % groups:
        raise RindleError(f"{entry.where}.groups is {groups}, which does not divide {features} features")
    return {"groups": groups}


def _layer_norm(reading: Reading, entry: Fields, features: int) -> dict:
    epsilon = entry.take("epsilon", float)
    if epsilon < 0:
        raise RindleError(f"{entry.where}.epsilon is {epsilon}; it must not be negative")
    given = [key for key in ("weight", "bias") if entry.has(key)]
    return {"epsilon": epsilon} | {key: _finite(reading, entry, key, (features,)) for key in given}


def _linear(reading: Reading, entry: Fields, features: int) -> dict:
    weight = _finite(reading, entry, "weight", (None, features))
    if len(weight) > limits.SIZE:
        raise RindleError(f"{entry.where}.weight has {len(weight)} rows; at most {limits.SIZE} are allowed")
    bias = {"bias": _finite(reading, entry, "bias", (len(weight),))} if entry.has("bias") else {}
    return {"weight": weight} | bias


FLOAT_PARAMETERS: dict[str, Callable[[Reading, Fields, int], dict]] = {  # the other operations have none
    "softmax": _groups,
    "log_softmax": _groups,
    "layer_norm": _layer_norm,
    "linear": _linear,
}

FORMS: dict[str, Form] = {
    "program": Form(_read_program, _write_program),
    "last": _plain(LastNode),
    "mean": _plain(MeanNode),
    "first": _plain(FirstNode),
    "concat": Form(_read_concat),
    "embedding": Form(_read_embedding, _write_embedding),
    "window": Form(_read_window, _write_window),
    "gather": Form(_read_gather, _write_gather),
    "max": _plain(MaxNode),
    "float": Form(_read_float, _write_float),
}
