"""What a step asks of hardware: its products with their widths, and what stands beside them."""

from __future__ import annotations

from dataclasses import dataclass

from ...file.artifact import Artifact
from ...program.products import terms_of

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
    elementwise = vectors = 0
    products = tuple(
        Products(one.name, one.macs, one.weights, one.product.format.bits, one.code_format.bits)
        for one in terms_of(artifact.graph)
    )
    for node in artifact.graph.programs:
        layer = node.layer
        program = layer.program
        vectors += sum(len(values) for values in layer.vectors.values())
        for op in program.ops:
            if op.kind not in ("affine", "requantize"):
                elementwise += program.sizes[op.out[0]]
            vectors += sum(program.block_shape(gate)[0] for gate in op.biased)
    return Workload(products, elementwise, vectors)
