"""What the tests share: the table of engines, small models, and random programs."""

import inspect
from dataclasses import dataclass, replace
from functools import lru_cache

import naive
import numpy as np
import torch
from hypothesis import reject
from hypothesis import strategies as st

import rindle
from rindle import CELLS, Model, RindleError, cell, fixed, integer, reference
from rindle import _core as core
from rindle.artifact import Artifact, Golden
from rindle.codes import Affine, Product, Rescale
from rindle.container import dumps
from rindle.formats import Format, decode
from rindle.graph import INPUT, Embedding, Graph, Node
from rindle.nn import simulate
from rindle.nn.calibrate import LayerPlan, lower
from rindle.nn.convert import convert_layer
from rindle.nn.numerics import FloatLayer
from rindle.scheme import Rule
from rindle.tables import Table

# ------------------------------------------------------------------------------------------------------- engines


@dataclass
class Outcome:
    """output: what x's type asks for, float32 values or int16 codes. saturations, changes: as ``reference.Result``."""

    output: np.ndarray
    saturations: dict
    changes: dict


def _python(run):
    def engine(artifact, x, lengths):
        result = run(artifact, x, lengths)
        codes = result.codes
        output = decode(codes, artifact.output_format) if x.dtype.kind == "f" else codes.astype(np.int16)
        return Outcome(output, result.saturations, result.changes)

    return engine


def _runtime(kernel):
    def engine(artifact, x, lengths):
        model = Model(artifact, kernel=kernel)
        stream = core.Stream(model._core)
        frames = x.shape[:2] if model.is_sequence else x.shape[:1]
        y = np.full((*frames, model.output_size), -1, np.int16 if x.dtype.kind == "i" else np.float32)
        stream.run(np.ascontiguousarray(x), y, None if lengths is None else np.asarray(lengths, np.int32))
        return Outcome(y, *model._counts(stream))

    return engine


KERNELS = core.kernels()  # of this CPU
ENGINES = {"reference": _python(reference.run), "simulation": _python(simulate.run)}
ENGINES |= {f"runtime, {kernel}": _runtime(kernel) for kernel in KERNELS}


def assert_agree(artifact, x, lengths=None):
    """Every engine gives the same output and the same counters. Returns the reference's."""
    outcomes = {name: engine(artifact, x, lengths) for name, engine in ENGINES.items()}
    wanted = outcomes["reference"]
    for name, found in outcomes.items():
        np.testing.assert_array_equal(found.output, wanted.output, err_msg=name)
        assert found.saturations == wanted.saturations, name
        assert found.changes == wanted.changes, name
    return wanted


def assert_naive(artifact, x, lengths=None):
    """The reference is the naive reading of the file, row by row."""
    wanted = reference.run(artifact, x, lengths)
    rows = [x.shape[1]] * len(x) if lengths is None else [int(n) for n in lengths]
    outputs, saturations, changes = naive.run(dumps(artifact), x.tolist(), rows)
    for row, output in enumerate(outputs):
        found = wanted.codes[row]
        np.testing.assert_array_equal(found[: rows[row]] if found.ndim == 2 else found, output)
        assert found.ndim == 1 or not found[rows[row] :].any()
    assert {**saturations, (INPUT, INPUT): 0} == wanted.saturations
    assert changes == wanted.changes


def random_frames(rng, artifact, *shape) -> np.ndarray:
    """Extreme codes int16 [*shape, I] for the model's input, or ids int32 [*shape]."""
    if artifact.graph.vocabulary:
        return rng.integers(0, artifact.graph.vocabulary, shape, np.int32)
    return extreme_codes(rng, artifact.input_format, (*shape, artifact.graph.input_size))


def extreme_codes(rng, fmt: Format, shape) -> np.ndarray:
    """int16 codes over the whole range, its ends often."""
    uniform = rng.integers(fmt.lo, fmt.hi + 1, shape)
    ends = rng.choice([fmt.lo, fmt.hi, 0, 1], shape)
    return np.where(rng.random(shape) < rng.choice([0.1, 0.5, 0.9]), ends, uniform).astype(np.int16)


# -------------------------------------------------------------------------------------------------- small models

FEATURES, HIDDEN, OUTPUTS = 5, 17, 3


def recurrent(name: str, input_size: int, hidden_size: int, num_layers: int = 1, **options) -> rindle.Recurrent:
    """A Recurrent of a cell by name; where the cell has a projection, of half the features."""
    cell = CELLS[name]
    if "P" in cell.program.sizes.values():
        options = {"proj_size": max(1, hidden_size // 2)} | options
    return rindle.Recurrent(cell, input_size, hidden_size, num_layers, **options)


class TorchModel(torch.nn.Module):
    """Linear, two layers of a cell, and a Linear on all frames, on the last, or on their mean."""

    def __init__(self, name: str, head: str = "all", layers: int = 2, bias: bool = True):
        super().__init__()
        self.head = head
        self.first = torch.nn.Linear(FEATURES, HIDDEN)
        if name in ("lstm", "gru"):
            make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name]
            self.rnn = make(HIDDEN, HIDDEN, layers, batch_first=True, bias=bias)
        else:
            self.rnn = recurrent(name, HIDDEN, HIDDEN, layers, batch_first=True)
        self.last = torch.nn.Linear(getattr(self.rnn, "output_size", HIDDEN), OUTPUTS)

    def forward(self, x):
        y, _ = self.rnn(self.first(x))
        y = {"all": y, "last": y[:, -1], "mean": y.mean(1)}[self.head]
        return self.last(y)


class BothDirections(torch.nn.Module):
    """Two layers of both directions; the final states of the second, and its first frame."""

    def __init__(self, name: str = "lstm"):
        super().__init__()
        make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name]
        self.rnn = make(FEATURES, 9, 2, batch_first=True, bidirectional=True)
        self.last = torch.nn.Linear(36, OUTPUTS)

    def forward(self, x):
        y, h = self.rnn(x)
        h = h[0] if isinstance(h, tuple) else h
        return self.last(torch.cat([h[-2], h[-1], y[:, 0]], 1))


class MixedCells(torch.nn.Module):
    """Several recurrent layers of different cells, the second in both directions, and what goes in beside it."""

    def __init__(self):
        super().__init__()
        self.gru = torch.nn.GRU(FEATURES, 8, batch_first=True)
        self.lstm = torch.nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.sru = rindle.SRU(12 + FEATURES, 12 + FEATURES, batch_first=True)
        self.last = torch.nn.Linear(12 + FEATURES, OUTPUTS)

    def forward(self, x):
        y = self.lstm(self.gru(x)[0])[0]
        return self.last(self.sru(torch.cat([y, x], -1))[0])


VOCABULARY = 13


class Words(torch.nn.Module):
    """A language model, embedding and output tied; or with another head."""

    def __init__(self, head: str = "all", name: str = "lstm", bidirectional: bool = False):
        super().__init__()
        self.head = head
        self.embedding = torch.nn.Embedding(VOCABULARY, 10)
        make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name]
        self.rnn = make(10, 10, batch_first=True, bidirectional=bidirectional)
        self.last = torch.nn.Linear(20 if bidirectional else 10, VOCABULARY)
        if not bidirectional:
            self.last.weight = self.embedding.weight

    def forward(self, ids):
        y, _ = self.rnn(self.embedding(ids))
        return self.last({"all": y, "last": y[:, -1], "mean": y.mean(1)}[self.head])


def words(rows: int = 8, time: int = 20, seed: int = 0) -> np.ndarray:
    """ids int64 [rows, time]."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, (rows, time))


class Only(torch.nn.Module):
    """A recurrent module's output, without its final states."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)[0]


def sequences(rows: int = 8, time: int = 20, seed: int = 0) -> np.ndarray:
    """float32 [rows, time, FEATURES]: slow random walks, so that neighbouring frames are alike."""
    rng = np.random.default_rng(seed)
    return (0.4 * rng.normal(size=(rows, time, FEATURES)).cumsum(1)).astype(np.float32)


@lru_cache(maxsize=64)
def quantized_graph(kind: str, scheme: str) -> Model:
    """One model for each kind of graph: GRAPHS."""
    torch.manual_seed(0)
    make, data = GRAPHS[kind]
    return rindle.quantize(make().eval(), scheme, data())


GRAPHS = {
    "bidirectional lstm": (BothDirections, sequences),
    "bidirectional gru": (lambda: BothDirections("gru"), sequences),
    "mixed": (MixedCells, sequences),
    "words": (Words, words),
    "words, last": (lambda: Words("last", "gru"), words),
    "words, mean": (lambda: Words("mean", "gru"), words),
    "words, both directions": (lambda: Words("all", "gru", True), words),
}


@lru_cache(maxsize=64)
def quantized(name: str, scheme: str, head: str = "all", seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return rindle.quantize(TorchModel(name, head).eval(), scheme, sequences())


# ------------------------------------------------------------------------------------------------ random programs

KINDS = ("affine", "requantize", "add", "sub", "mul", "sum_of_products", "lerp", "clip", "relu", "sigmoid", "tanh")
OPERANDS = {"add": 2, "sub": 2, "mul": 2, "sum_of_products": 4, "lerp": 3, "clip": 1, "requantize": 1}
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33)


def random_cell(kinds, rng):
    """A cell with these operations on random operands, through the public tracer. Every path is used."""
    states = tuple("hcd"[: rng.integers(0, 4)])
    width = rng.choice(["I", "H"])

    def equation(n, x, *before):
        pool, used = [x, *before], set()

        def pick(size=None):
            path = pool[rng.choice([i for i, one in enumerate(pool) if size in (None, one.size)])]
            used.add(path)
            return path

        for i, kind in enumerate(kinds):
            if kind == "affine":
                gates = [f"g{i}{letter}" for letter in "ijk"[: rng.integers(1, 4)]]
                inputs = list(dict.fromkeys(pick() for _ in range(rng.integers(1, 4))))
                biased = " ".join(gate for gate in gates if rng.random() < 0.7)
                results = n.affine(" ".join(gates), *inputs, bias=biased, size=str(rng.choice(["H", "H", "I", "K"])))
                pool.extend(results if len(gates) > 1 else [results])
                continue
            size = rng.choice(sorted({path.size for path in pool}))
            count = OPERANDS.get(kind, 1)
            constant = count > 1 and rng.random() < 0.3  # a constant vector, beside at least one path
            operands = [pick(size) for _ in range(count - constant)]
            if constant:
                operands.insert(rng.integers(count), n.vector(f"v{i}", size))
            if kind == "clip":
                operands += sorted(rng.normal(size=2) * 2)
            result = getattr(n, kind)(*operands)
            pool.append(n.path(f"p{i}", result) if rng.random() < 0.3 else result)
        left = [path for path in pool if path not in used]
        if left:
            pool.append(n.affine("rest", *left, size=str(rng.choice(["H", "K"]))))
        following = [pick("H") for _ in states]
        output = [pool[-1] if left else pick()] if rng.random() < 0.5 or not states or left else []
        return (*output, *following)

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("n", "x", *states)]
    equation.__signature__ = inspect.Signature(parameters)
    equation.__name__ = "random"
    return cell(states=states, width=width)(equation)


def random_layer(rng, cell, input_size: int, input_format: Format, name: str):
    """Random sizes, formats and weights, converted. Raises RindleError where the draw cannot be converted."""
    hidden = input_size if cell.program.sizes[cell.program.inputs[0]] == "H" else int(rng.choice(SIZES))
    program = cell.program.with_sizes(I=input_size, H=hidden, K=int(rng.choice(SIZES)))
    base = int(rng.integers(4, 14))
    formats = {program.inputs[0]: input_format}
    for op in program.ops:
        for path in map(program.format_name, op.out):
            if path not in program.codes and path not in formats:
                formats[path] = _fixed(rng, base, bool(op.kind == "table"))
    for path in (*(state for state, _ in program.states), *program.vectors):
        formats.setdefault(path, _fixed(rng, base))
    for op in program.ops:
        for path in op.out:
            if op.kind == "clip":
                formats[path] = formats[program.format_name(op.args[0])]
            elif path not in program.codes:
                formats[path] = formats[program.format_name(path)]
    codes, rules = {}, {}
    for gate, source in program.products:
        usual = codes.get((None, source)) or codes.setdefault((None, source), _code(rng, base))
        codes[gate, source] = usual if rng.random() < 0.8 else _code(rng, base)
        rules[gate, source] = Rule("int", int(rng.integers(2, 17)) if rng.random() < 0.3 else 8)
    del_none = {key: fmt for key, fmt in codes.items() if key[0] is not None}
    lowered, code_formats = lower(program, del_none, rules)
    blocks, weights = {}, {}
    for op in lowered.affines:
        for gate in op.biased:
            blocks[gate] = torch.from_numpy(rng.normal(size=program.sizes[gate]))
        for term in op.terms:
            columns = lowered.sizes[term.code]
            for gate in term.gates:
                block = rng.normal(size=(program.sizes[gate], columns)) * 2.0 ** rng.integers(-2, 2) / columns**0.5
                block[rng.random(len(block)) < 0.1] = 0.0
                blocks[f"{gate}.{term.source}"] = torch.from_numpy(block)
            matrix = np.concatenate([blocks[f"{gate}.{term.source}"].numpy() for gate in term.gates])
            weights[term.weight] = _weights(rng, matrix, rules[term.gates[0], term.source].bits)
    blocks |= {path: torch.from_numpy(rng.normal(size=program.sizes[path])) for path in program.vectors}
    return convert_layer(name, FloatLayer(program, blocks), LayerPlan(lowered, formats | code_formats, weights))


def _fixed(rng, base: int, bounded: bool = False) -> Format:
    bits = 16 if rng.random() < 0.7 else int(rng.integers(2, 17))
    frac = min(base, 15) - (16 - bits) + int(rng.integers(-3, 4))
    return fixed(bits, int(np.clip(frac, 0, 20)) if bounded else max(frac, 0))


def _code(rng, base: int) -> Format:
    bits = int(rng.choice([8, 8, 16, rng.integers(2, 17)]))
    signed = bits > 7 or bool(rng.random() < 0.7)
    frac = base - (16 - bits) + int(rng.integers(-2, 3))
    if signed and rng.random() < 0.5:
        return fixed(bits, frac, product=True)
    return integer(bits, 2.0**-frac * rng.uniform(0.6, 1.4), signed=signed)


def _weights(rng, matrix, bits: int):
    top = np.maximum(np.abs(matrix).max(1), 1e-3) / (2 ** (bits - 1) - 1)
    if rng.random() < 0.5:
        return Format(bits, step=1.0, product=True), top.astype(np.float32)
    if rng.random() < 0.5:
        return integer(bits, float(top.max())), None
    return fixed(bits, int(-np.ceil(np.log2(top.max()))), product=True), None


def wild_layer(rng, layer):
    """The same program with constants that no conversion would choose, as extreme as docs/format.md allows."""
    constants = {}
    for op in layer.program.ops:
        old = layer.constants.get(op.out[0])
        if op.kind == "affine":
            constants[op.out[0]] = _wild_affine(rng, layer, op, old)
        elif op.kind == "requantize":
            shift, top = int(rng.integers(0, 41)), 2**22
            reach = max(-layer.formats[op.args[0]].lo, layer.formats[op.args[0]].hi)
            top = min(2**22, (2**52 - 2**shift) // reach)
            usual = rng.integers(0, 3) * 2**shift // 2
            constants[op.out[0]] = Rescale(int(min(top - 1, rng.choice([usual, rng.integers(0, top), top - 1]))), shift)
        elif op.kind == "table":
            constants[op.out[0]] = _wild_table(rng, layer.formats[op.out[0]])
        elif op.kind == "clip":
            fmt = layer.formats[op.args[0]]
            constants[op.out[0]] = tuple(sorted(int(v) for v in extreme_codes(rng, fmt, 2)))
    vectors = {
        path: extreme_codes(rng, layer.formats[path], v.shape).astype(np.int64) for path, v in layer.vectors.items()
    }
    return replace(layer, constants=constants, vectors=vectors)


def _wild_affine(rng, layer, op, old: Affine) -> Affine:
    rows = len(old.bias)
    room = np.full(rows, 2**52 - 1, object)
    shift = int(rng.choice([0, 1, int(rng.integers(0, 41)), 40]))
    room -= 2 ** (shift - 1) if shift else 0
    products = []
    for term, product in zip(op.terms, old.products):
        first = op.out.index(term.gates[0])
        start = sum(layer.program.sizes[gate] for gate in op.out[:first])
        span = slice(start, start + len(product.weight))
        weight = extreme_codes(rng, product.format, product.weight.shape).astype(np.int64)
        code = layer.formats[term.code]
        reach = np.abs(weight).sum(1).astype(object) * max(-code.lo, code.hi)
        limit = [min(2**22 - 1, int(space // max(a, 1))) for space, a in zip(room[span], reach)]
        near = [max(2**shift * 2**15 // max(int(a), 1), 1) for a in reach]
        choice = rng.integers(0, 3)
        multiplier = [(top, int(rng.integers(0, top + 1)), min(top, usual))[choice] for top, usual in zip(limit, near)]
        room[span] -= reach * np.array(multiplier, object)
        products.append(Product(weight, product.format, np.array(multiplier, np.int64), product.row_scales))
    bias = [int(rng.integers(-int(space), int(space) + 1)) >> int(rng.choice([0, 20, 51])) for space in room]
    bias = [
        sign * int(space) if rng.random() < 0.1 else b for b, space, sign in zip(bias, room, rng.choice([-1, 1], rows))
    ]
    return Affine(tuple(products), np.array(bias, np.int64), shift)


def _wild_table(rng, y: Format) -> Table:
    flag = str(rng.choice(["none", "odd", "sigmoid"] if 0 <= y.frac <= 30 else ["none", "odd"]))
    degree, n = int(rng.integers(0, 2)), 2 ** int(rng.integers(0, 9))
    x0 = 0 if flag != "none" else int(rng.choice([0, rng.integers(-40000, 40000), -(2**31), 2**31 - 1]))
    base = rng.integers(-32768, 32768, n) if degree else extreme_codes(rng, y, n).astype(np.int64)
    slope = rng.integers(-32768, 32768, n) if degree else None
    q = int(rng.choice([0, 1, int(rng.integers(0, 31)), 30]))
    return Table("wild", degree, flag, x0, int(rng.integers(0, 16)), q, base, slope, 0.5)


# What a random model is made from: the operations of each of its programs, and a seed for all else. Small to print.
seeds = st.integers(0, 2**32 - 1)


def recipes(nodes: int = 3):
    programs = st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), min_size=1, max_size=nodes)
    return st.tuples(programs, seeds)


def attempt(recipe) -> Artifact | None:
    """A random model: random programs of both directions, with every other kind of node and thresholds here and there;
    half of them with constants that no conversion would choose. None where 30 draws of formats do not convert.
    """
    programs, seed = recipe
    rng = np.random.default_rng(seed)
    wild, input_size = bool(rng.random() < 0.5), int(rng.choice(SIZES))
    for _ in range(30):
        try:
            artifact = _chain(rng, programs, input_size, wild)
        except RindleError as error:
            assert any(part in str(error) for part in ("2^52", "shift", "two paths named")), error
            continue
        held = artifact.held_codes()
        return artifact.with_thresholds({n: _theta(rng, artifact, *held[n]) for n in held if rng.random() < 0.6})


def build(recipe) -> Artifact:
    """As :func:`attempt`, under hypothesis: what does not convert is no example."""
    return attempt(recipe) or reject()


def _chain(rng, programs, input_size: int, wild: bool) -> Artifact:
    """One after the other, some of them in both directions, or joined with what they read."""
    made, input_format, table, source, size, sequence = [], None, None, INPUT, input_size, True
    vocabulary = int(rng.choice([0, 0, 0, 1, 9]))

    def graph(output):
        return Graph(1 if vocabulary else input_size, tuple(made), output, vocabulary)

    def add(name, kind, reads, **more):
        made.append(Node(name, kind, reads, **more))
        return name

    for number, kinds in enumerate(programs):
        equation = random_cell(kinds, rng)
        program = equation.program
        if number == 0:
            inside = any(program.inputs[0] in op.args and op.out[0] not in program.codes for op in program.ops)
            narrow = not inside and program.output != program.inputs[0] and rng.random() < 0.5
            input_format = _code(rng, 10) if narrow else _fixed(rng, 10)
            if narrow and input_format.is_fixed and input_format.bits == 16:
                input_format = replace(input_format, product=False)
            if vocabulary and not input_format.signed:
                input_format = integer(input_format.bits, input_format.scale)
            if vocabulary:
                rows = extreme_codes(rng, input_format.as_product(), (vocabulary, input_size))
                table, input_format = Embedding(rows, input_format), None
                source = add("embedding", "embedding", INPUT, table=table)
            if rng.random() < 0.1:
                source = add("twice", "concat", (source, source))
                size *= 2
        fmt = graph(source).format_of(source, input_format)
        layer = random_layer(rng, equation, size, fmt, f"n{number}")
        if layer.program.states and not sequence:
            break
        layer = wild_layer(rng, layer) if wild else layer
        reverse = bool(sequence and rng.random() < 0.25)
        parts = [add(f"n{number}", "program", source, layer=layer, reverse=reverse)]
        if rng.random() < 0.25:  # a second one with the same formats, of the other direction
            other = wild_layer(rng, layer)
            parts.append(add(f"m{number}", "program", source, layer=other, reverse=sequence and not reverse))
        if graph(source).format_of(source, input_format) == graph(parts[0]).format_of(parts[0], input_format):
            parts.append(source)
        source = parts[0]
        if sequence and rng.random() < 0.25:
            kinds = rng.choice(["last", "first", "mean"], len(parts))
            parts = [add(f"{part}.{kind}.{k}", str(kind), part) for k, (part, kind) in enumerate(zip(parts, kinds))]
            source, sequence = parts[0], False
        if len(parts) > 1:
            source = add(f"n{number}.concat", "concat", tuple(parts[i] for i in rng.permutation(len(parts))))
        size = graph(source).size_of(source)
    artifact = Artifact(graph(source), input_format, Golden(None, None, None), {})
    return artifact.with_golden(random_frames(rng, artifact, 2, 3), np.array([3, 1], np.int32))


def _theta(rng, artifact, node: str, code: str):
    layer = artifact.graph.node(node).layer
    fmt, size = layer.formats[code], layer.program.sizes[code]
    top = max(1, min(fmt.hi, int(fmt.hi * rng.choice([0.05, 0.3, 1.0]))))
    return [0, int(rng.integers(0, top)), rng.integers(0, top, size)][rng.integers(3)]


def random_input(rng, artifact, rows: int = 3, time: int = 5):
    """int16 codes [rows, time, I], or int32 ids [rows, time], and lengths."""
    lengths = rng.integers(1, time + 1, rows)
    return random_frames(rng, artifact, rows, time), lengths
