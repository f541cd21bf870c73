"""Random models: programs of random operations, sizes, formats and weights, in graphs with every kind of node."""

import inspect
import warnings
from dataclasses import replace

import numpy as np
import torch
from hypothesis import reject
from hypothesis import strategies as st
from support import extreme_codes, random_frames

from rindle import RindleError, cell, fixed, integer
from rindle.engines.golden import with_golden, with_thresholds
from rindle.errors import RindleWarning
from rindle.file.artifact import Artifact, Golden
from rindle.nn.calibrate.lower import lower
from rindle.nn.calibrate.plan import LayerPlan
from rindle.nn.conversion.convert import convert_layer
from rindle.nn.numerics import FloatLayer
from rindle.numbers.codes import Affine, Product, Rescale
from rindle.numbers.float_ops import ELEMENT_WISE, FloatOp
from rindle.numbers.formats import Format, encode, weight_format
from rindle.numbers.levels import LEVELS
from rindle.numbers.tables import Table
from rindle.program.graph import Graph
from rindle.program.nodes import INPUT, NODES, ProgramNode, Window
from rindle.program.program import Conv
from rindle.scheme.rules import Rule, parse_rule

KINDS = (
    "affine",
    "conv",
    "requantize",
    "add",
    "sub",
    "mul",
    "sum_of_products",
    "lerp",
    "clip",
    "relu",
    "sigmoid",
    "tanh",
)
OPERANDS = {"add": 2, "sub": 2, "mul": 2, "sum_of_products": 4, "lerp": 3, "clip": 1, "requantize": 1}
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33)


def random_cell(kinds, rng, inputs: tuple[int, ...]):
    """A cell with these operations on random operands, through the public tracer, and the numbers that its dimensions
    stand for. inputs: features of its one or two inputs. Every path is used.
    """
    states = tuple("hcd"[: rng.integers(0, 4)])
    images = [tuple(rng.choice([1, 1, 2, 3, 4], 2).tolist()) for _ in range(2)]
    sizes = {"I": inputs[0], "J": inputs[-1]}
    if "conv" in kinds:  # every dimension is that of an image
        sizes |= {d: int(np.prod(image)) * int(rng.integers(1, 5)) for d, image in zip("HK", images)}
    else:
        sizes |= {d: int(rng.choice(SIZES)) for d in "HK"}
    width = str(rng.choice(["I", "H"]))
    if width == "H":
        sizes["H"] = sizes["I"]
    image_of = {d: _image(rng, size) for d, size in sizes.items()}
    names = ("x", "y")[: len(inputs)]

    def equation(n, *before):
        pool, used = list(before), set()

        def pick(size=None):
            path = pool[rng.choice([i for i, one in enumerate(pool) if size in (None, one.size)])]
            used.add(path)
            return path

        for i, kind in enumerate(kinds):
            if kind in ("affine", "conv"):
                gates = [f"g{i}{letter}" for letter in "ijk"[: rng.integers(1, 4)]]
                read = list(dict.fromkeys(pick() for _ in range(rng.integers(1, 4))))
                biased = " ".join(gate for gate in gates if rng.random() < 0.7)
                size = str(rng.choice(["H", "H", "I", "K"]))
                if kind == "affine":
                    results = n.affine(" ".join(gates), *read, bias=biased, size=size)
                else:
                    alone = len(gates) == 1
                    geometry = tuple(_geometry(rng, image_of, sizes, one.size, size, alone) for one in read)
                    results = n.conv(" ".join(gates), *read, bias=biased, size=size, geometry=geometry)
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

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("n", *names, *states)]
    equation.__signature__ = inspect.Signature(parameters)
    equation.__name__ = "random"
    return cell(states=states, sizes={"x": width, "y": "J"} if len(inputs) > 1 else {"x": width})(equation), sizes


def _image(rng, size: int) -> tuple[int, int]:
    """Height and width, whose product divides the size."""
    height = int(rng.choice([n for n in range(1, 5) if size % n == 0]))
    return height, int(rng.choice([n for n in range(1, 9) if size // height % n == 0]))


def _geometry(rng, image_of: dict, sizes: dict, source: str, gate: str, alone: bool) -> Conv:
    """Of a convolution from one dimension's image to another's. alone: of one gate, which may have groups."""
    image, result = image_of[source], image_of[gate]
    pairs = []
    for before, after in zip(image, result):
        while True:
            kernel, dilation = int(rng.integers(1, 5)), int(rng.integers(1, 4))
            padding = int(rng.integers(0, dilation * (kernel - 1) + 1))
            largest = (before - 1 + padding) // (after - 1) if after > 1 else 5
            if largest >= 1:
                pairs.append((kernel, int(rng.integers(1, largest + 1)), dilation, padding))
                break
    kernel, stride, dilation, padding = zip(*pairs)
    channels = sizes[source] // int(np.prod(image)), sizes[gate] // int(np.prod(result))
    groups = [g for g in (1, 2, 3, 4) if not any(n % g for n in channels)] if alone else [1]
    return Conv(image, kernel, stride, dilation, padding, result, int(rng.choice(groups)))


def random_layer(rng, equation, sizes: dict[str, int], input_formats: list[Format], name: str, level_sets: bool = True):
    """Random formats and weights, converted. sizes: dimension -> number. level_sets: False draws integers alone. Raises RindleError
    where the draw cannot be converted.
    """
    program = equation.program.with_sizes(**sizes)
    base = int(rng.integers(4, 14))
    formats = dict(zip(program.inputs, input_formats))
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
    for gate, source in program.blocks:
        usual = codes.get((None, source)) or codes.setdefault((None, source), _code(rng, base))
        grouped = program.term_of(gate, source).conv is not None and program.term_of(gate, source).conv.groups > 1
        codes[gate, source] = usual if rng.random() < 0.8 or grouped else _code(rng, base)
        rules[gate, source] = Rule("int", int(rng.integers(2, 17)) if rng.random() < 0.3 else 8)
        (own,) = rng.spawn(1)  # so that all else is drawn as if there were none
        if level_sets and own.random() < 0.15:
            rules[gate, source] = parse_rule(str(own.choice(list(LEVELS))))
    del_none = {key: fmt for key, fmt in codes.items() if key[0] is not None}
    lowered, code_formats = lower(program, del_none, rules)
    blocks, weights = {}, {}
    for op in lowered.affines:
        for gate in op.biased:
            blocks[gate] = torch.from_numpy(rng.normal(size=program.block_shape(gate)))
        for term in op.terms:
            for gate in term.gates:
                rows, columns = program.block_shape(f"{gate}.{term.source}")
                block = rng.normal(size=(rows, columns)) * 2.0 ** rng.integers(-2, 2) / columns**0.5
                block[rng.random(len(block)) < 0.1] = 0.0
                blocks[f"{gate}.{term.source}"] = torch.from_numpy(block)
            matrix = np.concatenate([blocks[f"{gate}.{term.source}"].numpy() for gate in term.gates])
            weights[term.key] = _weights(rng, matrix, rules[term.gates[0], term.source])
    blocks |= {path: torch.from_numpy(rng.normal(size=program.sizes[path])) for path in program.vectors}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RindleWarning
        )  # of steps that grow, numerics (8c): here they need not be good ones
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


def _weights(rng, matrix, rule: Rule):
    bits = rule.bits
    top = np.maximum(np.abs(matrix).max(1), 1e-3) / rule.level_set.hi
    if rng.random() < 0.5:
        return weight_format(bits, rule.levels), top.astype(np.float32)
    if rng.random() < 0.5 or rule.levels:
        return weight_format(bits, rule.levels, float(top.max())), None
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
        start = sum(layer.program.block_shape(gate)[0] for gate in op.out[:first])
        span = slice(start, start + len(product.weight))
        weight = extreme_codes(rng, product.format, product.weight.shape).astype(np.int64)
        if product.format.levels:
            weight = encode(weight, 1, product.format.lo, product.format.hi, product.format.spacing)
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
        artifact, held = _begun(np.random.default_rng([seed, 1]), artifact), artifact.held_codes()
        return with_thresholds(artifact, {n: _theta(rng, artifact, *held[n]) for n in held if rng.random() < 0.6})


def _begun(rng, artifact) -> Artifact:
    """With initial states here and there, as extreme as codes can be."""

    def begun(node):
        if not isinstance(node, ProgramNode):
            return node
        layer = node.layer
        initial = {
            state: extreme_codes(rng, layer.formats[state], layer.program.sizes[state]).astype(np.int64)
            for state, _ in layer.program.states
            if rng.random() < 0.3
        }
        return replace(node, layer=replace(layer, initial=initial))

    return replace(artifact, graph=replace(artifact.graph, nodes=tuple(map(begun, artifact.graph.nodes))))


def build(recipe) -> Artifact:
    """As :func:`attempt`, under hypothesis: what does not convert is no example."""
    return attempt(recipe) or reject()


def _chain(rng, programs, input_size: int, wild: bool) -> Artifact:
    """One program after the other, with nodes of every other kind between and behind them."""
    vocabulary = int(rng.choice([0, 0, 0, 1, 9]))
    made, input_format = [], None

    def graph(output=INPUT):
        return Graph(1 if vocabulary else input_size, tuple(made), output, vocabulary)

    def add(kind, reads, **more):
        sources = (reads,) if isinstance(reads, str) else reads
        made.append(NODES[kind](f"{kind}{len(made)}", sources, **more))
        return made[-1].name

    def alike(source):
        """What can be joined with a value: nodes, and perhaps the input, of its time base, or vectors."""
        names = [node.name for node in made] + ([] if vocabulary else [INPUT])
        kind = graph().is_sequence(source)
        near = [name for name in names if graph().is_sequence(name) == kind]
        return [name for name in near if not kind or graph().time_base(name) == graph().time_base(source)]

    def decorated(source):
        """A window, a gather, a concat of equal formats, or a vector made of the sequence, here and there."""
        sequence, size = graph().is_sequence(source), graph().size_of(source)
        if sequence and rng.random() < 0.2:
            source = add("window", source, window=_window(rng))
            size = graph().size_of(source)
        if rng.random() < 0.15:
            index = rng.integers(0, size, int(rng.integers(1, 9)))
            source = add("gather", source, index=tuple(index.tolist()))
        same = [n for n in alike(source) if fmt(n) == fmt(source) and graph().size_of(n) + graph().size_of(source) < 99]
        if rng.random() < 0.3 and same:
            parts = [source, *rng.choice(same, rng.integers(1, 3))]
            source = add("concat", tuple(str(parts[i]) for i in rng.permutation(len(parts))))
        if sequence and rng.random() < 0.2:
            source = add(str(rng.choice(["last", "first", "mean", "max"])), source)
        return source

    def fmt(name):
        return graph().format_of(name, input_format)

    source = INPUT
    for number, kinds in enumerate(programs):
        others = [source]
        if source != INPUT and rng.random() < 0.3:
            others.append(str(rng.choice(alike(source))))
        if number == 0:
            equation, sizes = random_cell(kinds, rng, (input_size,))
            program = equation.program
            inside = any(program.inputs[0] in op.args and op.out[0] not in program.codes for op in program.ops)
            narrow = not inside and program.output != program.inputs[0] and rng.random() < 0.5
            input_format = _code(rng, 10) if narrow else _fixed(rng, 10)
            if narrow and input_format.is_fixed and input_format.bits == 16:
                input_format = replace(input_format, product=False)
            if vocabulary:
                if not input_format.signed:
                    input_format = integer(input_format.bits, input_format.scale)
                rows = extreme_codes(rng, input_format.as_product(), (vocabulary, input_size))
                source = add("embedding", INPUT, rows=rows, format=input_format)
                input_format = None
            if rng.random() < 0.1:
                source = add("window", source, window=Window())  # of one frame: the same again
            others = [source]
        else:
            fixed_only = [one for one in others if fmt(one).is_fixed and fmt(one).signed]
            others = fixed_only or others[:1]
            equation, sizes = random_cell(kinds, rng, tuple(graph().size_of(one) for one in others))
        layer = random_layer(rng, equation, sizes, [fmt(one) for one in others], f"n{number}")
        sequence = graph().is_sequence(others[0])
        if layer.program.states and not sequence:
            break
        layer = wild_layer(rng, layer) if wild else layer
        reads, reverse = others[0] if len(others) == 1 else tuple(others), bool(sequence and rng.random() < 0.25)
        source = add("program", reads, layer=layer, reverse=reverse)
        if rng.random() < 0.2:  # a second one with the same formats, of the other direction
            add("program", reads, layer=wild_layer(rng, layer), reverse=bool(sequence and not reverse))
        source = decorated(source)
    if rng.random() < 0.15:
        source = _tail(rng, graph, add, alike, source)
    artifact = Artifact(graph(source), input_format, Golden(None, None, None), {})
    least = artifact.graph.least_frames
    return with_golden(artifact, random_frames(rng, artifact, 2, least + 2), np.array([least + 2, least], np.int32))


def _window(rng) -> Window:
    size, dilation = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    if rng.random() < 0.5:
        return Window(size, dilation, before=dilation * (size - 1))  # causal
    return Window(size, dilation, int(rng.integers(1, 4)), int(rng.integers(0, 5)), int(rng.integers(0, 5)))


def _tail(rng, graph, add, alike, source: str) -> str:
    """Float nodes, one after the other."""
    for _ in range(int(rng.integers(1, 4))):
        size = graph().size_of(source)
        name = str(
            rng.choice([*ELEMENT_WISE, "softmax", "log_softmax", "layer_norm", "linear", "add", "mul", "attention"])
        )
        parameters, reads = {}, source
        if name in ("softmax", "log_softmax"):
            parameters["groups"] = int(rng.choice([g for g in (1, 2, 3) if size % g == 0]))
        elif name == "layer_norm":
            parameters["epsilon"] = 1e-5
            if rng.random() < 0.5:
                parameters |= {key: rng.normal(size=size).astype(np.float32) for key in ("weight", "bias")}
        elif name == "linear":
            rows = int(rng.integers(1, 6))
            parameters["weight"] = rng.normal(size=(rows, size)).astype(np.float32)
            if rng.random() < 0.5:
                parameters["bias"] = rng.normal(size=rows).astype(np.float32)
        elif name in ("add", "mul"):
            reads = source, str(rng.choice([one for one in alike(source) if graph().size_of(one) == size]))
        elif name == "attention":
            if not graph().is_sequence(source):
                continue
            score = add(
                "float", source, op=FloatOp("linear", {"weight": rng.normal(size=(1, size)).astype(np.float32)})
            )
            reads = score, source
        source = add("float", reads, op=FloatOp(name, parameters))
    return source


def _theta(rng, artifact, node: str, code: str):
    layer = artifact.graph.node(node).layer
    fmt, size = layer.formats[code], layer.program.sizes[code]
    top = max(1, min(fmt.hi, int(fmt.hi * rng.choice([0.05, 0.3, 1.0]))))
    return [0, int(rng.integers(0, top)), rng.integers(0, top, size)][rng.integers(3)]


def random_input(rng, artifact, rows: int = 3, time: int = 5):
    """int16 codes [rows, time, I], or int32 ids [rows, time], and lengths; with more frames where windows need them."""
    least = artifact.graph.least_frames
    time += least - 1
    return random_frames(rng, artifact, rows, time), rng.integers(least, time + 1, rows)
