"""The JSON document and the tensors of a .rindle file -> an :class:`~rindle.file.artifact.Artifact`.

A file is hostile until every rule of docs/format.md has been checked, here and in core/file/document*.cc alike.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import RindleError
from ..numbers import float_ops
from ..numbers.float_ops import FloatOp
from ..numbers.formats import Format
from ..program.graph import INPUT, KINDS, Embedding, Graph, Node, Window
from .artifact import VERSION, Artifact, Golden
from .fields import SIZE_LIMIT, Fields, Tensors, check_range, names, read_format, short, unpack_codes
from .needs import Version
from .read_program import read_program, read_table

GOLDEN_LIMIT = 65536
PATHS_LIMIT = 2**24
SOURCES_LIMIT = 64
WINDOW_LIMIT = 4096
KINDS_OF = {1: ("program", "last", "mean"), 2: KINDS[:6], 3: KINDS, 4: KINDS}  # format version -> kinds of nodes
WITH_VALUES = ("concat", "embedding", "window", "gather", "float")  # kinds that make elements of their own


def from_document(document: dict, tensors: dict[str, np.ndarray]) -> Artifact:
    """Raises RindleError, which names the field, for anything that docs/format.md forbids."""
    top, store = Fields(document, "document"), Tensors(tensors)
    version = Version.read(top, VERSION)
    identifier = top.take("id", str)
    if len(identifier) != 64 or not set(identifier) <= set("0123456789abcdef"):
        raise RindleError(f"document.id is {short(identifier)}; it must be 64 hex digits")
    input_size, vocabulary, input_format = _read_input(Fields(top.take("input", dict), "input"), version)
    tables = {
        name: read_table(Fields(value, f"tables.{name}"), store) for name, value in top.take("tables", dict).items()
    }
    used_tables: set[str] = set()
    total = 0
    entries = top.take("nodes", list)
    if not 1 <= len(entries) <= 1024:
        raise RindleError(f"nodes has {len(entries)} entries; a model has 1..1024")
    graph = Graph(input_size, (), INPUT, vocabulary)
    for index, value in enumerate(entries):
        entry = Fields(value, f"nodes[{index}]")
        node = _read_node(entry, version, graph, input_format, store, tables, used_tables)
        graph = Graph(input_size, (*graph.nodes, node), INPUT, vocabulary)
        total += sum(node.layer.program.sizes.values()) if node.kind == "program" else 0
        total += graph.size_of(node.name) if node.kind in WITH_VALUES else 0
        total += node.window.reach * graph.size_of(node.source) if node.window else 0  # what a stream keeps
        if total > PATHS_LIMIT:
            raise RindleError(
                f"nodes[{index}]: the paths so far have {total} elements; a model has at most {PATHS_LIMIT}"
            )
    for name in tables.keys() - used_tables:
        raise RindleError(f"tables.{name} is not used by any operation")
    graph = Graph(input_size, graph.nodes, _read_output(top, version, graph), vocabulary)
    if "golden" not in document:
        raise RindleError(
            "golden is missing: a file without a golden vector cannot be verified; convert the model again"
        )
    golden = _read_golden(Fields(top.take("golden", dict), "golden"), store, graph, input_format)
    provenance = top.take("provenance", dict)
    top.done()
    store.done()
    artifact = Artifact(graph, input_format, golden, provenance)
    version.check_used(artifact.needs)
    return artifact


def _read_output(top: Fields, version: Version, graph: Graph) -> str:
    """The node whose value is the model's; from version 4 on it stands in a list, of one for now."""
    if version < 4:
        output = top.take("output", str)
    else:
        outputs = names(top.take("outputs", list), "outputs")
        if len(outputs) != 1:
            raise RindleError(f"outputs has {len(outputs)} entries; a model has one output")
        (output,) = outputs
    if output not in [node.name for node in graph.nodes]:
        raise RindleError(f"output is {short(output)}, which is not a node")
    return output


def _read_input(entry: Fields, version: int) -> tuple[int, int, Format | None]:
    """Features of a frame, vocabulary (0: none), format (None for ids)."""
    if version > 1 and entry.has("vocabulary"):
        found = 1, entry.integer("vocabulary", 1, SIZE_LIMIT), None
    else:
        size = entry.integer("size", 1, SIZE_LIMIT)
        form = Fields(entry.take("format", dict), "input.format")
        found = size, 0, read_format(form, product=False)
        form.done()
    entry.done()
    return found


def _read_node(entry: Fields, version: int, graph: Graph, input_format, store, tables, used_tables) -> Node:
    name, kind = entry.take("name", str), entry.take("kind", str)
    where = f"node {name!r}"
    known = [INPUT, *(node.name for node in graph.nodes)]
    if name in known:
        raise RindleError(f"{entry.where}.name is {name!r}, which is taken")
    if kind not in KINDS_OF[version]:
        raise RindleError(f"{where}.kind is {kind!r}; it must be one of {', '.join(KINDS_OF[version])}")
    op = FloatOp(entry.take("op", str)) if kind == "float" else None
    if op and op.name not in float_ops.NAMES:
        raise RindleError(f"{where}.op is {op.name!r}; it must be one of {', '.join(float_ops.NAMES)}")
    source = _read_sources(entry, where, kind, op, version)
    sources = source if isinstance(source, tuple) else (source,)
    for one in sources:
        if one not in known:
            raise RindleError(f"{where}.input is {short(one)}, which is neither the input nor an earlier node")
        if (kind == "embedding") != (one == INPUT and graph.vocabulary > 0):
            raise RindleError(
                f"{where}.input is {one!r}; ids, and nothing else, are read by embeddings, and by nothing else"
            )
        if kind != "float" and graph.is_float(one):
            raise RindleError(f"{where}.input is {one!r}, which is of float values; only float nodes read them")
    _check_alike(where, sources, graph)
    sequence = graph.is_sequence(sources[0])
    if not sequence and kind in ("last", "first", "mean", "max", "window"):
        raise RindleError(f"{where}.input is {source!r}, which is not a sequence")
    node = Node(name, kind, source, op=op)
    if kind == "program":
        node = _read_program_node(entry, node, version, graph, input_format, (store, tables, used_tables))
    elif kind == "embedding":
        node = replace(node, table=_read_embedding(entry, where, graph.vocabulary, store))
    elif kind == "concat":
        _check_concat(where, sources, graph, input_format)
    elif kind == "window":
        node = replace(node, window=_read_window(entry, where, graph.size_of(source)))
    elif kind == "gather":
        index = store.take(entry.take("index", str), f"{where}.index", np.int32, (None,))
        features = graph.size_of(source)
        if index.min() < 0 or index.max() >= features or len(index) > SIZE_LIMIT:
            raise RindleError(f"{where}.index must have at most {SIZE_LIMIT} entries, each 0..{features - 1}")
        node = replace(node, index=tuple(index.tolist()))
    elif kind == "float":
        node = replace(node, op=_read_float(entry, where, op.name, sources, graph, store))
    entry.done()
    return node


def _read_sources(entry: Fields, where: str, kind: str, op: FloatOp | None, version: int) -> str | tuple[str, ...]:
    """One name, or an array of several where the kind takes that."""
    if op:
        least = most = float_ops.SOURCES.get(op.name, 1)
    else:
        several = {"concat": (2, SOURCES_LIMIT)} | ({"program": (1, SOURCES_LIMIT)} if version > 2 else {})
        least, most = several.get(kind, (1, 1))
    if most == 1 or (least == 1 and not entry.is_list("input")):
        return entry.take("input", str)
    source, least = names(entry.take("input", list), f"{where}.input"), max(least, 2)
    if not least <= len(source) <= most:
        wanted = str(least) if least == most else f"{least}..{most}"
        raise RindleError(f"{where}.input has {len(source)} entries; a {op.name if op else kind} has {wanted}")
    return source


def _check_alike(where: str, sources: tuple[str, ...], graph: Graph) -> None:
    """What a node joins is all sequences of one time base, or all vectors."""
    first = sources[0]
    for one in sources[1:]:
        if graph.is_sequence(one) != graph.is_sequence(first):
            raise RindleError(f"{where}.input: one of {first!r} and {one!r} is a sequence, the other a vector")
        if graph.is_sequence(first) and graph.time_base(one) != graph.time_base(first):
            raise RindleError(f"{where}.input: {first!r} and {one!r} differ in their number of frames")


def _read_program_node(entry: Fields, node: Node, version: int, graph: Graph, input_format, shared: tuple) -> Node:
    where, sequence = f"node {node.name!r}", graph.is_sequence(node.sources[0])
    reverse = version > 1 and entry.has("reverse")
    if reverse and not entry.take("reverse", bool):
        raise RindleError(f"{where}.reverse is false; it must be true, or left out")
    if reverse and not sequence:
        raise RindleError(f"{where}.reverse is true, but its input {node.source!r} is not a sequence")
    inputs = [(graph.size_of(one), graph.format_of(one, input_format)) for one in node.sources]
    layer = read_program(Fields(entry.take("program", dict), where), version, inputs, *shared)
    if layer.program.states and not sequence:
        raise RindleError(f"{where} has states, but its input {node.source!r} is not a sequence")
    return replace(node, layer=layer, reverse=reverse)


def _read_embedding(entry: Fields, where: str, rows: int, store: Tensors) -> Embedding:
    size = entry.integer("size", 1, SIZE_LIMIT)
    form = Fields(entry.take("format", dict), f"{where}.format")
    fmt = read_format(form, product=False)
    form.done()
    if not fmt.signed:
        raise RindleError(f"{where}.format: embeddings are signed")
    shape = rows, (size * fmt.bits + 7) // 8
    packed = store.take(entry.take("weight", str), f"{where}.weight", np.uint8, shape)
    return Embedding(unpack_codes(packed, fmt.as_product(), size, f"{where}.weight"), fmt)


def _read_window(entry: Fields, where: str, features: int) -> Window:
    size, dilation, stride = (entry.integer(key, 1, WINDOW_LIMIT) for key in ("size", "dilation", "stride"))
    window = Window(size, dilation, stride, *(entry.integer(key, 0, SIZE_LIMIT) for key in ("before", "after")))
    if window.reach > SIZE_LIMIT or features * size > SIZE_LIMIT:
        raise RindleError(
            f"{where} joins {size} frames of {features} features over {window.reach + 1} frames; at most {SIZE_LIMIT} "
            f"features and {SIZE_LIMIT + 1} frames are allowed"
        )
    return window


def _read_float(
    entry: Fields, where: str, name: str, sources: tuple[str, ...], graph: Graph, store: Tensors
) -> FloatOp:
    """The parameters of a float node."""
    sizes, parameters = [graph.size_of(one) for one in sources], {}

    def take(key: str, shape: tuple) -> None:
        values = store.take(entry.take(key, str), f"{where}.{key}", np.float32, shape)
        if not np.isfinite(values).all():
            raise RindleError(f"{where}.{key} holds a value that is not finite")
        parameters[key] = values

    if name in ("softmax", "log_softmax"):
        parameters["groups"] = entry.integer("groups", 1, SIZE_LIMIT)
        if sizes[0] % parameters["groups"]:
            raise RindleError(f"{where}.groups is {parameters['groups']}, which does not divide {sizes[0]} features")
    elif name == "layer_norm":
        parameters["epsilon"] = entry.take("epsilon", float)
        if parameters["epsilon"] < 0:
            raise RindleError(f"{where}.epsilon is {parameters['epsilon']}; it must not be negative")
        for key in ("weight", "bias"):
            if entry.has(key):
                take(key, (sizes[0],))
    elif name == "linear":
        take("weight", (None, sizes[0]))
        if len(parameters["weight"]) > SIZE_LIMIT:
            raise RindleError(f"{where}.weight has {len(parameters['weight'])} rows; at most {SIZE_LIMIT} are allowed")
        if entry.has("bias"):
            take("bias", (len(parameters["weight"]),))
    elif name == "attention":
        if not graph.is_sequence(sources[0]) or sizes[0] != 1:
            raise RindleError(f"{where}.input: the scores of an attention must be a sequence of 1 feature")
    elif len(set(sizes)) > 1:
        raise RindleError(f"{where}.input: {name} joins {sizes[0]} and {sizes[1]} features; they must agree")
    return FloatOp(name, parameters)


def _check_concat(where: str, sources: tuple[str, ...], graph: Graph, input_format) -> None:
    """Of one format."""
    first, *others = (graph.format_of(one, input_format) for one in sources)
    for name, other in zip(sources[1:], others):
        if other != first:
            raise RindleError(f"{where}.input: {sources[0]!r} is {first} and {name!r} is {other}; they must agree")
    size = sum(map(graph.size_of, sources))
    if size > SIZE_LIMIT:
        raise RindleError(f"{where}.input has {size} features in all; at most {SIZE_LIMIT} are allowed")


def _read_golden(entry: Fields, store: Tensors, graph: Graph, input_format: Format) -> Golden:
    ids = graph.vocabulary > 0
    dtype, shape = (np.int32, (None, None)) if ids else (np.int16, (None, None, graph.input_size))
    inputs = store.take(entry.take("inputs", str), "golden.inputs", dtype, shape)
    batch, time = inputs.shape[:2]
    if batch * time > GOLDEN_LIMIT:
        raise RindleError(f"golden.inputs has {batch * time} frames; at most {GOLDEN_LIMIT} are allowed")
    if not ids:
        check_range(inputs, input_format, "golden.inputs")
    elif inputs.min() < 0 or inputs.max() >= graph.vocabulary:
        worst = inputs.min() if inputs.min() < 0 else inputs.max()
        raise RindleError(f"golden.inputs holds the id {worst}; it must be 0..{graph.vocabulary - 1}")
    lengths = store.take(entry.take("lengths", str), "golden.lengths", np.int32, (batch,))
    if lengths.min() < 1 or lengths.max() > time:
        raise RindleError(f"golden.lengths must be 1..{time}")
    if lengths.min() < graph.least_frames:
        raise RindleError(f"golden.lengths holds {lengths.min()}; the windows need rows of {graph.least_frames} frames")
    size, frames = graph.size_of(graph.output), time
    after = lengths
    if graph.is_sequence(graph.output):
        frames, after = (
            graph.frames(graph.output, time),
            np.array([graph.frames(graph.output, int(n)) for n in lengths]),
        )
    shape = (batch, frames, size) if graph.is_sequence(graph.output) else (batch, size)
    is_float = graph.is_float(graph.output)
    dtype = np.float32 if is_float else np.int16
    outputs = store.take(entry.take("outputs", str), "golden.outputs", dtype, shape)
    if not is_float:
        check_range(outputs, graph.format_of(graph.output, input_format), "golden.outputs")
    elif not np.isfinite(outputs).all():
        raise RindleError("golden.outputs holds a value that is not finite")
    if outputs.ndim == 3 and outputs[np.arange(frames) >= after[:, None]].any():
        raise RindleError("golden.outputs is not 0 past a row's length")
    entry.done()
    return Golden(inputs, lengths, outputs)
