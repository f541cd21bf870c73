"""Real-valued numerics for ``program.step`` in NumPy float64: what an artifact's program would compute without rounding.

The parameters are the artifact's own, dequantized, or any others of the same shapes. Needs no torch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import RindleError
from ..file.artifact import Artifact, Layer
from ..numbers.codes import NumPy, product_of
from ..numbers.tables import FUNCTIONS
from ..program.graph import Graph
from ..program.nodes import EmbeddingNode, Node

Blocks = dict[str, np.ndarray]  # block -> float64: matrices ``gate.source`` [rows, columns], biases ``gate``, vectors


class Floats(NumPy):
    """The array namespace that ``graph.execute`` needs, over real values."""

    @staticmethod
    def array(values):
        return np.asarray(values, np.float64)

    @staticmethod
    def zeros(rows: int, columns: int):
        return np.zeros((rows, columns))

    @staticmethod
    def mean(total, count: int):
        return total / count


class Real:
    """float64: every operation as its equation. Formats do not exist, so requantize does nothing."""

    def __init__(self, layer: Layer, blocks: Blocks):
        self.layer, self.program, self.frames = layer, layer.program, 0
        self.vectors = {name: blocks[name] for name in self.program.vectors}
        self._terms, self._biases = {}, {}
        for op in self.program.affines:
            self._terms[op.out] = [
                (i, product_of(Floats, term, np.concatenate(matrices), self.program.sizes), term.gates)
                for i, term in enumerate(op.terms)
                for matrices in [[blocks[f"{gate}.{term.source}"] for gate in term.gates]]
                if term.plane == 0  # a block is the sum of its planes
            ]
            self._biases[op.out] = {gate: np.repeat(blocks.get(gate, 0.0), op.pixels) for gate in op.out}

    def initial(self, batch: int) -> tuple[dict, dict]:
        size = self.program.sizes
        states = {state: np.zeros((batch, size[state])) for state, _ in self.program.states}
        for state, codes in self.layer.initial.items():
            states[state] = states[state] + codes * self.layer.formats[state].scale
        return states, {}

    def affine(self, op, *codes):
        size, sums = self.program.sizes, dict(self._biases[op.out])
        for i, product, gates in self._terms[op.out]:
            for gate, part in zip(gates, Floats.split(product(codes[i]), [size[gate] for gate in gates])):
                sums[gate] = sums[gate] + part
        return tuple(sums.values())

    def requantize(self, op, x):
        return x

    def add(self, op, a, b):
        return a + b

    def sub(self, op, a, b):
        return a - b

    def mul(self, op, a, b):
        return a * b

    def sum_of_products(self, op, a, b, c, d):
        return a * b + c * d

    def lerp(self, op, z, a, b):
        return z * a + (1 - z) * b

    def clip(self, op, x):
        fmt, bounds = self.layer.formats[op.out[0]], self.layer.constants[op.out[0]]
        lo, hi = bounds  # a bound at the format's end stands for none
        return np.clip(x, -np.inf if lo == fmt.lo else lo * fmt.scale, np.inf if hi == fmt.hi else hi * fmt.scale)

    def table(self, op, x):
        return FUNCTIONS[self.layer.constants[op.out[0]].function].values(x)


def dequantized(layer: Layer) -> Blocks:
    """A layer's own parameters as real values: weights from their codes and scales, biases from (8a)."""
    program, blocks = layer.program, {}
    for op in program.affines:
        constant, rows = layer.constants[op.out[0]], {gate: program.block_shape(gate)[0] for gate in op.out}
        scales = np.concatenate([np.full(rows[gate], layer.formats[gate].scale) for gate in op.out])
        blocks |= dict(zip(op.out, Floats.split(constant.bias / 2.0**constant.shift * scales, rows.values())))
        for term, product in zip(op.terms, constant.products):
            steps = product.format.scale if product.row_scales is None else product.row_scales.astype(float)[:, None]
            matrix = product.weight * steps
            ends = np.cumsum([rows[gate] for gate in term.gates])[:-1]
            for gate, part in zip(term.gates, np.split(matrix, ends)):
                block = f"{gate}.{term.source}"
                blocks[block] = part if term.plane == 0 else blocks[block] + part
    return blocks | {name: layer.vectors[name] * layer.formats[name].scale for name in program.vectors}


def with_real_embeddings(artifact: Artifact) -> Graph:
    """The artifact's graph, its embeddings as real values: the file's own rows, dequantized."""

    def real(node: Node) -> Node:
        if not isinstance(node, EmbeddingNode):
            return node
        return replace(node, rows=node.rows * node.format.scale)

    return replace(artifact.graph, nodes=tuple(real(node) for node in artifact.graph.nodes))


def parameters(artifact: Artifact, given: dict[str, Blocks] | None = None) -> dict[str, Blocks]:
    """Node -> blocks: those given, checked against the artifact's shapes, or its own, dequantized."""
    own = {node.name: dequantized(node.layer) for node in artifact.graph.programs}
    if given is None:
        return own
    found = {}
    gates = {node.name: {g for op in node.layer.program.affines for g in op.out} for node in artifact.graph.programs}
    for node, blocks in own.items():
        if node not in given:
            raise RindleError(f"the float model has no layer {node!r}; it has {', '.join(given)}: is it another model?")
        for block, value in blocks.items():
            absent = np.zeros_like(value) if block in gates[node] else None  # a gate without a bias
            other = given[node].get(block, absent)
            shape = None if other is None else list(other.shape)
            if shape != list(value.shape):
                raise RindleError(
                    f"{node}/{block} is {list(value.shape)} in the file, but {shape} in the float model: another model?"
                )
        found[node] = {block: np.asarray(value, np.float64) for block, value in given[node].items()}
    return found
