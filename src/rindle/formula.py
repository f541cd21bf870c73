"""Size and eliminated operations as Rezk et al. 2022 count them, beside our own (``cost``), which are those of the file and
of the runtime. Where the two directions of a layer share their weights, as in pytorch-kaldi, the paper counts them once.

    size:       Σ matrices' weights · bits + 16 · (biases and vectors), no overhead, in MB of 2^20 bytes; compression against
                the same with 32 bits for the matrices
    operations: multiply-accumulates of all layers, W·x of shared weights once and U·h for both directions, each at the
                measured density of its input; a 16-bit input counts as 97 % dense, since it hardly repeats
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .cost import Input, Measurement
from .formats import RindleError
from .graph import Node

FORMULAS = ("rezk",)
WIDE_DENSITY = 0.97  # of inputs in 16-bit fixed point
FLOAT_BITS, VECTOR_BITS = 32, 16


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
    matrices, counted = [], 0
    for node in graph.programs:
        program = node.layer.program
        for gate, source in program.products:
            rows, columns = program.block_shape(f"{gate}.{source}")
            matrices.append((rows * columns, rules[node.name, f"weight.{gate}.{source}"].bits))
        biases = (gate for op in program.affines for gate in op.biased)
        counted += sum(program.block_shape(one)[0] for one in (*biases, *program.vectors))
    return Size(tuple(matrices), counted if vectors is None else vectors)


def size_of(artifact) -> Size:
    """Of a converted model, embeddings included."""
    matrices = [(node.table.rows.size, node.table.format.bits) for node in artifact.graph.embeddings]
    vectors = 0
    shared = shared_directions(artifact)
    for node in artifact.graph.programs:
        if node.name in shared:
            continue
        program, constants = node.layer.program, node.layer.constants
        matrices += [
            (product.weight.size, product.format.bits)
            for op in program.affines
            for product in constants[op.out[0]].products
        ]
        biases = (gate for op in program.affines for gate in op.biased)
        vectors += sum(program.block_shape(one)[0] for one in (*biases, *program.vectors))
    return Size(tuple(matrices), vectors)


def executed_of(artifact, measured: Measurement) -> float:
    """Share of the operations that ran, from what was measured with every input held (θ = 0 leaves the integers as they are).
    Element-wise operations are left out: 0.02 % of the published models' (SRU: 0.2 %).
    """
    shared = shared_directions(artifact)
    return executed(_part(artifact, one, shared) for one in (*measured.inputs, *measured.others))


def _part(artifact, one: Input, shared: dict[str, str]) -> Part:
    node, code = artifact.held_codes()[one.name]
    wide = artifact.graph.node(node).layer.formats[code].bits == 16
    both = node in shared or node in shared.values()
    times = 0.5 if both and not one.hidden else 1.0  # each direction counts for half of the one W·x
    return Part(times * one.macs * one.frames, one.density, float(wide))


def shared_directions(artifact) -> dict[str, str]:
    """A layer that runs backwards -> the one that runs forwards, on the same inputs and with the same weights."""
    nodes = artifact.graph.programs
    return {
        back.name: ahead.name
        for back in nodes
        for ahead in nodes
        if back.reverse and not ahead.reverse and back.sources == ahead.sources and _same_weights(back, ahead)
    }


def _same_weights(a: Node, b: Node) -> bool:
    """Of their matrices; biases and vectors may differ as little as batch norms do."""
    one, other = (
        [p for op in node.layer.program.affines for p in node.layer.constants[op.out[0]].products] for node in (a, b)
    )
    return [t.weight for op in a.layer.program.affines for t in op.terms] == [
        t.weight for op in b.layer.program.affines for t in op.terms
    ] and all(p.format.bits == q.format.bits and np.array_equal(p.weight, q.weight) for p, q in zip(one, other))
