"""Size and eliminated operations as Rezk et al. 2022 count them, beside our own (``cost``), which are those of the file and
of the runtime. Where the two directions of a layer share their weights, as in pytorch-kaldi, the paper counts them once.

    size:       Σ matrices' weights · bits + 16 · (biases and vectors), no overhead, in MB of 2^20 bytes; compression against
                the same with 32 bits for the matrices
    operations: multiply-accumulates of all layers, W·x of shared weights once and U·h for both directions, each at the
                measured density of its input; a 16-bit input counts as 97 % dense, since it hardly repeats, and so do
                the element-wise operations, one for each number in biases and vectors, where they are asked for
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..engines.measurement import Input, Measurement
from ..errors import RindleError
from ..program.nodes import ProgramNode
from ..program.products import blocks_of, terms_of_node

FORMULAS = ("rezk",)
WIDE_DENSITY = 0.97  # of inputs in 16-bit fixed point
FLOAT_BITS, VECTOR_BITS, WIDE_BITS = 32, 16, 16


@dataclass(frozen=True)
class Size:
    """matrices: (weights, bits) of each. vectors: numbers in biases and other vectors."""

    matrices: tuple[tuple[int, int], ...]
    vectors: int

    @property
    def megabytes(self) -> float:
        return self._megabytes(sum(count * bits for count, bits in self.matrices))

    @property
    def float_megabytes(self) -> float:
        return self._megabytes(sum(count * FLOAT_BITS for count, _ in self.matrices))

    @property
    def compression(self) -> float:
        """Share of the float size that is saved."""
        return 1 - self.megabytes / self.float_megabytes

    def _megabytes(self, bits: int) -> float:
        return (bits + VECTOR_BITS * self.vectors) / 8 / 2**20


@dataclass(frozen=True)
class Part:
    """Operations that share an input. macs: in any unit. density: share of the input that changed, 0..1. wide: share of the
    operations whose input has 16 bits.
    """

    macs: float
    density: float
    wide: float = 0.0


def check_formula(name: str | None) -> None:
    if name not in (None, *FORMULAS):
        raise RindleError(f"unknown formula {name!r}; there are {', '.join(FORMULAS)}")


def executed(parts: Iterable[Part]) -> float:
    """Share of the operations that changed inputs ask for, 0..1."""
    parts = list(parts)
    done = sum(part.macs * (part.wide * WIDE_DENSITY + (1 - part.wide) * part.density) for part in parts)
    return done / sum(part.macs for part in parts)


def size_by_rules(graph, rules, vectors: int | None = None) -> Size:
    """Before conversion, from shapes and a scheme's rules (``scheme.resolve``). vectors: their count, where it is known better
    than from the cells, whose batch norm is folded.
    """
    shared = shared_directions(graph)
    matrices = [(one.weights, rules[one.weight_key].bits) for one in blocks_of(graph) if one.node.name not in shared]
    return Size(tuple(matrices), sum(_vectors(graph, shared).values()) if vectors is None else vectors)


def size_of(artifact) -> Size:
    """Of a converted model, embeddings included."""
    matrices = [(node.rows.size, node.format.bits) for node in artifact.graph.embeddings]
    shared = shared_directions(artifact.graph)
    matrices += [(one.weights, one.bits) for one in blocks_of(artifact.graph) if one.node.name not in shared]
    return Size(tuple(matrices), sum(_vectors(artifact.graph, shared).values()))


def executed_of(artifact, measured: Measurement, elementwise: bool = False) -> float:
    """Share of the operations that ran, from what was measured with every input held (θ = 0 leaves the integers as they are).
    Element-wise operations are left out unless they are asked for: 0.02 % of the published models' (SRU: 0.2 %).
    """
    shared = shared_directions(artifact.graph)
    every = (*measured.inputs, *measured.others)
    parts = [_part(artifact, one, shared) for one in every]
    if elementwise:
        parts += _elementwise(artifact.graph, shared, {one.node: one.frames for one in every})
    return executed(parts)


def executed_by_rules(graph, rules, densities: dict[tuple[str, str], float], elementwise: bool = False) -> float:
    """As ``executed_of``, of a graph that was not converted. rules: as ``scheme.resolve`` gives. densities: (node, source) ->
    share of its elements that changed, of every source that a product reads with fewer than 16 bits. Every node is taken to
    run once in a frame of the model.
    """
    shared = shared_directions(graph)
    parts = []
    for one in blocks_of(graph):
        wide = rules[one.code_key].bits == WIDE_BITS
        density = WIDE_DENSITY if wide else densities[one.node.name, one.source]
        parts.append(Part(_times(one.node.name, one.hidden, shared) * one.macs, density, float(wide)))
    if elementwise:
        parts += _elementwise(graph, shared, {})
    return executed(parts)


def _vectors(graph, shared: dict[str, str]) -> dict[str, int]:
    """Node -> its numbers in biases and other vectors."""
    found = {}
    for node in graph.programs:
        if node.name not in shared:
            program = node.layer.program
            biases = (gate for op in program.affines for gate in op.biased)
            found[node.name] = sum(program.block_shape(one)[0] for one in (*biases, *program.vectors))
    return found


def _elementwise(graph, shared: dict[str, str], frames: dict[str, int]) -> list[Part]:
    return [Part(count * frames.get(node, 1), WIDE_DENSITY, 1.0) for node, count in _vectors(graph, shared).items()]


def _times(node: str, hidden: bool, shared: dict[str, str]) -> float:
    """How often a frame multiplies by a matrix: each direction counts for half of the one W·x."""
    return 0.5 if (node in shared or node in shared.values()) and not hidden else 1.0


def _part(artifact, one: Input, shared: dict[str, str]) -> Part:
    node, code = artifact.held_codes()[one.name]
    wide = artifact.graph.program(node).layer.formats[code].bits == WIDE_BITS
    return Part(_times(node, one.hidden, shared) * one.macs * one.frames, one.density, float(wide))


def shared_directions(graph) -> dict[str, str]:
    """A layer that runs backwards -> the one that runs forwards, on the same inputs and with the same weights. graph: of an
    artifact, or a captured one; where only shapes are known, nothing is shared.
    """
    nodes = graph.programs
    return {
        back.name: ahead.name
        for back in nodes
        for ahead in nodes
        if back.reverse and not ahead.reverse and back.sources == ahead.sources and _same_weights(back, ahead)
    }


def _same_weights(a: ProgramNode, b: ProgramNode) -> bool:
    """Of their matrices; biases and vectors may differ as little as batch norms do. Of a converted layer with a path in 16 bits
    the codes may differ, since steps grow there by what the two directions multiply (docs/numerics.md, 8c): ask the captured graph.
    """
    one, other = _matrices(a), _matrices(b)
    return one.keys() == other.keys() and all(
        bits == other[name][0] and np.array_equal(weight, other[name][1]) for name, (bits, weight) in one.items()
    )


def _matrices(node: ProgramNode) -> dict[str, tuple[int, np.ndarray]]:
    """Name -> bits (of floats 32), weights [rows, columns]."""
    layer = node.layer
    if hasattr(layer, "blocks"):
        return {name: (FLOAT_BITS, np.asarray(block.detach())) for name, block in layer.blocks.items() if "." in name}
    return {str(one.term.key): (one.product.format.bits, one.product.weight) for one in terms_of_node(node)}
