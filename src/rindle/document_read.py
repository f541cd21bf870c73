"""The JSON document and the tensors of a .rindle file -> an :class:`~rindle.artifact.Artifact`.

A file is hostile until every rule of docs/format.md has been checked, here and in core/document*.cc alike.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .artifact import VERSION, Artifact, Golden, Layer, check_theta, ordered
from .codes import LIMIT, MAX_MULTIPLIER, MAX_SHIFT, Affine, Product, Rescale, check_elementwise
from .document_fields import Fields, Tensors, is_name, names, short
from .formats import FRAC_LIMIT, Format, RindleError, unpack
from .graph import INPUT, KINDS, Embedding, Graph, Node
from .program import ARITY, Op, Program, Term
from .tables import Table

SIZE_LIMIT = 2**20
GOLDEN_LIMIT = 65536
PATHS_LIMIT = 2**24
CONCAT_LIMIT = 64
KINDS_1 = ("program", "last", "mean")  # of format version 1


def from_document(document: dict, tensors: dict[str, np.ndarray]) -> Artifact:
    """Raises RindleError, which names the field, for anything that docs/format.md forbids."""
    top, store = Fields(document, "document"), Tensors(tensors)
    version = top.integer("version", 1, VERSION)
    identifier = top.take("id", str)
    if len(identifier) != 64 or not set(identifier) <= set("0123456789abcdef"):
        raise RindleError(f"document.id is {short(identifier)}; it must be 64 hex digits")
    input_size, vocabulary, input_format = _read_input(Fields(top.take("input", dict), "input"), version)
    tables = {
        name: _read_table(Fields(value, f"tables.{name}"), store) for name, value in top.take("tables", dict).items()
    }
    used_tables: set[str] = set()
    total = 0
    entries = top.take("nodes", list)
    if not 1 <= len(entries) <= 1024:
        raise RindleError(f"nodes has {len(entries)} entries; a model has 1..1024")
    graph = Graph(input_size, (), INPUT, vocabulary)
    for index, value in enumerate(entries):
        entry = Fields(value, f"nodes[{index}]")
        node = _read_node(entry, version, graph, input_format, store, tables, used_tables)
        graph = Graph(input_size, (*graph.nodes, node), INPUT, vocabulary)
        total += sum(node.layer.program.sizes.values()) if node.kind == "program" else 0
        total += graph.size_of(node.name) if node.kind in ("concat", "embedding") else 0
        if total > PATHS_LIMIT:
            raise RindleError(
                f"nodes[{index}]: the paths so far have {total} elements; a model has at most {PATHS_LIMIT}"
            )
    for name in tables.keys() - used_tables:
        raise RindleError(f"tables.{name} is not used by any operation")
    output = top.take("output", str)
    if output not in [node.name for node in graph.nodes]:
        raise RindleError(f"output is {output!r}, which is not a node")
    graph = Graph(input_size, graph.nodes, output, vocabulary)
    if "golden" not in document:
        raise RindleError(
            "golden is missing: a file without a golden vector cannot be verified; convert the model again"
        )
    golden = _read_golden(Fields(top.take("golden", dict), "golden"), store, graph, input_format)
    provenance = top.take("provenance", dict)
    top.done()
    store.done()
    return Artifact(graph, input_format, golden, provenance)


def _read_input(entry: Fields, version: int) -> tuple[int, int, Format | None]:
    """Features of a frame, vocabulary (0: none), format (None for ids)."""
    if version > 1 and entry.has("vocabulary"):
        found = 1, entry.integer("vocabulary", 1, SIZE_LIMIT), None
    else:
        size = entry.integer("size", 1, SIZE_LIMIT)
        form = Fields(entry.take("format", dict), "input.format")
        found = size, 0, _read_format(form, product=False)
        form.done()
    entry.done()
    return found


def _read_format(entry: Fields, product: bool) -> Format:
    """Takes bits, frac or scale, and signed from entry."""
    bits = entry.integer("bits", 2, 16)
    signed = not entry.has("signed")
    if not signed and entry.take("signed", bool):
        raise RindleError(f"{entry.where}.signed is true; it must be false, or left out")
    if entry.has("frac") == entry.has("scale"):
        raise RindleError(f"{entry.where} must have one of frac and scale")
    if entry.has("frac"):
        scale = {"frac": entry.integer("frac", -FRAC_LIMIT, FRAC_LIMIT)}
    else:
        scale = {"step": entry.take("scale", float)}
    try:
        return Format(bits, **scale, signed=signed, product=product or not signed)
    except RindleError as error:
        raise RindleError(f"{entry.where}: {error}") from None


def _read_table(entry: Fields, store: Tensors) -> Table:
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
    if n > 256 or n & (n - 1):
        raise RindleError(f"{entry.where}.base has {n} segments; it must be a power of two up to 256")
    slope = None
    if degree:
        slope = store.take(entry.take("slope", str), f"{entry.where}.slope", np.int16, (n,)).astype(np.int64)
    entry.done()
    return Table(function, degree, flag, x0, p, q, base, slope, max_error)


def _read_node(entry: Fields, version: int, graph: Graph, input_format, store, tables, used_tables) -> Node:
    name, kind = entry.take("name", str), entry.take("kind", str)
    where = f"node {name!r}"
    known = [INPUT, *(node.name for node in graph.nodes)]
    if name in known:
        raise RindleError(f"{entry.where}.name is {name!r}, which is taken")
    kinds = KINDS if version > 1 else KINDS_1
    if kind not in kinds:
        raise RindleError(f"{where}.kind is {kind!r}; it must be one of {', '.join(kinds)}")
    if kind == "concat":
        source = names(entry.take("input", list), f"{where}.input")
        if not 2 <= len(source) <= CONCAT_LIMIT:
            raise RindleError(f"{where}.input has {len(source)} entries; a concat has 2..{CONCAT_LIMIT}")
    else:
        source = entry.take("input", str)
    sources = source if kind == "concat" else (source,)
    for one in sources:
        if one not in known:
            raise RindleError(f"{where}.input is {short(one)}, which is neither the input nor an earlier node")
        if (kind == "embedding") != (one == INPUT and graph.vocabulary > 0):
            raise RindleError(
                f"{where}.input is {one!r}; ids, and nothing else, are read by embeddings, and by nothing else"
            )
    sequence = graph.is_sequence(sources[0])
    layer = table = None
    reverse = version > 1 and kind == "program" and entry.has("reverse")
    if reverse and not entry.take("reverse", bool):
        raise RindleError(f"{where}.reverse is false; it must be true, or left out")
    if reverse and not sequence:
        raise RindleError(f"{where}.reverse is true, but its input {source!r} is not a sequence")
    if kind == "program":
        program = Fields(entry.take("program", dict), where)
        size, fmt = graph.size_of(source), graph.format_of(source, input_format)
        layer = _read_program(program, size, fmt, store, tables, used_tables)
        if layer.program.states and not sequence:
            raise RindleError(f"{where} has states, but its input {source!r} is not a sequence")
    elif kind == "embedding":
        table = _read_embedding(entry, where, graph.vocabulary, store)
    elif kind == "concat":
        _check_concat(where, sources, graph, input_format)
    elif not sequence:
        raise RindleError(f"{where}.input is {source!r}, which is not a sequence")
    entry.done()
    return Node(name, kind, source, layer, reverse, table)


def _read_embedding(entry: Fields, where: str, rows: int, store: Tensors) -> Embedding:
    size = entry.integer("size", 1, SIZE_LIMIT)
    form = Fields(entry.take("format", dict), f"{where}.format")
    fmt = _read_format(form, product=False)
    form.done()
    if not fmt.signed:
        raise RindleError(f"{where}.format: embeddings are signed")
    shape = rows, (size * fmt.bits + 7) // 8
    packed = store.take(entry.take("weight", str), f"{where}.weight", np.uint8, shape)
    return Embedding(_unpack(packed, fmt.as_product(), size, f"{where}.weight"), fmt)


def _unpack(packed: np.ndarray, fmt: Format, columns: int, where: str) -> np.ndarray:
    try:
        codes = unpack(packed, fmt.bits, columns)
    except RindleError as error:
        raise RindleError(f"{where}: {error}") from None
    _check_range(codes, fmt, where)
    return codes


def _check_concat(where: str, sources: tuple[str, ...], graph: Graph, input_format) -> None:
    """Sequences or vectors, of one format."""
    first, *others = ((graph.is_sequence(one), graph.format_of(one, input_format)) for one in sources)
    for name, other in zip(sources[1:], others):
        if other[0] != first[0]:
            raise RindleError(f"{where}.input: one of {sources[0]!r} and {name!r} is a sequence, the other a vector")
        if other[1] != first[1]:
            raise RindleError(
                f"{where}.input: {sources[0]!r} is {first[1]} and {name!r} is {other[1]}; they must agree"
            )
    size = sum(map(graph.size_of, sources))
    if size > SIZE_LIMIT:
        raise RindleError(f"{where}.input has {size} features in all; at most {SIZE_LIMIT} are allowed")


def _read_program(entry: Fields, size: int, fmt: Format, store, tables, used_tables) -> Layer:
    where = entry.where
    cell, input_path, output = (entry.take(key, str) for key in ("cell", "input", "output"))
    states = tuple(names(pair, f"{where}.states") for pair in entry.take("states", list))
    if any(len(pair) != 2 for pair in states):
        raise RindleError(f"{where}.states must be pairs of a state and its next value")
    sizes, formats, vectors, thetas, section = {}, {}, {}, {}, {}
    for group in ("paths", "codes", "vectors"):
        for path, value in entry.take(group, dict).items():
            if path in sizes or not is_name(path):
                raise RindleError(
                    f"{where}.{group}: the path name {path[:60]!r} is taken, or not 1..256 bytes of UTF-8"
                )
            item = Fields(value, f"{where}.{group}.{path}")
            sizes[path], section[path] = item.integer("size", 1, SIZE_LIMIT), group
            formats[path] = form = _read_format(item, product=group == "codes")
            if group != "codes" and path != input_path and not form.is_fixed:
                raise RindleError(f"{item.where} has a scale; an element-wise path must be fixed")
            if group != "codes" and path != input_path and not form.signed:
                raise RindleError(f"{item.where} is unsigned; only a code path can be")
            if group == "vectors":
                codes = store.take(item.take("tensor", str), f"{item.where}.tensor", np.int16, (sizes[path],))
                vectors[path] = codes.astype(np.int64)
                _check_range(vectors[path], form, item.where)
            if group == "codes" and item.has("theta"):
                theta = item._left.pop("theta")
                if isinstance(theta, str):
                    theta = store.take(theta, f"{item.where}.theta", np.int16, (sizes[path],))
                elif not isinstance(theta, int) or isinstance(theta, bool):
                    raise RindleError(f"{item.where}.theta is {short(theta)}; it must be an integer or a tensor's name")
                thetas[path] = check_theta(theta, form, sizes[path], item.where)
            item.done()

    def path(name: str, at: str, *groups: str) -> str:
        if section.get(name) not in groups:
            raise RindleError(f"{at} is {short(name)}, which is not one of the {' or '.join(groups)}")
        return name

    path(input_path, f"{where}.input", "paths")
    if (sizes[input_path], replace(formats[input_path], product=fmt.product)) != (size, fmt):
        raise RindleError(
            f"{where}.paths.{input_path} is {sizes[input_path]} x {formats[input_path]}, but its input is {size} x {fmt}"
        )
    formats[input_path] = fmt
    written = {input_path: None} | dict.fromkeys(vectors)
    for state, following in states:
        for one in (state, following):
            path(one, f"{where}.states", "paths")
        if state in written:
            raise RindleError(f"{where}.states names {state!r} twice")
        if (sizes[state], formats[state]) != (sizes[following], formats[following]):
            raise RindleError(f"{where}.states: {state!r} and {following!r} must have one size and one format")
        written[state] = None
    if len({following for _, following in states}) != len(states):
        raise RindleError(f"{where}.states: two states have one next value")
    reader = _Operations(where, sizes, formats, section, store, tables, used_tables)
    items = entry.take("ops", list)
    if not 1 <= len(items) <= 256:
        raise RindleError(f"{where}.ops has {len(items)} entries; a program has 1..256")
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
            written[name] = None
        ops.append(op)
        if constant is not None:
            constants[op.out[0]] = constant
    path(output, f"{where}.output", "paths")
    for name in (output, *(following for _, following in states)):
        if name not in written:
            raise RindleError(f"{where}: nothing writes {name!r}")
        read.add(name)
    for name in sizes:
        if name not in written or name not in read:
            raise RindleError(f"{where}: the path {name!r} is never {'read' if name in written else 'written'}")
    entry.done()
    codes = tuple(op.out[0] for op in ops if op.out[0] in section and section[op.out[0]] == "codes")
    program = Program(cell, input_path, states, output, tuple(ops), sizes, codes, tuple(vectors))
    return Layer(program, formats, constants, vectors, ordered(program, thetas))


def _check_range(codes: np.ndarray, fmt: Format, where: str) -> None:
    if codes.min() < fmt.lo or codes.max() > fmt.hi:
        worst = codes.min() if codes.min() < fmt.lo else codes.max()
        raise RindleError(f"{where} holds the code {worst}, outside the range {fmt.lo}..{fmt.hi} of {fmt}")


class _Operations:
    """Reads the operations of one program."""

    def __init__(self, where, sizes, formats, section, store, tables, used_tables):
        self.where, self.sizes, self.formats, self.section = where, sizes, formats, section
        self.store, self.tables, self.used_tables = store, tables, used_tables
        self.source_of: dict[str, str] = {}

    def read(self, entry: Fields) -> tuple[Op, object]:
        kind = entry.take("op", str)
        if kind not in ARITY:
            raise RindleError(f"{entry.where}.op is {kind!r}; it must be one of {', '.join(ARITY)}")
        op, constant = self._affine(entry) if kind == "affine" else self._other(entry, kind)
        entry.done()
        return op, constant

    def _path(self, name: str, at: str, *groups: str) -> str:
        if self.section.get(name) not in groups:
            raise RindleError(f"{at} is {short(name)}, which is not one of the program's {' or '.join(groups)}")
        return name

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
        result, first = self.formats[out], self.formats[args[0]]
        op = Op(kind, (out,), args)
        if kind == "requantize":
            rescale = Rescale(entry.integer("multiplier", 0, MAX_MULTIPLIER - 1), entry.integer("shift", 0, MAX_SHIFT))
            check_sum(np.array([max(-first.lo, first.hi) * rescale.multiplier]), rescale.shift, entry.where)
            self.source_of[out] = args[0]
            return op, rescale
        if kind == "clip":
            bounds = entry.integer("lo", first.lo, first.hi), entry.integer("hi", first.lo, first.hi)
            if bounds[0] > bounds[1]:
                raise RindleError(f"{entry.where}: lo is {bounds[0]}, above hi, {bounds[1]}")
            if result != first:
                raise RindleError(
                    f"{entry.where}: clip keeps its format, but {args[0]!r} is {first} and {out!r} is {result}"
                )
            return op, bounds
        if kind == "table":
            name = entry.take("table", str)
            if name not in self.tables:
                raise RindleError(f"{entry.where}.table is {name!r}, which is not one of the tables")
            self.used_tables.add(name)
            table = self.tables[name]
            if not table.degree:
                _check_range(table.base, result, f"{entry.where}: the table {name!r}")
            if table.flag == "sigmoid" and not 0 <= result.frac <= 30:
                raise RindleError(
                    f"{entry.where}: the mirrored table {name!r} needs a result with 0..30 fraction bits, not {result}"
                )
            return Op(kind, (out,), args, function=table.function), table
        check_elementwise(kind, tuple(self.formats[arg] for arg in args), result, entry.where)
        return op, None

    def _affine(self, entry: Fields) -> tuple[Op, Affine]:
        where = entry.where
        gates = names(entry.take("out", list), f"{where}.out")
        if not gates or len(set(gates)) != len(gates):
            raise RindleError(f"{where}.out must name one gate or more, each once")
        for gate in gates:
            self._path(gate, f"{where}.out", "paths")
        starts = np.cumsum([0, *(self.sizes[gate] for gate in gates)])
        rows = int(starts[-1])
        bias = self.store.take(entry.take("bias", str), f"{where}.bias", np.int64, (rows,))
        shift = entry.integer("shift", 0, MAX_SHIFT)
        items = entry.take("terms", list)
        if not 1 <= len(items) <= 64:
            raise RindleError(f"{where}.terms has {len(items)} entries; an affine has 1..64")
        if np.any((bias <= -LIMIT) | (bias >= LIMIT)):
            raise RindleError(f"{where}.bias holds a value of magnitude 2^52 or more")
        worst = np.abs(bias)
        terms, products = [], []
        for index, value in enumerate(items):
            term, product = self._term(Fields(value, f"{where}.terms[{index}]"), gates)
            first = gates.index(term.gates[0])
            span = slice(starts[first], starts[first + len(term.gates)])
            reach = np.abs(product.weight).sum(1) * max(-self.formats[term.code].lo, self.formats[term.code].hi)
            # float64 guards the int64 sum below: it only has to tell "far above 2^52" from "below"
            if np.any(reach.astype(np.float64) * product.multiplier + worst[span] >= 2.0**60):
                raise RindleError(f"{where}.terms[{index}]: the sums can pass 2^60; (8b) allows less than 2^52")
            worst[span] += reach * product.multiplier
            terms.append(term)
            products.append(product)
        check_sum(worst, shift, where)
        return Op("affine", gates, terms=tuple(terms), biased=gates), Affine(tuple(products), bias, shift)

    def _term(self, entry: Fields, gates: tuple[str, ...]) -> tuple[Term, Product]:
        code = self._path(entry.take("in", str), f"{entry.where}.in", "codes")
        run = names(entry.take("gates", list), f"{entry.where}.gates")
        first = gates.index(run[0]) if run and run[0] in gates else -1
        if first < 0 or gates[first : first + len(run)] != run:
            raise RindleError(f"{entry.where}.gates is {list(run)}; it must be consecutive gates of {list(gates)}")
        rows, columns = sum(self.sizes[gate] for gate in run), self.sizes[code]
        weight_name = entry.take("weight", str)
        row_scales = None
        if entry.has("scales"):
            bits = entry.integer("bits", 2, 16)
            row_scales = self.store.take(entry.take("scales", str), f"{entry.where}.scales", np.float32, (rows,))
            if not np.all((row_scales > 0) & np.isfinite(row_scales)):
                raise RindleError(f"{entry.where}.scales holds a value that is not positive and finite")
            fmt = Format(bits, step=1.0, product=True)
        else:
            fmt = _read_format(entry, product=True)
            if not fmt.signed:
                raise RindleError(f"{entry.where}: weights are signed")
        packed = self.store.take(weight_name, f"{entry.where}.weight", np.uint8, (rows, (columns * fmt.bits + 7) // 8))
        weight = _unpack(packed, fmt, columns, f"{entry.where}.weight")
        multiplier = self.store.take(entry.take("multiplier", str), f"{entry.where}.multiplier", np.int32, (rows,))
        if np.any((multiplier < 0) | (multiplier >= MAX_MULTIPLIER)):
            raise RindleError(f"{entry.where}.multiplier holds a value outside 0..2^22-1")
        entry.done()
        return Term(code, self.source_of.get(code, ""), run), Product(
            weight, fmt, multiplier.astype(np.int64), row_scales
        )


def check_sum(worst: np.ndarray, shift: int, where: str) -> None:
    """(8b): worst is Σ A·M + |b| per row."""
    reached = int(worst.max()) + (2 ** (shift - 1) if shift else 0)
    if reached >= LIMIT:
        raise RindleError(
            f"{where}: Σ A·M + |b| + R reaches {reached} (2^{math.log2(reached):.2f}); (8b) allows less than 2^52"
        )


def _read_golden(entry: Fields, store: Tensors, graph: Graph, input_format: Format) -> Golden:
    ids = graph.vocabulary > 0
    dtype, shape = (np.int32, (None, None)) if ids else (np.int16, (None, None, graph.input_size))
    inputs = store.take(entry.take("inputs", str), "golden.inputs", dtype, shape)
    batch, time = inputs.shape[:2]
    if batch * time > GOLDEN_LIMIT:
        raise RindleError(f"golden.inputs has {batch * time} frames; at most {GOLDEN_LIMIT} are allowed")
    if not ids:
        _check_range(inputs, input_format, "golden.inputs")
    elif inputs.min() < 0 or inputs.max() >= graph.vocabulary:
        worst = inputs.min() if inputs.min() < 0 else inputs.max()
        raise RindleError(f"golden.inputs holds the id {worst}; it must be 0..{graph.vocabulary - 1}")
    lengths = store.take(entry.take("lengths", str), "golden.lengths", np.int32, (batch,))
    if lengths.min() < 1 or lengths.max() > time:
        raise RindleError(f"golden.lengths must be 1..{time}")
    size = graph.size_of(graph.output)
    shape = (batch, time, size) if graph.is_sequence(graph.output) else (batch, size)
    outputs = store.take(entry.take("outputs", str), "golden.outputs", np.int16, shape)
    _check_range(outputs, graph.format_of(graph.output, input_format), "golden.outputs")
    if outputs.ndim == 3 and outputs[np.arange(time) >= lengths[:, None]].any():
        raise RindleError("golden.outputs is not 0 past a row's length")
    entry.done()
    return Golden(inputs, lengths, outputs)
