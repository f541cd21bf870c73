"""A model as plain data: its nodes, the formats of its paths, its products, and what they take. What `rindle inspect` shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engines.measurement import measured_inputs
from ..program.nodes import INPUT
from ..program.products import terms_of
from .cost import sizes
from .widths import hardware


@dataclass(frozen=True)
class NodeEntry:
    """A node, or the model's input. label: its kind, for people. value: shape of one row's value. format: of its codes, or of what
    it is instead."""

    name: str
    kind: str
    label: str
    reads: tuple[str, ...]
    value: str
    format: str


@dataclass(frozen=True)
class PathEntry:
    """made_by: the kind of operation; "" for inputs, states and vectors. max_error, segments: of a table, else None; segments: "linear
    64"."""

    path: str
    size: int
    format: str
    made_by: str
    max_error: float | None
    segments: str | None


@dataclass(frozen=True)
class ProductEntry:
    """shape: of the matrix. bits, levels (the name of their set), scale: of its weights. code: format of what it multiplies. accumulator_bits: signed. theta: None where
    the code is dense. kernel: of a convolution, else None."""

    product: str
    shape: tuple[int, int]
    bits: int
    levels: str
    scale: str
    code: str
    accumulator_bits: int
    theta: int | np.ndarray | None
    kernel: tuple[int, int] | None


@dataclass(frozen=True)
class Description:
    """nodes: the model's input first. recurrent_macs: multiply-accumulates of the recurrent layers per frame, dense. sizes: bytes of the
    file by what they hold."""

    nodes: tuple[NodeEntry, ...]
    paths: tuple[PathEntry, ...]
    products: tuple[ProductEntry, ...]
    recurrent_macs: int
    sizes: dict[str, int]


def describe(artifact) -> Description:
    """An ``Artifact`` -> what it consists of."""
    recurrent = sum(one.macs for one in measured_inputs(artifact, {}, [artifact.graph.least_frames]))
    return Description(_nodes(artifact), _paths(artifact), _products(artifact), recurrent, sizes(artifact))


def _nodes(artifact) -> tuple[NodeEntry, ...]:
    graph = artifact.graph
    if graph.vocabulary:
        first = NodeEntry(INPUT, "", "", (), "[T]", f"ids 0..{graph.vocabulary - 1}")
    else:
        first = NodeEntry(INPUT, "", "", (), f"[T, {graph.input_size}]", str(artifact.input_format))
    found = [first]
    for node in graph.nodes:
        size = graph.size_of(node.name)
        value = f"[T, {size}]" if graph.is_sequence(node.name) else f"[{size}]"
        fmt = str(artifact.format_of(node.name) or "float32")
        found.append(NodeEntry(node.name, node.kind, node.label, node.sources, value, fmt))
    return tuple(found)


def _paths(artifact) -> tuple[PathEntry, ...]:
    found = []
    for node in artifact.graph.programs:
        layer, program = node.layer, node.layer.program
        made = {out: op for op in program.ops for out in op.out}
        for path in (*program.inputs, *(state for state, _ in program.states), *program.vectors, *made):
            kind = made[path].kind if path in made else ""
            table = layer.constants[path] if kind == "table" else None
            error = table and table.max_error
            segments = table and f"{'linear' if table.degree else 'direct'} {len(table.base)}"
            name = f"{node.name}/{path}"
            found.append(PathEntry(name, program.sizes[path], str(layer.formats[path]), kind, error, segments))
    return tuple(found)


def _products(artifact) -> tuple[ProductEntry, ...]:
    found = []
    for one, widths in zip(terms_of(artifact.graph), hardware(artifact).products, strict=True):
        scale = "a scale per row" if one.product.row_scales is not None else str(one.product.format)
        found.append(
            ProductEntry(
                one.name,
                one.product.weight.shape,
                one.product.format.bits,
                one.product.format.level_set.name,
                scale,
                str(one.code_format),
                widths.accumulator,
                one.node.layer.thetas.get(one.term.code),
                one.term.conv and tuple(one.term.conv.kernel),
            )
        )
    return tuple(found)
