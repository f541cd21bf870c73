"""The JSON document and the tensors of a .rindle file <-> an :class:`~rindle.file.artifact.Artifact`.

A file is hostile until every rule of docs/format.md has been checked, here and in core/file/document*.cc alike.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import RindleError
from ..numbers.formats import Format
from ..program.graph import Graph
from ..program.nodes import INPUT
from . import limits
from .artifact import VERSION, Artifact, Golden
from .fields import Fields, Tensors, check_range, names, read_format, short, write_format
from .needs import Version
from .nodes import read_node, write_node
from .read_program import read_table
from .reading import Reading


def to_document(artifact: Artifact) -> tuple[dict, dict[str, np.ndarray]]:
    """The document, without its id, and the tensors that it names."""
    document, tensors = describe(artifact)
    golden = artifact.golden
    tensors["golden/inputs"] = np.asarray(golden.inputs, np.int32 if artifact.graph.vocabulary else np.int16)
    tensors["golden/lengths"] = np.asarray(golden.lengths, np.int32)
    is_float = artifact.graph.is_float(artifact.graph.output)
    tensors["golden/outputs"] = np.asarray(golden.outputs, np.float32 if is_float else np.int16)
    document["golden"] = {part: f"golden/{part}" for part in ("inputs", "lengths", "outputs")}
    document["provenance"] = artifact.provenance
    return document, tensors


def describe(artifact: Artifact) -> tuple[dict, dict[str, np.ndarray]]:
    """What the model computes: the document and its tensors, without id, golden vector and provenance."""
    tensors: dict[str, np.ndarray] = {}
    tables: dict[str, dict] = {}
    nodes = [write_node(node, tensors, tables) for node in artifact.graph.nodes]
    document = {
        "version": artifact.version,
        "input": _write_input(artifact.graph, artifact.input_format),
        "nodes": nodes,
        "tables": tables,
    }
    if artifact.version < 4:
        document["output"] = artifact.graph.output
    else:
        document |= {"needs": list(artifact.needs), "outputs": [artifact.graph.output]}
    return document, tensors


def _write_input(graph: Graph, fmt: Format | None) -> dict:
    if fmt is None:
        return {"vocabulary": graph.vocabulary}
    return {"size": graph.input_size, "format": write_format(fmt)}


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
    total = 0
    entries = top.take("nodes", list)
    if not 1 <= len(entries) <= limits.NODES:
        raise RindleError(f"nodes has {len(entries)} entries; a model has 1..{limits.NODES}")
    reading = Reading(version, store, tables, Graph(input_size, (), INPUT, vocabulary), input_format)
    for index, value in enumerate(entries):
        node = read_node(reading, Fields(value, f"nodes[{index}]"))
        total += node.elements(reading.graph.sizes_of(node.sources))
        reading.graph = replace(reading.graph, nodes=(*reading.graph.nodes, node))
        if total > limits.PATHS:
            raise RindleError(
                f"nodes[{index}]: the paths so far have {total} elements; a model has at most {limits.PATHS}"
            )
    for name in tables.keys() - reading.used_tables:
        raise RindleError(f"tables.{name} is not used by any operation")
    graph = replace(reading.graph, output=_read_output(top, version, reading.graph))
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
        found = 1, entry.integer("vocabulary", 1, limits.SIZE), None
    else:
        size = entry.integer("size", 1, limits.SIZE)
        form = Fields(entry.take("format", dict), "input.format")
        found = size, 0, read_format(form, product=False)
        form.done()
    entry.done()
    return found


def _read_golden(entry: Fields, store: Tensors, graph: Graph, input_format: Format | None) -> Golden:
    ids = graph.vocabulary > 0
    dtype, shape = (np.int32, (None, None)) if ids else (np.int16, (None, None, graph.input_size))
    inputs = store.take(entry.take("inputs", str), "golden.inputs", dtype, shape)
    batch, time = inputs.shape[:2]
    if batch * time > limits.GOLDEN:
        raise RindleError(f"golden.inputs has {batch * time} frames; at most {limits.GOLDEN} are allowed")
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
