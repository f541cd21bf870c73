"""Real-valued numerics for ``program.step``: torch float, and fake-quantized for training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
import torch

from ..numbers.codes import NumPy
from ..numbers.formats import Format
from ..numbers.tables import GELU_TANH
from ..program.graph import Graph, execute
from ..program.nodes import EmbeddingNode, Node, ProgramNode, each
from ..program.program import Program, TermKey, check_integer, refuse_planes


class RealArrays:
    """The array namespace that ``graph.execute`` needs, over real values."""

    concat = staticmethod(torch.cat)
    maximum = staticmethod(torch.maximum)

    @staticmethod
    def zeros(rows: int, columns: int):
        return torch.zeros(rows, columns)

    @staticmethod
    def join(arrays):
        return torch.cat(list(arrays), -1)

    @staticmethod
    def array(rows):
        return rows

    @staticmethod
    def take(rows, ids):
        return rows[ids]

    @staticmethod
    def mean(total, count: int):
        return total / count


def run_real(graph, numerics: dict, x: torch.Tensor) -> tuple[torch.Tensor, dict]:
    """A graph in float, on [B, T, I] or ids [B, T]. numerics: program node -> its own. Returns the output, [B, T', O] or
    [B, O], and every node's value.
    """
    values = values_of(graph, numerics, list(x.unbind(1)))
    output = values[graph.output]
    return (torch.stack(output, 1) if isinstance(output, list) else output), values


def values_of(graph, numerics: dict, frames: list[torch.Tensor]) -> dict:
    """Every node's value in float, as tensors: frames or [rows, n]. frames: as ``graph.execute`` takes them."""
    values = execute(graph, numerics, RealArrays, frames, lambda _, v: v.detach().cpu().numpy())
    return {name: each(_tensor, [value]) for name, value in values.items()}


def _tensor(parts) -> torch.Tensor:
    """A float node's values are NumPy arrays."""
    (value,) = parts
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@dataclass(frozen=True, eq=False)
class FloatLayer:
    """A program with its real parameters. blocks: block -> tensor; matrices ``gate.source`` [rows, columns], biases
    ``gate`` [rows], vectors [n], as ``Program.block_shape`` has them; program.sizes are numbers. initial: state -> [n] before
    the first frame, of those that are not zero.
    """

    program: Program
    blocks: dict[str, torch.Tensor]
    initial: dict[str, torch.Tensor] = field(default_factory=dict)

    def in_double(self) -> FloatLayer:
        """A copy whose parameters are float64."""
        blocks, initial = (
            {name: value.detach().double() for name, value in values.items()} for values in (self.blocks, self.initial)
        )
        return FloatLayer(self.program, blocks, initial)


def in_double(graph: Graph) -> Graph:
    """A copy of a float graph whose parameters are float64.

    Everything that is chosen from what such a graph computes is chosen alike on every machine: sums of float32 depend on
    their order, and so on the CPU, in digits that move a step or a decision.
    """

    def doubled(node: Node) -> Node:
        if isinstance(node, ProgramNode):
            return replace(node, layer=node.layer.in_double())
        if isinstance(node, EmbeddingNode):
            return replace(node, rows=node.rows.detach().double())
        return node

    return replace(graph, nodes=tuple(map(doubled, graph.nodes)))


FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "normal_cdf": torch.special.ndtr,
    "normal_cdf_tanh": lambda x: (1 + torch.tanh(GELU_TANH * (x + 0.044715 * x**3))) / 2,
}


class Real:
    """float: every operation as its equation; formats do not exist, so requantize does nothing."""

    def __init__(self, layer: FloatLayer):
        program, blocks = layer.program, layer.blocks
        self.program = program
        self.given = layer.initial
        self.frames = 0
        self.vectors = {name: self.parameter(name, blocks[name]) for name in program.vectors}
        self._weights, self._biases = {}, {}
        for op in program.affines:
            self._weights[op.out] = [
                self.parameter(t.key, torch.cat([blocks[f"{gate}.{t.source}"] for gate in t.gates])) for t in op.terms
            ]
            zero = {
                g: torch.zeros_like(blocks[f"{g}.{op.terms[0].source}"][:, 0]) for g in op.out if g not in op.biased
            }
            biases = [zero[g] if g in zero else blocks[g] for g in op.out]
            self._biases[op.out] = [bias.repeat_interleave(op.pixels) for bias in biases]

    def initial(self, batch: int) -> tuple[dict, dict]:
        like = next(iter(self._weights.values()))[0] if self._weights else torch.zeros(())
        size = self.program.sizes
        states = {state: like.new_zeros(batch, size[state]) for state, _ in self.program.states}
        return states | {state: self.begun(state, v.to(like).expand(batch, -1)) for state, v in self.given.items()}, {}

    def parameter(self, name: str | TermKey, value: torch.Tensor) -> torch.Tensor:
        """Each weight matrix passes here once, under its term, and each vector under its name."""
        return value

    def result(self, path: str, value: torch.Tensor) -> torch.Tensor:
        """Every operation's result passes here."""
        return value

    def begun(self, state: str, value: torch.Tensor) -> torch.Tensor:
        """Every initial state passes here."""
        return self.result(state, value)

    def product(self, term, x, weight):
        return x @ weight.T if term.conv is None else convolve(term.conv, x, weight)

    def affine(self, op, *codes):
        sizes = [self.program.sizes[gate] for gate in op.out]
        ends = [0, *accumulate(sizes)]
        y = torch.cat(self._biases[op.out])
        for x, weight, term in zip(codes, self._weights[op.out], op.terms):
            if term.plane:
                continue  # a block is the sum of its planes
            product = self.product(term, x, weight)
            if term.gates != op.out:  # to all gates at once, which is far less work for the interpreter
                first = ends[op.out.index(term.gates[0])]
                product = torch.nn.functional.pad(product, (first, ends[-1] - first - product.shape[-1]))
            y = y + product
        return tuple(self.result(gate, v) for gate, v in zip(op.out, y.split(sizes, -1)))

    def requantize(self, op, x):
        return self.result(op.out[0], x)

    def add(self, op, a, b):
        return self.result(op.out[0], a + b)

    def sub(self, op, a, b):
        return self.result(op.out[0], a - b)

    def mul(self, op, a, b):
        return self.result(op.out[0], a * b)

    def sum_of_products(self, op, a, b, c, d):
        return self.result(op.out[0], a * b + c * d)

    def lerp(self, op, z, a, b):
        return self.result(op.out[0], z * a + (1 - z) * b)

    def clip(self, op, x):
        return self.result(op.out[0], x.clamp(*op.bounds))

    def layer_norm(self, op, x):
        return self.result(op.out[0], torch.nn.functional.layer_norm(x, x.shape[-1:]))

    def table(self, op, x):
        return self.result(op.out[0], FUNCTIONS[op.function](x))


def convolve(conv, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(7c) in real values. x: [batch, channels x image]; weight: [channels, columns]. Returns [batch, channels x result]."""
    images = x.view(len(x), -1, *conv.image)
    kernels = weight.view(len(weight), -1, *conv.kernel)
    pads = []
    for axis in (1, 0):  # F.pad begins with the last dimension
        reach = (conv.result[axis] - 1) * conv.stride[axis] + conv.dilation[axis] * (conv.kernel[axis] - 1) + 1
        pads += [conv.padding[axis], reach - conv.image[axis] - conv.padding[axis]]
    images = torch.nn.functional.pad(images, pads)
    y = torch.nn.functional.conv2d(images, kernels, None, conv.stride, 0, conv.dilation, conv.groups)
    return y.flatten(1)


def nearest(u: torch.Tensor, lo, spacing) -> torch.Tensor:
    """The nearest of all lo + k·spacing, the upper of two, before any range: numbers.levels.nearest for tensors."""
    if isinstance(spacing, int) and spacing == 1:
        return (u + 0.5).floor_()
    offset = lo % spacing
    return spacing * torch.floor((u - offset) / spacing + 0.5) + offset


def fake_quantize(v: torch.Tensor, scale, fmt: Format) -> torch.Tensor:
    """Rounds values to their codes and back, (3); the gradient passes straight through where nothing saturates."""
    code = nearest(v / scale, fmt.lo, fmt.spacing)
    inside = (code >= fmt.lo) & (code <= fmt.hi)
    rounded = code.clamp(fmt.lo, fmt.hi) * scale
    through = v * inside
    return through + (rounded - through).detach()


class FakeQuantized(Real):
    """float values that lie on the codes' grid: for training under quantization. No promise of equal bits (design 4).

    plan: a calibrated ``calibrate.LayerPlan``, whose program is the layer's, lowered. Raises RindleError for operations
    that run in float alone.
    """

    def __init__(self, layer: FloatLayer, plan):
        check_integer(plan.program, plan.program.cell)
        refuse_planes(plan.weights, plan.program.cell, "which training does not know")
        self.plan = plan
        super().__init__(FloatLayer(plan.program, layer.blocks, layer.initial))

    def parameter(self, name, value):
        if name in self.plan.formats:  # a constant vector
            fmt = self.plan.formats[name]
            return fake_quantize(value, fmt.scale, fmt)
        fmt, steps = self.plan.weights[name]
        scale = fmt.scale if steps is None else torch.as_tensor(steps, dtype=value.dtype)[:, None]
        return fake_quantize(value, scale, fmt)

    def result(self, path, value):
        fmt = self.plan.formats[path]
        return fake_quantize(value, fmt.scale, fmt)


class DoubleCodes(NumPy):
    """The namespace of the simulation: integer codes held in float64 tensors, exact below 2**53."""

    where = staticmethod(torch.where)
    abs = staticmethod(torch.abs)
    clip = staticmethod(torch.clamp)
    concat = staticmethod(torch.cat)
    maximum = staticmethod(torch.maximum)

    @staticmethod
    def array(values):
        return torch.as_tensor(values, dtype=torch.float64)

    @staticmethod
    def zeros(rows, columns):
        return torch.zeros(rows, columns, dtype=torch.float64)

    @staticmethod
    def join(arrays):
        return torch.cat(list(arrays), -1)

    @staticmethod
    def floor_shift(v, s):
        return torch.floor(v * 2.0**-s)

    @staticmethod
    def take(table, k):
        return table[k.long()]

    @staticmethod
    def count(mask):
        return int(mask.sum())

    @staticmethod
    def split(y, sizes):
        return y.split(list(sizes), -1)

    @staticmethod
    def mean(total, count):
        return torch.floor((2 * total + count) / (2 * count))
