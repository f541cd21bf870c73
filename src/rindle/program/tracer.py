"""From a cell's equation to its program: the function runs once under a :class:`Tracer`, which records its operations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import RindleError
from .program import NEXT, Conv, Op, Program, Term


@dataclass(eq=False)
class Path:
    """A value while a cell is traced. It carries no number; only the tracer's operations accept it."""

    tracer: Tracer
    size: str
    name: str | None = None
    parts: list = field(default_factory=list)

    def __iter__(self):
        raise RindleError("an affine with one gate returns one path; name several gates to unpack several")

    def __bool__(self):
        raise RindleError("a cell is a straight line: a path has no truth value, so it cannot steer an if or a while")

    def _no_operator(self, *_):
        raise RindleError("paths have no operators; use n.add, n.mul, n.lerp, … so that every result is a named path")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __neg__ = __matmul__ = _no_operator


class Tracer:
    """``n`` in a cell: the closed set of operations. Each records itself and returns the path that it makes."""

    def __init__(self, cell: str):
        self.cell = cell
        self.records: list[dict] = []
        self.code_of: dict[int, Path] = {}
        self.vectors: list[Path] = []
        self.frozen: set[int] = set()  # paths whose name is given: inputs, states, gates, vectors

    # -- the operations that a cell may use

    def affine(self, gates: str, *inputs: Path, bias: str | bool = True, size: str = "H"):
        """Σ W·input + b for each gate named in ``gates``; the gates' elements stand one after the other.

        bias: True, False, or the gates that have one. size: dimension of each gate. Returns a path per gate.
        """
        return self._affine(gates, inputs, bias, size, None)

    def conv(
        self,
        gates: str,
        *inputs: Path,
        bias: str | bool = True,
        size: str = "H",
        geometry: Conv | tuple[Conv, ...] | None = None,
    ):
        """As :meth:`affine`, with convolutions for matrices: paths are images, channel first, and a gate has one bias per
        channel. geometry: one, or one per input; None for a kernel and an image that ``Program.with_sizes`` gives, the
        image's size unchanged.
        """
        convs = geometry if isinstance(geometry, tuple) else (geometry or Conv(),) * len(inputs)
        if len(convs) != len(inputs):
            raise RindleError(
                f"{self.cell}: the convolution {gates!r} has {len(inputs)} inputs and {len(convs)} geometries"
            )
        if len({conv.result for conv in convs}) > 1:
            raise RindleError(f"{self.cell}: the convolution {gates!r} adds images of different sizes")
        if len(gates.split()) > 1 and any(conv.groups > 1 for conv in convs):
            raise RindleError(f"{self.cell}: the convolution {gates!r} has groups, and so it must have one gate")
        return self._affine(gates, inputs, bias, size, convs)

    def _affine(self, gates: str, inputs: tuple, bias, size: str, convs: tuple[Conv, ...] | None):
        names = tuple(map(self._name, gates.split()))
        if not names or len(set(names)) != len(names):
            raise RindleError(f"{self.cell}: an affine needs distinct gate names, not {gates!r}")
        if not inputs or len(set(map(id, inputs))) != len(inputs):
            raise RindleError(f"{self.cell}: the affine {gates!r} needs at least one input, and each once")
        self._check("affine", inputs)
        biased = names if bias is True else tuple(bias.split()) if bias else ()
        if not set(biased) <= set(names):
            raise RindleError(f"{self.cell}: bias={bias!r} names a gate that the affine {gates!r} does not have")
        codes = [self._code(path) for path in inputs]
        out = [Path(self, size, name) for name in names]
        self.frozen.update(map(id, out))
        self.records.append(
            dict(kind="affine", out=out, terms=list(zip(codes, inputs, convs or (None,) * len(inputs))), biased=biased)
        )
        return out[0] if len(out) == 1 else tuple(out)

    def requantize(self, x: Path) -> Path:
        """The same value in another format."""
        return self._record("requantize", x)

    def add(self, a: Path, b: Path) -> Path:
        """a + b"""
        return self._record("add", a, b)

    def sub(self, a: Path, b: Path) -> Path:
        """a − b"""
        return self._record("sub", a, b)

    def mul(self, a: Path, b: Path) -> Path:
        """a · b"""
        return self._record("mul", a, b)

    def sum_of_products(self, a: Path, b: Path, c: Path, d: Path) -> Path:
        """a·b + c·d, rounded once."""
        return self._record("sum_of_products", a, b, c, d)

    def lerp(self, z: Path, a: Path, b: Path) -> Path:
        """z·a + (1 − z)·b, rounded once."""
        return self._record("lerp", z, a, b)

    def clip(self, x: Path, lo: float, hi: float) -> Path:
        """min(max(x, lo), hi), in x's format."""
        if not lo <= hi:
            raise RindleError(f"{self.cell}: n.clip needs lo <= hi, not {lo} and {hi}")
        return self._record("clip", x, bounds=(lo, hi))

    def relu(self, x: Path) -> Path:
        """max(x, 0)"""
        return self.clip(x, 0.0, float("inf"))

    def layer_norm(self, x: Path) -> Path:
        """(x − mean)/√(variance + 10⁻⁵) over the features. Ba et al. 2016 (arXiv 1607.06450), (3); gain and shift are vectors
        of the cell. In float alone: conversion to integers refuses it.
        """
        return self._record("layer_norm", x)

    def table(self, function: str, x: Path) -> Path:
        """A function of one variable from ``rindle.numbers.tables.FUNCTIONS``, evaluated by a table of its codes."""
        return self._record("table", x, function=function)

    def sigmoid(self, x: Path) -> Path:
        return self.table("sigmoid", x)

    def tanh(self, x: Path) -> Path:
        return self.table("tanh", x)

    def vector(self, name: str, size: str = "H") -> Path:
        """A constant vector, such as a peephole weight."""
        path = Path(self, size, self._name(name))
        self.vectors.append(path)
        self.frozen.add(id(path))
        return path

    def path(self, name: str, x: Path) -> Path:
        """Names a result, so that schemes can refer to it."""
        if id(x) in self.frozen:
            raise RindleError(f"{self.cell}: {x.name!r} has its name already and cannot become {name!r}")
        x.name = self._name(name)
        return x

    # -- recording

    def _name(self, name: str) -> str:
        if not name.isidentifier():
            raise RindleError(f"{self.cell}: a path's name must be a word of letters, digits and _, not {name!r}")
        return name

    def _check(self, kind: str, args) -> None:
        for arg in args:
            if not isinstance(arg, Path) or arg.tracer is not self:
                raise RindleError(f"{self.cell}: n.{kind} takes paths of this cell, not {arg!r}")
        if all(arg in self.vectors for arg in args) or (kind in ("affine", "return") and set(args) & set(self.vectors)):
            names = ", ".join(arg.name for arg in args if arg in self.vectors)
            raise RindleError(
                f"{self.cell}: n.{kind} of the constant {names}: compute it before, as a vector of its own"
            )

    def _record(self, kind: str, *args: Path, **attributes) -> Path:
        self._check(kind, args)
        if len({arg.size for arg in args}) != 1:
            sizes = ", ".join(f"{arg.name or '?'}: {arg.size}" for arg in args)
            raise RindleError(f"{self.cell}: the operands of n.{kind} differ in size ({sizes})")
        out = Path(self, args[0].size)
        self.records.append(dict(kind=kind, out=[out], args=args, **attributes))
        return out

    def is_code(self, path: Path) -> bool:
        """Whether a path is the narrow code of another."""
        return any(path is code for code in self.code_of.values())

    def _code(self, path: Path) -> Path:
        """The narrow code of a path, made once, however many products read it."""
        if id(path) not in self.code_of:
            code = self._record("requantize", path)
            self.frozen.add(id(code))
            self.code_of[id(path)] = code
        return self.code_of[id(path)]


def trace(
    function: Callable, name: str, states: tuple[str, ...], width: str = "I", sizes: dict[str, str] | None = None
) -> Program:
    """Runs a cell function once under a tracer. Its arguments are n, x (and further inputs) and the states, in this order.

    width: dimension of the inputs. sizes: input or state -> dimension, where it is not ``width`` or "H".
    """
    n, sizes = Tracer(name), sizes or {}
    inputs = _inputs(function, name, states, sizes)
    xs = [Path(n, sizes.get(x, width), x) for x in inputs]
    before = [Path(n, sizes.get(state, "H"), state) for state in states]
    n.frozen.update(map(id, (*xs, *before)))
    output, after = _run(n, function, xs, before)
    output, following = _own_states(n, output, states, after)
    if output.name is None:
        output.name = "y" if "y" not in (*inputs, *states) else "out"
    taken = _named(n, (*xs, *before, *n.vectors), states)
    program = Program(
        cell=name,
        inputs=inputs,
        states=tuple((state, path.name) for state, path in zip(states, following)),
        output=output.name,
        ops=tuple(_op(record) for record in n.records),
        sizes={path.name: path.size for path in taken},
        codes=tuple(path.name for path in taken if n.is_code(path)),
        vectors=tuple(path.name for path in n.vectors),
    )
    _check_use(program)
    return program


def _inputs(function: Callable, name: str, states: tuple[str, ...], sizes: dict[str, str]) -> tuple[str, ...]:
    """The names of a cell's inputs, which its function takes between n and the states."""
    arguments = tuple(inspect.signature(function).parameters)
    inputs = arguments[1 : len(arguments) - len(states)]
    if not inputs or arguments[len(arguments) - len(states) :] != states:
        raise RindleError(
            f"the cell {name!r} must take ({', '.join(('n', 'x', *states))}), not ({', '.join(arguments)})"
        )
    unknown = set(sizes) - {*inputs, *states}
    if unknown:
        raise RindleError(f"the cell {name!r} has sizes for {sorted(unknown)}, which are neither inputs nor states")
    return inputs


def _run(n: Tracer, function: Callable, xs: list[Path], states: list[Path]) -> tuple[Path, tuple[Path, ...]]:
    """Traces the function. Returns its output and the next states."""
    returned = function(n, *xs, *states)
    returned = returned if isinstance(returned, tuple) else (returned,)
    n._check("return", returned)
    if len(returned) not in (max(len(states), 1), len(states) + 1):
        raise RindleError(
            f"the cell {n.cell!r} must return its output and {len(states)} states (or only the states, the first being "
            f"the output), not {len(returned)} paths"
        )
    return returned[0], returned[len(returned) - len(states) :]


def _own_states(
    n: Tracer, output: Path, states: tuple[str, ...], after: tuple[Path, ...]
) -> tuple[Path, tuple[Path, ...]]:
    """Gives every next state a path, and so a format, of its own: inputs, gates and what has another role already are copied.
    Returns the output, which is the next state where the function returned one path as both, and the next states.
    """
    clips = {id(record["out"][0]) for record in n.records if record["kind"] == "clip"}
    following, owned = [], {}
    for state, path in zip(states, after):
        own = n._record("requantize", path) if id(path) in n.frozen or id(path) in clips else path
        own.name = state + NEXT
        n.frozen.add(id(own))
        owned.setdefault(id(path), own)
        following.append(own)
    return owned.get(id(output), output), tuple(following)


def _named(n: Tracer, known: tuple[Path, ...], states: tuple[str, ...]) -> tuple[Path, ...]:
    """Names every result that has no name "<first operand>.<operation>", and its code "<path>.code". Returns all paths, the known ones
    first, then in program order. RindleError where two have one name.
    """
    short = {state + NEXT: state for state in states}
    taken: dict[str, Path] = {}
    for path in known:
        _claim(n, taken, path)
    for record in n.records:
        for out in record["out"]:
            if out.name is None:
                first = record["args"][0].name
                kind = record.get("function") or record["kind"]
                out.name = f"{first}.code" if n.is_code(out) else f"{short.get(first, first)}.{kind}"
            _claim(n, taken, out)
    return tuple(taken.values())


def _claim(n: Tracer, taken: dict[str, Path], path: Path) -> None:
    if taken.setdefault(path.name, path) is not path:
        raise RindleError(f"the cell {n.cell!r} has two paths named {path.name!r}: name one with n.path(…)")


def _op(record: dict) -> Op:
    """The operation of a record whose paths are named."""
    gates = tuple(out.name for out in record["out"])
    terms = tuple(Term(code.name, source.name, gates, conv) for code, source, conv in record.get("terms", ()))
    extra = {key: record[key] for key in ("biased", "function", "bounds") if key in record}
    return Op(record["kind"], gates, tuple(arg.name for arg in record.get("args", ())), terms, **extra)


def _check_use(program: Program) -> None:
    used = {path for op in program.ops for path in op.reads} | {program.output} | {p for _, p in program.states}
    for path in program.sizes:
        if path not in used:
            raise RindleError(f"the cell {program.cell!r} makes the path {path!r} and never uses it")


@dataclass(frozen=True)
class Cell:
    """A cell: its program, and how a module's parameters stack its weight blocks.

    layout: parameter name -> blocks stacked along its rows, in order. A block is ``gate.source`` (matrix), ``gate``
    (bias) or a vector's name. A bias that stands in two parameters is their sum.
    """

    name: str
    program: Program
    layout: dict[str, tuple[str, ...]]
    doc: str


def cell(
    states: tuple[str, ...] = (),
    layout: dict[str, str] | None = None,
    width: str = "I",
    sizes: dict[str, str] | None = None,
) -> Callable[[Callable], Cell]:
    """Makes a function of (n, x, states…) a :class:`Cell`; of several inputs, where others stand between x and the states.

    layout defaults to ``Program.parameters()``. width: dimension of x; "H" where x must be as wide as the state. sizes:
    dimensions of single inputs and states, "H" being that of the others: {"h": "P"} of an LSTM whose h is projected.
    """

    def decorate(function: Callable) -> Cell:
        program = trace(function, function.__name__, tuple(states), width, sizes)
        blocks = {name: tuple(rows.split()) for name, rows in layout.items()} if layout else program.parameters()
        return Cell(function.__name__, program, blocks, inspect.getdoc(function) or "")

    return decorate
