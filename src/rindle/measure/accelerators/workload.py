"""What a step asks of hardware: its products with their widths, and what stands beside them."""

from __future__ import annotations

from dataclasses import dataclass

from ...file.artifact import Artifact

VECTOR_BITS = 16  # of biases and constant vectors, as the published models count them


@dataclass(frozen=True)
class Products:
    """Products of one matrix. macs: per frame. weights: how many. weight_bits, code_bits: of what is multiplied."""

    name: str
    macs: int
    weights: int
    weight_bits: int
    code_bits: int


@dataclass(frozen=True)
class Workload:
    """Of one frame through a model. elementwise: operations outside the products, one per result. vectors: biases and constants,
    one number each.
    """

    products: tuple[Products, ...]
    elementwise: int
    vectors: int

    @property
    def operations(self) -> int:
        """Multiply-accumulates and element-wise operations: the base of speedups."""
        return sum(one.macs for one in self.products) + self.elementwise

    @property
    def bits(self) -> int:
        """Of all weights and vectors."""
        return sum(one.weights * one.weight_bits for one in self.products) + VECTOR_BITS * self.vectors


def workload_of(artifact: Artifact) -> Workload:
    """Of all layers with products, dense: a threshold changes nothing here. Embeddings are looked up, not multiplied."""
    products, elementwise, vectors = [], 0, 0
    for node in artifact.graph.programs:
        layer = node.layer
        program = layer.program
        vectors += sum(len(values) for values in layer.vectors.values())
        for op in program.ops:
            if op.kind not in ("affine", "requantize"):
                elementwise += program.sizes[op.out[0]]
            if op.kind != "affine":
                continue
            vectors += sum(program.block_shape(gate)[0] for gate in op.biased)
            for term, product in zip(op.terms, layer.constants[op.out[0]].products):
                name = f"{node.name}/{'+'.join(term.gates)}.{term.source}"
                macs, bits = product.weight.size * op.pixels, layer.formats[term.code].bits
                products.append(Products(name, macs, product.weight.size, product.format.bits, bits))
    return Workload(tuple(products), elementwise, vectors)
