"""The products of a graph: one walk over what has parameters, and one over what is multiplied.

A *block* is the matrix of one gate and one source; a *term* multiplies the blocks of a run of gates with one code. Blocks
count parameters. Terms count multiply-accumulates and stored bits: where weights have several planes, each is a term of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..numbers.codes import Product
from ..numbers.formats import Format
from .graph import Graph
from .nodes import ProgramNode
from .program import Op, Term


@dataclass(frozen=True)
class WeightBlock:
    """A block of a layer, by its shape alone. rows, columns: of its matrix. pixels: how often a frame multiplies it."""

    node: ProgramNode
    gate: str
    source: str
    rows: int
    columns: int
    pixels: int

    @property
    def weights(self) -> int:
        """The number of its parameters."""
        return self.rows * self.columns

    @property
    def macs(self) -> int:
        """Multiply-accumulates per frame, of one plane."""
        return self.weights * self.pixels

    @property
    def hidden(self) -> bool:
        """Whether it multiplies the layer's own state, or what is made of it within the frame."""
        return self.source in self.node.layer.program.hidden

    @property
    def bits(self) -> int:
        """The bits of one of its weights in a converted layer, all planes together."""
        mine = (
            one for one in terms_of_node(self.node) if one.term.source == self.source and self.gate in one.term.gates
        )
        return sum(one.product.format.bits for one in mine)

    @property
    def weight_key(self) -> tuple[str, str]:
        """The key of the rule for its weights, as ``scheme.resolve`` gives them."""
        return self.node.name, f"weight.{self.gate}.{self.source}"

    @property
    def code_key(self) -> tuple[str, str]:
        """The key of the rule for the code that it multiplies."""
        return self.node.name, f"code.{self.gate}.{self.source}"


@dataclass(frozen=True)
class ConvertedTerm:
    """A term of a converted layer. op: its affine. product: its weights and multipliers."""

    node: ProgramNode
    op: Op
    term: Term
    product: Product

    @property
    def name(self) -> str:
        """The node and the matrix: "rnn.l0/i+f+g+o.h"."""
        return f"{self.node.name}/{self.term.key}"

    @property
    def weights(self) -> int:
        """The number of its stored codes."""
        return self.product.weight.size

    @property
    def bits(self) -> int:
        """The bits of all its weights, without padding."""
        return self.weights * self.product.format.bits

    @property
    def macs(self) -> int:
        """Multiply-accumulates per frame: every weight at every pixel of a convolution's result."""
        return self.weights * self.op.pixels

    @property
    def code_format(self) -> Format:
        """The format of the code that it multiplies."""
        return self.node.layer.formats[self.term.code]

    @property
    def hidden(self) -> bool:
        """Whether it multiplies the layer's own state, or what is made of it within the frame."""
        return self.term.source in self.node.layer.program.hidden


def blocks_of(graph: Graph) -> Iterator[WeightBlock]:
    """Every block of a graph's layers, once, in program order; the graph may be a captured or a converted one."""
    for node in graph.programs:
        yield from blocks_of_node(node)


def blocks_of_node(node: ProgramNode) -> Iterator[WeightBlock]:
    """Every block of one layer, once, in program order."""
    program = node.layer.program
    for gate, source in program.blocks:
        yield WeightBlock(node, gate, source, *program.matrix_shape(gate, source), program.pixels_of(gate))


def terms_of(graph: Graph) -> Iterator[ConvertedTerm]:
    """Every term of a converted graph's layers, in program order."""
    for node in graph.programs:
        yield from terms_of_node(node)


def terms_of_node(node: ProgramNode) -> Iterator[ConvertedTerm]:
    """Every term of one converted layer, in program order."""
    for op in node.layer.program.affines:
        for term, product in zip(op.terms, node.layer.constants[op.out[0]].products, strict=True):
            yield ConvertedTerm(node, op, term, product)
