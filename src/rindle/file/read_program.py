"""A program of a .rindle document: its paths, its operations, and that each path is written once and before it is read."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np

from ..errors import RindleError
from ..numbers import bounds
from ..numbers.bounds import LIMIT, MAX_MULTIPLIER, MAX_SHIFT, check_elementwise
from ..numbers.codes import Affine, Product, Rescale
from ..numbers.formats import Format, weight_format
from ..numbers.levels import LEVELS
from ..numbers.tables import Table
from ..program.program import ARITY, Conv, Op, Program, Term
from . import limits
from .artifact import Layer, check_theta, ordered
from .fields import (
    Fields,
    Tensors,
    check_range,
    is_name,
    names,
    read_bits,
    read_format,
    short,
    unpack_codes,
)
from .reading import Reading


def read_table(entry: Fields, store: Tensors) -> Table:
    function = entry.take("function", str)
    degree = entry.integer("degree", 0, 1)
    flag = entry.take("flag", str)
    if flag not in ("none", "odd", "sigmoid"):
        raise RindleError(f"{entry.where}.flag is {flag!r}; it must be none, odd or sigmoid")
    x0 = entry.integer("x0", -(2**31), 2**31 - 1)
    if flag != "none" and x0 != 0:
        raise RindleError(f"{entry.where}.x0 is {x0}; with the flag {flag} it must be 0")
    p, q = entry.integer("p", 0, 15), entry.integer("q", 0, 30)
    max_error = entry.take("max_error", float)
    if not 0 <= max_error < math.inf:
        raise RindleError(f"{entry.where}.max_error is {max_error}; it must be finite and not negative")
    base = store.take(entry.take("base", str), f"{entry.where}.base", np.int16, (None,)).astype(np.int64)
    n = len(base)
    if n > limits.SEGMENTS or n & (n - 1):
        raise RindleError(f"{entry.where}.base has {n} segments; it must be a power of two up to {limits.SEGMENTS}")
    slope = None
    if degree:
        slope = store.take(entry.take("slope", str), f"{entry.where}.slope", np.int16, (n,)).astype(np.int64)
    entry.done()
    return Table(function, degree, flag, x0, p, q, base, slope, max_error)


def read_program(reading: Reading, entry: Fields, sources: list[tuple[int, Format | None]]) -> Layer:
    """sources: size and format of what each input reads."""
    where = entry.where
    cell, output = entry.take("cell", str), entry.take("output", str)
    inputs = _read_inputs(entry, len(sources))
    states = tuple(names(pair, f"{where}.states") for pair in entry.take("states", list))
    if any(len(pair) != 2 for pair in states):
        raise RindleError(f"{where}.states must be pairs of a state and its next value")
    paths = _Paths(entry, inputs, reading.store)
    paths.take_sources(inputs, sources)
    written = {*inputs, *paths.vectors}
    own = _check_states(paths, states, written)
    written |= own
    initial = _read_initial(entry, reading.version, paths, own, reading.store)
    ops, constants, read = _read_ops(reading, entry, paths, written)
    paths.named(output, f"{where}.output", "paths")
    for name in (output, *(following for _, following in states)):
        if name not in written:
            raise RindleError(f"{where}: nothing writes {name!r}")
        read.add(name)
    for name in paths.sizes:
        if name not in written or name not in read:
            raise RindleError(f"{where}: the path {name!r} is never {'read' if name in written else 'written'}")
    entry.done()
    codes = tuple(op.out[0] for op in ops if paths.section.get(op.out[0]) == "codes")
    program = Program(cell, inputs, states, output, tuple(ops), paths.sizes, codes, tuple(paths.vectors))
    return Layer(program, paths.formats, constants, paths.vectors, ordered(program, paths.thetas), initial)


def _read_inputs(entry: Fields, count: int) -> tuple[str, ...]:
    """The paths that receive what the node reads: one name, or an array of several."""
    if count == 1:
        return (entry.take("input", str),)
    inputs = names(entry.take("input", list), f"{entry.where}.program.input")
    if len(inputs) != count or len(set(inputs)) != len(inputs):
        raise RindleError(f"{entry.where}.program.input must name {count} paths, one per input of the node, each once")
    return inputs


class _Paths:
    """The paths of one program. section: path -> the group where it stands. The constructor reads the groups."""

    def __init__(self, entry: Fields, inputs: tuple[str, ...], store: Tensors):
        self.where = entry.where
        self.sizes: dict[str, int] = {}
        self.formats: dict[str, Format] = {}
        self.section: dict[str, str] = {}
        self.vectors: dict[str, np.ndarray] = {}
        self.thetas: dict[str, int | np.ndarray] = {}
        for group in ("paths", "codes", "vectors"):
            for path, value in entry.take(group, dict).items():
                if path in self.sizes or not is_name(path):
                    raise RindleError(
                        f"{self.where}.{group}: the path name {path[:60]!r} is taken, or not 1..{limits.NAME} bytes of UTF-8"
                    )
                item = Fields(value, f"{self.where}.{group}.{path}")
                self.sizes[path], self.section[path] = item.integer("size", 1, limits.SIZE), group
                self.formats[path] = form = read_format(item, product=group == "codes")
                if group != "codes" and path not in inputs:
                    _check_element_wise(form, item.where)
                if group == "vectors":
                    self._read_vector(item, path, store)
                if group == "codes" and item.has("theta"):
                    self._read_theta(item, path, store)
                item.done()

    def _read_vector(self, item: Fields, path: str, store: Tensors) -> None:
        codes = store.take(item.take("tensor", str), f"{item.where}.tensor", np.int16, (self.sizes[path],))
        self.vectors[path] = codes.astype(np.int64)
        check_range(self.vectors[path], self.formats[path], item.where)

    def _read_theta(self, item: Fields, path: str, store: Tensors) -> None:
        theta = item.take_any("theta")
        if isinstance(theta, str):
            theta = store.take(theta, f"{item.where}.theta", np.int16, (self.sizes[path],))
        elif not isinstance(theta, int) or isinstance(theta, bool):
            raise RindleError(f"{item.where}.theta is {short(theta)}; it must be an integer or a tensor's name")
        self.thetas[path] = check_theta(theta, self.formats[path], self.sizes[path], item.where)

    def named(self, name: str, at: str, *groups: str) -> str:
        """The name, if it stands in one of the groups."""
        if self.section.get(name) not in groups:
            raise RindleError(f"{at} is {short(name)}, which is not one of the program's {' or '.join(groups)}")
        return name

    def take_sources(self, inputs: tuple[str, ...], sources: list[tuple[int, Format | None]]) -> None:
        """Gives the inputs the formats of what they read, which must be those of the file."""
        for one, (size, fmt) in zip(inputs, sources):
            self.named(one, f"{self.where}.input", "paths")
            assert fmt is not None, "programs read codes"
            if (self.sizes[one], replace(self.formats[one], product=fmt.product)) != (size, fmt):
                raise RindleError(
                    f"{self.where}.paths.{one} is {self.sizes[one]} x {self.formats[one]}, but its input is {size} x {fmt}"
                )
            self.formats[one] = fmt


def _check_element_wise(form: Format, where: str) -> None:
    if not form.is_fixed:
        raise RindleError(f"{where} has a scale; an element-wise path must be fixed")
    if not form.signed:
        raise RindleError(f"{where} is unsigned; only a code path can be")


def _check_states(paths: _Paths, states: tuple[tuple[str, ...], ...], written: set[str]) -> set[str]:
    """The states' names. Each is none of those written before a frame, and like its next value."""
    where, found = f"{paths.where}.states", set[str]()
    for state, following in states:
        for one in (state, following):
            paths.named(one, where, "paths")
        if state in found | written:
            raise RindleError(f"{where} names {state!r} twice")
        if (paths.sizes[state], paths.formats[state]) != (paths.sizes[following], paths.formats[following]):
            raise RindleError(f"{where}: {state!r} and {following!r} must have one size and one format")
        found.add(state)
    if len({following for _, following in states}) != len(states):
        raise RindleError(f"{where}: two states have one next value")
    return found


def _read_ops(reading: Reading, entry: Fields, paths: _Paths, written: set[str]) -> tuple[list[Op], dict, set[str]]:
    """The operations, their constants, and the paths that they read. written: the paths that have a value before them; those
    that they write are added.
    """
    where, reader = entry.where, _Operations(reading, paths)
    items = entry.take("ops", list)
    if not 1 <= len(items) <= limits.OPS:
        raise RindleError(f"{where}.ops has {len(items)} entries; a program has 1..{limits.OPS}")
    ops, constants, read = [], {}, set()
    for index, value in enumerate(items):
        op, constant = reader.read(Fields(value, f"{where}.ops[{index}]"))
        for name in op.reads:
            if name not in written:
                raise RindleError(f"{where}.ops[{index}] reads {name!r} before anything has written it")
            read.add(name)
        for name in op.out:
            if name in written:
                raise RindleError(f"{where}.ops[{index}] writes {name!r}, which is written already")
            written.add(name)
        ops.append(op)
        if constant is not None:
            constants[op.out[0]] = constant
    return ops, constants, read


def _read_initial(
    entry: Fields, version: int, paths: _Paths, states: set[str], store: Tensors
) -> dict[str, np.ndarray]:
    """Codes of states before the first frame: a feature of version 4."""
    if version < 4 or not entry.has("initial"):
        return {}
    found, where = {}, f"{entry.where}.initial"
    for state, name in entry.take("initial", dict).items():
        if state not in states:
            raise RindleError(f"{where} names {short(state)}, which is no state")
        if not isinstance(name, str):
            raise RindleError(f"{where}.{state} is {short(name)}; it must be a tensor's name")
        codes = store.take(name, f"{where}.{state}", np.int16, (paths.sizes[state],)).astype(np.int64)
        check_range(codes, paths.formats[state], f"{where}.{state}")
        found[state] = codes
    if not found:
        raise RindleError(f"{where} is empty; leave it out where every state begins at zero")
    return found


class _Operations:
    """Reads the operations of one program."""

    def __init__(self, reading: Reading, paths: _Paths):
        self.version, self.store = reading.version, reading.store
        self.tables, self.used_tables = reading.tables, reading.used_tables
        self.sizes, self.formats, self.section, self._path = paths.sizes, paths.formats, paths.section, paths.named
        self.source_of: dict[str, str] = {}

    def read(self, entry: Fields) -> tuple[Op, object]:
        kind = entry.take("op", str)
        if kind not in ARITY:
            raise RindleError(f"{entry.where}.op is {kind!r}; it must be one of {', '.join(ARITY)}")
        op, constant = self._affine(entry) if kind == "affine" else self._other(entry, kind)
        entry.done()
        return op, constant

    def _other(self, entry: Fields, kind: str) -> tuple[Op, object]:
        arity = ARITY[kind]
        args = (entry.take("in", str),) if arity == 1 else names(entry.take("in", list), f"{entry.where}.in")
        if len(args) != arity:
            raise RindleError(f"{entry.where}.in has {len(args)} operands; {kind} takes {arity}")
        groups = ("paths", "codes") if kind == "requantize" else ("paths",)
        out = self._path(entry.take("out", str), f"{entry.where}.out", *groups)
        for arg in args:
            self._path(arg, f"{entry.where}.in", "paths", *(("vectors",) if arity > 1 else ()))
            if self.sizes[arg] != self.sizes[out]:
                raise RindleError(
                    f"{entry.where}: {arg!r} has {self.sizes[arg]} elements and {out!r} has {self.sizes[out]}; they must agree"
                )
            if kind != "requantize" and not (self.formats[arg].is_fixed and self.formats[arg].signed):
                raise RindleError(
                    f"{entry.where}: {kind} reads {arg!r}, which is {self.formats[arg]}; it must be fixed"
                )
        if all(self.section[arg] == "vectors" for arg in args):
            raise RindleError(f"{entry.where}.in names constants only; one operand at least must not be a vector")
        op = Op(kind, (out,), args)
        one_operand = {"requantize": self._requantize, "clip": self._clip, "table": self._table}
        if kind in one_operand:
            return one_operand[kind](entry, op)
        check_elementwise(kind, tuple(self.formats[arg] for arg in args), self.formats[out], entry.where)
        return op, None

    def _requantize(self, entry: Fields, op: Op) -> tuple[Op, Rescale]:
        fmt = self.formats[op.args[0]]
        rescale = Rescale(entry.integer("multiplier", 0, MAX_MULTIPLIER - 1), entry.integer("shift", 0, MAX_SHIFT))
        bounds.check_sums(np.array([bounds.largest(fmt) * rescale.multiplier]), rescale.shift, entry.where)
        self.source_of[op.out[0]] = op.args[0]
        return op, rescale

    def _clip(self, entry: Fields, op: Op) -> tuple[Op, tuple[int, int]]:
        fmt, result = self.formats[op.args[0]], self.formats[op.out[0]]
        lo, hi = entry.integer("lo", fmt.lo, fmt.hi), entry.integer("hi", fmt.lo, fmt.hi)
        if lo > hi:
            raise RindleError(f"{entry.where}: lo is {lo}, above hi, {hi}")
        if result != fmt:
            raise RindleError(
                f"{entry.where}: clip keeps its format, but {op.args[0]!r} is {fmt} and {op.out[0]!r} is {result}"
            )
        return op, (lo, hi)

    def _table(self, entry: Fields, op: Op) -> tuple[Op, Table]:
        name, result = entry.take("table", str), self.formats[op.out[0]]
        if name not in self.tables:
            raise RindleError(f"{entry.where}.table is {name!r}, which is not one of the tables")
        self.used_tables.add(name)
        table = self.tables[name]
        if not table.degree:
            check_range(table.base, result, f"{entry.where}: the table {name!r}")
        if table.flag == "sigmoid" and not 0 <= result.frac <= 30:
            raise RindleError(
                f"{entry.where}: the mirrored table {name!r} needs a result with 0..30 fraction bits, not {result}"
            )
        return replace(op, function=table.function), table

    def _affine(self, entry: Fields) -> tuple[Op, Affine]:
        where = entry.where
        gates = names(entry.take("out", list), f"{where}.out")
        if not gates or len(set(gates)) != len(gates):
            raise RindleError(f"{where}.out must name one gate or more, each once")
        for gate in gates:
            self._path(gate, f"{where}.out", "paths")
        items = entry.take("terms", list)
        if not 1 <= len(items) <= limits.TERMS:
            raise RindleError(f"{where}.terms has {len(items)} entries; an affine has 1..{limits.TERMS}")
        fields = [Fields(value, f"{where}.terms[{index}]") for index, value in enumerate(items)]
        convs = [self._conv(field) for field in fields]
        if len({conv and conv.result for conv in convs}) > 1:
            raise RindleError(f"{where}.terms: all or none are convolutions, and these have one result")
        pixels = convs[0].pixels if convs[0] else 1
        for gate in gates:
            if self.sizes[gate] % pixels:
                raise RindleError(
                    f"{where}: the gate {gate!r} has {self.sizes[gate]} elements, which is no multiple of {pixels} pixels"
                )
        rows = sum(self.sizes[gate] // pixels for gate in gates)
        bias = self.store.take(entry.take("bias", str), f"{where}.bias", np.int64, (rows,))
        shift = entry.integer("shift", 0, MAX_SHIFT)
        if np.any((bias <= -LIMIT) | (bias >= LIMIT)):
            raise RindleError(f"{where}.bias holds a value of magnitude 2^52 or more")
        terms, products = zip(*(self._term(field, gates, conv) for field, conv in zip(fields, convs)))
        op, affine = Op("affine", gates, terms=with_planes(terms), biased=gates), Affine(products, bias, shift)
        bounds.check_sums(bounds.affine(op, affine, self.formats, self.sizes), shift, where)
        return op, affine

    def _conv(self, entry: Fields) -> Conv | None:
        """Its geometry, where a term is a convolution."""
        if self.version < 3 or not entry.has("conv"):
            return None
        item = Fields(entry.take("conv", dict), f"{entry.where}.conv")

        def pair(key: str, lo: int) -> tuple[int, int]:
            values = item.take(key, list)
            if len(values) != 2 or any(type(v) is not int or not lo <= v <= limits.SIZE for v in values):
                raise RindleError(
                    f"{item.where}.{key} is {short(values)}; it must be two integers, {lo}..{limits.SIZE}"
                )
            return tuple(values)

        conv = Conv(
            **{key: pair(key, 1) for key in ("image", "kernel", "stride", "dilation")},
            padding=pair("padding", 0),
            result=pair("result", 1),
            groups=item.integer("groups", 1, limits.SIZE),
        )
        item.done()
        for axis, name in enumerate(("height", "width")):
            if conv.padding[axis] > conv.dilation[axis] * (conv.kernel[axis] - 1):
                raise RindleError(f"{item.where}: in {name}, the padding {conv.padding[axis]} is wider than the kernel")
            if (conv.result[axis] - 1) * conv.stride[axis] - conv.padding[axis] > conv.image[axis] - 1:
                raise RindleError(f"{item.where}: in {name}, the last element of the result begins behind the image")
        return conv

    def _levels(self, entry: Fields) -> str | None:
        """The level set of a term's weights, None for integers."""
        if "levels" not in self.version.needs or not entry.has("levels"):
            return None
        name = entry.take("levels", str)
        if name not in LEVELS:
            raise RindleError(f"{entry.where}.levels is {short(name)}; it must be one of {', '.join(LEVELS)}")
        return name

    def _term(self, entry: Fields, gates: tuple[str, ...], conv: Conv | None) -> tuple[Term, Product]:
        code = self._path(entry.take("in", str), f"{entry.where}.in", "codes")
        run = names(entry.take("gates", list), f"{entry.where}.gates")
        first = gates.index(run[0]) if run and run[0] in gates else -1
        if first < 0 or gates[first : first + len(run)] != run:
            raise RindleError(f"{entry.where}.gates is {list(run)}; it must be consecutive gates of {list(gates)}")
        rows, columns = sum(self.sizes[gate] for gate in run), self.sizes[code]
        if conv is not None:
            rows, pixels = rows // conv.pixels, math.prod(conv.image)
            if columns % pixels:
                raise RindleError(f"{entry.where}: {code!r} has {columns} elements, no multiple of {pixels} pixels")
            if rows % conv.groups or columns // pixels % conv.groups:
                raise RindleError(
                    f"{entry.where}.conv.groups is {conv.groups}; it must divide {columns // pixels} and {rows} channels"
                )
            columns = conv.columns(columns)
            if columns > limits.SIZE:
                raise RindleError(f"{entry.where}: a row has {columns} weights; at most {limits.SIZE} are allowed")
        weight_name = entry.take("weight", str)
        row_scales = None
        levels = self._levels(entry)
        if entry.has("scales"):
            bits = LEVELS[levels].bits if levels else read_bits(entry)
            row_scales = self.store.take(entry.take("scales", str), f"{entry.where}.scales", np.float32, (rows,))
            if not np.all((row_scales > 0) & np.isfinite(row_scales)):
                raise RindleError(f"{entry.where}.scales holds a value that is not positive and finite")
            fmt = weight_format(bits, levels)
        else:
            fmt = read_format(entry, product=True, levels=levels)
            if not fmt.signed:
                raise RindleError(f"{entry.where}: weights are signed")
        packed = self.store.take(weight_name, f"{entry.where}.weight", np.uint8, (rows, (columns * fmt.bits + 7) // 8))
        weight = unpack_codes(packed, fmt, columns, f"{entry.where}.weight")
        multiplier = self.store.take(entry.take("multiplier", str), f"{entry.where}.multiplier", np.int32, (rows,))
        if np.any((multiplier < 0) | (multiplier >= MAX_MULTIPLIER)):
            raise RindleError(f"{entry.where}.multiplier holds a value outside 0..2^22-1")
        entry.done()
        return Term(code, self.source_of.get(code, ""), run, conv), Product(
            weight, fmt, multiplier.astype(np.int64), row_scales
        )


def with_planes(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """The terms of an affine, those that multiply a block once more as its further planes."""
    seen: Counter = Counter()
    found = []
    for term in terms:
        blocks = [(gate, term.source) for gate in term.gates]
        found.append(replace(term, plane=max(seen[block] for block in blocks)))
        seen.update(blocks)
    return tuple(found)
