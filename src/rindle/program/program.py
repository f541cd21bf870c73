"""What a traced cell is: a straight-line list of operations on named paths, and the one interpreter that runs it.

A cell is written once, as its equation, and runs only under ``tracer.Tracer``, which records a :class:`Program`.
:func:`step` executes a program over any *numerics*: an object with one method per kind of operation. There are three
of them: real values (``nn.numerics``: torch float, and fake-quantized for training) and integer codes
(``codes``: NumPy int64, the reference, and torch float64, the simulation).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod
from typing import NamedTuple

from ..errors import RindleError

# kind -> number of operands (affine: its terms instead). docs/numerics.md, sections 3 to 5.
ARITY = {
    "affine": 0,
    "requantize": 1,
    "add": 2,
    "sub": 2,
    "mul": 2,
    "sum_of_products": 4,
    "lerp": 3,
    "clip": 1,
    "table": 1,
}
# operations that run in float alone -> why, and what to do instead
FLOAT_ONLY = {
    "layer_norm": "layer norm inside a cell has no integer meaning: it divides by a deviation that every frame has anew. Train "
    "with weight norm or batch norm instead; they are constants after training, and fold into the weights"
}
NEXT = ".next"


@dataclass(frozen=True)
class Conv:
    """A convolution with zero padding, (7c): its input is channels x image, its result channels x result. Pairs are of
    height and width. image, kernel and result: None while a cell is traced for any image, of stride 1 and the same size.
    """

    image: tuple[int, int] | None = None
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | None = None  # above and at the left
    result: tuple[int, int] | None = None
    groups: int = 1

    def bound(self, image: tuple[int, int], kernel: tuple[int, int]) -> Conv:
        """Unless it has its own: this kernel over this image, whose size stays."""
        if self.image is not None:
            return self
        if not all(size % 2 for size in kernel):
            raise RindleError(f"a kernel that keeps the image's size has odd sides, not {kernel}")
        return replace(self, image=image, kernel=kernel, result=image, padding=tuple(size // 2 for size in kernel))

    @property
    def pixels(self) -> int:
        """Elements of a channel of the result."""
        return prod(self.result)

    def columns(self, features: int) -> int:
        """Weights of a row, for an input of that many features."""
        return features // prod(self.image) // self.groups * prod(self.kernel)


class Block(NamedTuple):
    """What has parameters: the matrix of a gate and a source. It prints as its name, "i.x"."""

    gate: str
    source: str

    def __str__(self) -> str:
        return f"{self.gate}.{self.source}"


@dataclass(frozen=True, order=True)
class TermKey:
    """Which term of a program: the matrix of its blocks one below the other, or one plane of it.

    It prints as the matrix's name, "i+f.x", and of a further plane as "i+f.x[1]".
    """

    gates: tuple[str, ...]
    source: str
    plane: int = 0

    def of(self, gate: str) -> TermKey:
        """The key of one gate's part."""
        return TermKey((gate,), self.source, self.plane)

    def __str__(self) -> str:
        return f"{'+'.join(self.gates)}.{self.source}" + (f"[{self.plane}]" if self.plane else "")


@dataclass(frozen=True)
class Term:
    """One product of an affine: a matrix times a code path, added to a run of consecutive gates. conv: or a convolution.

    plane: where weights are a sum of several matrices, each with its own multipliers, which of them this is: 0, 1, …
    """

    code: str
    source: str
    gates: tuple[str, ...]
    conv: Conv | None = None
    plane: int = 0

    @cached_property
    def key(self) -> TermKey:
        return TermKey(self.gates, self.source, self.plane)


@dataclass(frozen=True)
class Op:
    """One operation. out: the paths it writes (an affine: its gates, else one). args: the paths it reads."""

    kind: str
    out: tuple[str, ...]
    args: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    biased: tuple[str, ...] = ()  # affine: the gates that have a bias
    function: str | None = None  # table: its name in FUNCTIONS
    bounds: tuple[float, float] | None = None  # clip: in value units

    @cached_property
    def reads(self) -> tuple[str, ...]:
        return self.args + tuple(term.code for term in self.terms)

    @property
    def pixels(self) -> int:
        """Elements that share a row of an affine's weights: 1, or those of an image's channel."""
        return self.terms[0].conv.pixels if self.terms and self.terms[0].conv else 1

    def rows(self, sizes: dict[str, int]) -> dict[str, slice]:
        """Of an affine: gate -> its rows among those of all gates. sizes: path -> elements."""
        ends = [0, *accumulate(sizes[gate] // self.pixels for gate in self.out)]
        return {gate: slice(first, end) for gate, (first, end) in zip(self.out, pairwise(ends))}

    def spans(self, sizes: dict[str, int]) -> tuple[slice, ...]:
        """Of an affine: the rows to which each of its terms adds."""
        rows = self.rows(sizes)
        return tuple(slice(rows[term.gates[0]].start, rows[term.gates[-1]].stop) for term in self.terms)


@dataclass(frozen=True)
class Program:
    """A traced cell. inputs: the paths that a node's sources fill, in order. sizes: path -> dimension ("I", "H", … until
    weights are bound, then a number).
    """

    cell: str
    inputs: tuple[str, ...]
    states: tuple[tuple[str, str], ...]  # (state, the path that holds its next value)
    output: str
    ops: tuple[Op, ...]
    sizes: dict[str, str | int]
    codes: tuple[str, ...]
    vectors: tuple[str, ...] = ()

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The element-wise paths that need a format of their own, in program order; the list that schemes refer to."""
        written = [out for op in self.ops for out in op.out if out not in self.codes]
        named = [*self.inputs, *(state for state, _ in self.states), *map(self.format_name, written)]
        return tuple(dict.fromkeys(named))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """What has parameters: every (gate, source) pair with a matrix, once, however many terms multiply it."""
        return tuple(dict.fromkeys(Block(gate, t.source) for t in self.terms for gate in t.gates))

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """What is multiplied: the terms of all affines, in program order."""
        return tuple(term for op in self.ops for term in op.terms)

    @cached_property
    def hidden(self) -> frozenset[str]:
        """The paths that depend on a state within the frame: what a recurrent product may read."""
        reached = {state for state, _ in self.states}
        for op in self.ops:
            if reached & {*op.args, *(term.source for term in op.terms)}:
                reached |= set(op.out)
        return frozenset(reached)

    @cached_property
    def affines(self) -> tuple[Op, ...]:
        return tuple(op for op in self.ops if op.kind == "affine")

    def format_name(self, path: str) -> str:
        """The name under which a path's format is chosen: a state and its next value share one."""
        for state, following in self.states:
            if path == following:
                return state
        return path

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """Default parameter layout: one matrix per source, one bias, the vectors. name -> blocks stacked in it."""
        layout: dict[str, tuple[str, ...]] = {}
        for block in self.blocks:
            name = f"weight_{block.source.replace('.', '_')}"
            layout[name] = (*layout.get(name, ()), str(block))
        biased = tuple(gate for op in self.affines for gate in op.biased)
        if biased:
            layout["bias"] = biased
        return layout | {vector: (vector,) for vector in self.vectors}

    def code_names(self) -> dict[str, str]:
        """Code path -> how thresholds name it: its source, or its own name where a source has several."""
        sources: dict[str, dict[str, None]] = {}
        for term in self.terms:
            sources.setdefault(term.source, {})[term.code] = None
        return {code: source if len(codes) == 1 else code for source, codes in sources.items() for code in codes}

    def term_of(self, gate: str, source: str) -> Term:
        """The first that multiplies a block; its other planes have the same geometry."""
        return next(t for t in self.terms if t.source == source and gate in t.gates)

    def pixels_of(self, path: str) -> int:
        """Elements that share a bias, of a gate; 1 for all other paths."""
        return next((op.pixels for op in self.affines if path in op.out), 1)

    def block_shape(self, block: str) -> tuple:
        """Dimensions of one weight block ``gate.source``, bias ``gate`` or vector, by its name in a layout."""
        gate, _, source = block.partition(".")
        if not source:
            pixels = self.pixels_of(gate)
            return (self.sizes[gate] if pixels == 1 else self.sizes[gate] // pixels,)
        return self.matrix_shape(gate, source)

    def matrix_shape(self, gate: str, source: str) -> tuple:
        """Rows and columns of a block. A convolution's: channels of the gate, and channels of a group x height x width of the
        kernel, flat.
        """
        conv = self.term_of(gate, source).conv
        if conv is None:
            return self.sizes[gate], self.sizes[source]
        return self.sizes[gate] // conv.pixels, conv.columns(self.sizes[source])

    @property
    def needs_image(self) -> bool:
        """Whether it has convolutions whose image and kernel are still to be given."""
        return any(term.conv and term.conv.image is None for term in self.terms)

    def with_sizes(self, image: tuple | None = None, kernel: tuple | None = None, **dimensions: int) -> Program:
        """Dimensions replaced by numbers; image and kernel: (height, width) of the convolutions that have none yet."""
        sizes = {path: dimensions.get(d, d) for path, d in self.sizes.items()}
        if image is None:
            return replace(self, sizes=sizes)
        ops = tuple(
            replace(
                op, terms=tuple(t if t.conv is None else replace(t, conv=t.conv.bound(image, kernel)) for t in op.terms)
            )
            for op in self.ops
        )
        return replace(self, sizes=sizes, ops=ops)


def refuse_planes(keys: Iterable[TermKey], where: str, why: str) -> None:
    """Raises RindleError, which names the first, where some of the terms are further planes of their blocks."""
    for key in keys:
        if key.plane:
            raise RindleError(f"{where}/weight.{key} is one of several planes, {why}; give its weights one plane")


def check_integer(program: Program, where: str) -> None:
    """Raises RindleError, with the reason and the alternative, where a program has an operation that runs in float alone."""
    for op in program.ops:
        if op.kind in FLOAT_ONLY:
            raise RindleError(f"{where}/{op.out[0]}: {FLOAT_ONLY[op.kind]}")


def step(program: Program, numerics, inputs: tuple, states: dict, held: dict) -> tuple:
    """One frame. inputs: one [batch, I] per input path; states: path -> [batch, n]; held: code path -> its v̂ [batch, n],
    (20).

    Returns (output, next states, next held). The values are whatever ``numerics`` computes with.
    """
    env = {**dict(zip(program.inputs, inputs)), **states, **numerics.vectors}
    following = {}
    for op in program.ops:
        results = getattr(numerics, op.kind)(op, *(env[path] for path in op.reads))
        if op.kind != "affine":
            results = (results,)
        env.update(zip(op.out, results))
        if op.out[0] in held:
            (code,) = op.out
            following[code] = env[code] = numerics.hold(code, env[code], held[code])
    return env[program.output], {state: env[path] for state, path in program.states}, following
