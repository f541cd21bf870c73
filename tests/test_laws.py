"""The laws of the design: all engines give the same integers, whatever the model, the input, and the way it is run."""

from dataclasses import replace

import naive
import numpy as np
import pytest
import random_models
from hypothesis import assume, given
from profiles import examples
from random_models import attempt, build, random_input, random_layer, recipes, seeds, wild_layer
from support import (
    CASES,
    CELLS,
    ENGINES,
    EVERY_CELL,
    FEATURES,
    GRAPHS,
    HEADS,
    KERNELS,
    assert_agree,
    assert_equal,
    assert_naive,
    both_directions,
    extreme_codes,
    is_float,
    quantized,
    quantized_graph,
    random_frames,
    sequences,
)

from rindle import SCHEMES, Model, cell, fixed
from rindle.engines.golden import with_golden, with_thresholds
from rindle.engines.reference import run
from rindle.file.artifact import Artifact, Golden
from rindle.file.container import dumps, loads, model_id
from rindle.numbers.formats import decode
from rindle.numbers.levels import LEVELS
from rindle.program.graph import Graph
from rindle.program.nodes import INPUT, NODES, FirstNode, LastNode, ProgramNode, WindowNode
from rindle.program.products import terms_of_node
from rindle.scheme.rules import Rule


def some_thresholds(artifact, share: float) -> dict:
    """θ as a share of each code's range, per element for every other input."""
    chosen = {}
    for i, (name, (node, code)) in enumerate(artifact.held_codes().items()):
        layer = artifact.graph.node(node).layer
        theta = int(share * layer.formats[code].hi)
        chosen[name] = theta if i % 2 else np.arange(layer.program.sizes[code]) * 2 * theta // layer.program.sizes[code]
    return chosen


@pytest.mark.fast(12)
def test_engines_agree_on_cells_and_schemes(cell, scheme, head):
    artifact = quantized(cell, scheme, head).artifact
    x = sequences(rows=5, time=8, seed=1)
    lengths = np.array([5, 8, 1, 8, 3])
    assert_agree(artifact, x)
    assert_agree(artifact, 50 * x, lengths)  # far outside the calibrated range
    codes = extreme_codes(np.random.default_rng(0), artifact.input_format, x.shape)
    assert_agree(artifact, codes, lengths)
    for share in (0.02, 0.3):
        assert_agree(with_thresholds(artifact, some_thresholds(artifact, share)), x, lengths)


@pytest.mark.fast(7)
@pytest.mark.parametrize("kind", GRAPHS)
def test_engines_agree_on_every_kind_of_graph(kind, scheme):
    artifact = quantized_graph(kind, scheme).artifact
    x = GRAPHS[kind][1](rows=5, time=8, seed=1)
    x = x.astype(np.int32) if artifact.graph.vocabulary else 50 * x
    lengths = np.array([5, 8, 1, 8, 3])
    assert_agree(artifact, x)
    assert_agree(artifact, x, lengths)
    held = with_thresholds(artifact, some_thresholds(artifact, 0.1))
    assert_agree(held, x, lengths)
    frames = random_frames(np.random.default_rng(0), artifact, 2, 4)
    assert_naive(held, frames, np.array([4, 2]))
    assert dumps(loads(dumps(held))) == dumps(held)


@pytest.mark.fast(4)
def test_engines_agree_on_both_directions(cell):
    artifact = both_directions(cell)
    assert [node.reverse for node in artifact.graph.recurrent] == [False, True]
    x, lengths = sequences(rows=5, time=8, seed=1), np.array([5, 8, 1, 8, 3])
    for held in (artifact, with_thresholds(artifact, some_thresholds(artifact, 0.1))):
        assert_agree(held, x, lengths)
        assert_naive(held, random_frames(np.random.default_rng(0), held, 2, 4), np.array([4, 2]))


def mirrored(x, lengths):
    """Each row from its own end to its start."""
    flipped = x.copy()
    for row, length in enumerate(lengths):
        flipped[row, :length] = x[row, :length][::-1]
    return flipped


@examples(40)
@given(recipes(), seeds)
def test_a_graph_of_the_other_direction_runs_the_mirrored_rows(recipe, seed):
    """Every program turned round, first and last exchanged: the mirrored output of the mirrored input, and its counters."""
    artifact = build(recipe)
    assume(
        not any(isinstance(node, WindowNode) for node in artifact.graph.nodes)
    )  # whose frames would have to be turned, too
    other = {LastNode: FirstNode, FirstNode: LastNode}

    def mirror(node):
        if isinstance(node, ProgramNode) and artifact.graph.is_sequence(node.source):
            return replace(node, reverse=not node.reverse)
        return other[type(node)](node.name, node.sources) if type(node) in other else node

    nodes = tuple(map(mirror, artifact.graph.nodes))
    turned = replace(artifact, graph=replace(artifact.graph, nodes=nodes))
    x, lengths = random_input(np.random.default_rng(seed), artifact)
    for engine in ENGINES.values():
        wanted, found = engine(artifact, x, lengths), engine(turned, mirrored(x, lengths), lengths)
        output = mirrored(found.output, lengths) if found.output.ndim == 3 else found.output
        assert_equal(artifact, output, wanted.output)
        assert (found.saturations, found.changes) == (wanted.saturations, wanted.changes)


@pytest.mark.fast(0)
def test_random_graphs_have_every_kind_of_node():
    """Else the laws on them would say less than they seem to."""
    wanted = {("embedding", True, False, True), ("window", True, False, False), ("held", True), ("held", False)}
    for ids in (False, True):
        wanted |= {(kind, False, False, ids) for kind in NODES if kind not in ("window", "embedding")}
        wanted |= {(kind, True, False, ids) for kind in ("program", "concat", "window", "gather", "float")}
        wanted |= {("program", True, True, ids)}
    wanted |= {("levels", name, held) for name in LEVELS for held in (False, True)}
    wanted |= {("inputs", 1), ("inputs", 2), ("groups", True), ("groups", False), ("held convolution", True)}
    wanted |= {("initial states", False), ("initial states", True)}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        artifact = attempt(([rng.choice(random_models.KINDS, 3).tolist() for _ in range(3)], seed))
        wanted -= (
            {feature for node in artifact.graph.nodes for feature in features(artifact.graph, node)}
            if artifact
            else set()
        )
        if not wanted:
            return
    raise AssertionError(f"200 random models have none of {wanted}")


def features(graph, node) -> set:
    reverse = isinstance(node, ProgramNode) and node.reverse
    found = {(node.kind, graph.is_sequence(node.name), reverse, bool(graph.vocabulary))}
    if isinstance(node, ProgramNode):
        layer = node.layer
        terms = [term for op in layer.program.affines for term in op.terms if term.conv]
        found |= {("initial states", node.reverse)} if layer.initial else set()
        found |= {("inputs", len(node.sources))} | ({("held", node.reverse)} if layer.thetas else set())
        found |= {("groups", term.conv.groups > 1) for term in terms}
        found |= {("levels", one.product.format.levels, one.term.code in layer.thetas) for one in terms_of_node(node)}
        found |= {("held convolution", term.code in layer.thetas) for term in terms}
    return found


@pytest.mark.fast(6)
def test_the_reference_is_the_naive_reading_of_the_file(cell, scheme):
    artifact = quantized(cell, scheme, "mean").artifact
    codes = extreme_codes(np.random.default_rng(0), artifact.input_format, (2, 4, FEATURES))
    assert_naive(artifact, codes, np.array([4, 2]))
    assert_naive(with_thresholds(artifact, some_thresholds(artifact, 0.1)), codes)


@examples(100)
@given(recipes(), seeds)
def test_engines_agree_on_random_programs(recipe, seed):
    artifact = build(recipe)
    x, lengths = random_input(np.random.default_rng(seed), artifact)
    assert_agree(artifact, x, lengths)


@examples(60)
@given(recipes(nodes=1), seeds)
def test_engines_agree_on_floats_at_ties(recipe, seed):
    """The input rule (4) on, just below and just above k + ½, within the range and beyond it."""
    artifact = build(recipe)
    assume(not artifact.graph.vocabulary)
    rng, fmt = np.random.default_rng(seed), artifact.input_format
    codes = rng.integers(fmt.lo - 3, fmt.hi + 4, (2, 2 + artifact.graph.least_frames, artifact.graph.input_size))
    x = ((codes + rng.choice([0.0, 0.5, -0.5], codes.shape)) * fmt.scale).astype(np.float32)
    x = np.where(
        rng.random(x.shape) < 0.5, x, np.nextafter(x, rng.choice([-np.inf, np.inf], x.shape).astype(np.float32))
    )
    assert_agree(artifact, x)


@cell(states=("h",))
def elman(n, x, h):
    return n.tanh(n.affine("a", x, h))


@pytest.mark.fast(4)
@pytest.mark.parametrize("columns, rows", [(517, 401), (1201, 129)])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("weight_bits", [4, 8, 12, 16])
def test_engines_agree_on_large_matrices(columns, rows, bits, weight_bits, monkeypatch):
    """Kernels store and sum large matrices otherwise: bytes, and 64-bit sums in parts. Both with few and many changes."""
    monkeypatch.setattr(random_models, "_code", lambda rng, base: fixed(bits, base - 16 + bits, product=True))
    monkeypatch.setattr(random_models, "Rule", lambda kind, _: Rule(kind, weight_bits))
    rng = np.random.default_rng(columns + bits + weight_bits)
    layer = random_layer(rng, elman, {"I": columns, "H": rows}, [fixed(16, 12)], "n0", level_sets=False)
    x = extreme_codes(rng, fixed(16, 12), (2, 6, columns))
    for t in range(1, 6):  # 10 %, then 90 % of the frame changes
        same = rng.random(columns) < (0.9 if t % 2 else 0.1)
        x[:, t, same] = x[:, t - 1, same]
    for one in (layer, wild_layer(rng, layer)):
        graph = Graph(columns, (ProgramNode("n0", (INPUT,), one),), "n0")
        artifact = with_golden(Artifact(graph, fixed(16, 12), Golden(None, None, None), {}), x[:1, :1], np.array([1]))
        assert_agree(artifact, x, np.array([6, 4]))
        assert_agree(with_thresholds(artifact, {"n0/x": 0, "n0/h": 3}), x, np.array([6, 4]))


@examples(100)
@given(recipes(nodes=2), seeds)
def test_random_programs_are_the_naive_reading_of_their_file(recipe, seed):
    artifact = build(recipe)
    x, lengths = random_input(np.random.default_rng(seed), artifact, rows=2, time=3)
    assert_naive(artifact, x, lengths)


@examples(40)
@given(recipes(), seeds)
def test_save_and_load_are_the_identity(recipe, seed):
    artifact = build(recipe)
    data = dumps(artifact)
    loaded = loads(data)
    assert dumps(loaded) == data
    assert model_id(loaded) == model_id(artifact)
    x, lengths = random_input(np.random.default_rng(seed), artifact)
    found, wanted = run(loaded, x, lengths), run(artifact, x, lengths)
    assert_equal(artifact, found.codes, wanted.codes)
    assert (found.saturations, found.changes) == (wanted.saturations, wanted.changes)


@pytest.mark.fast(8)
def test_save_and_load_of_cells_are_the_identity(artifact):
    data = dumps(artifact)
    assert dumps(loads(data)) == data
    golden = artifact.golden
    np.testing.assert_array_equal(assert_agree(artifact, golden.inputs, golden.lengths).output, golden.outputs)
    held = with_thresholds(artifact, some_thresholds(artifact, 0.05))
    assert dumps(loads(dumps(held))) == dumps(held)
    assert model_id(held) != model_id(artifact)
    golden = run(held, held.golden.inputs, held.golden.lengths)
    np.testing.assert_array_equal(golden.codes, held.golden.outputs)


def without_thresholds(artifact):
    return with_thresholds(artifact, dict.fromkeys(artifact.held_codes()))


@examples(40)
@given(recipes(), seeds)
def test_threshold_0_is_dense(recipe, seed):
    artifact = build(recipe)
    dense = without_thresholds(artifact)
    held = with_thresholds(artifact, dict.fromkeys(artifact.held_codes(), 0))
    x, lengths = random_input(np.random.default_rng(seed), artifact)
    a, b = assert_agree(dense, x, lengths), assert_agree(held, x, lengths)
    assert_equal(artifact, a.output, b.output)
    assert a.saturations == b.saturations
    assert not a.changes


class Recorded:
    """Array namespace of the reference that keeps every matrix product: (x, W)."""

    def __init__(self):
        self.products = []

    def __getattr__(self, name):
        from rindle.numbers.codes import NumPy

        return getattr(NumPy, name)

    def product(self, x, matrix):
        self.products.append((x, matrix))
        return x @ matrix.T


@pytest.mark.parametrize("cell", [name for name, one in EVERY_CELL.items() if not one.program.needs_image])
def test_products_are_of_the_held_value(cell):
    """(Of matrices; the naive reading of a held convolution is in test_convlstm.py.) v-hat of the layer's input computed by hand from the dense codes, and Σ of W·Δ over the frames equal W·v-hat."""
    artifact = quantized(cell, "int8").artifact
    name = next(name for name in artifact.held_codes() if name == "rnn.l0/x")
    x = sequences(rows=1, time=12, seed=3)
    dense, held = Recorded(), Recorded()
    run(artifact, x, xp=dense)
    run(with_thresholds(artifact, {name: 9}), x, xp=held)
    weight = artifact.graph.node("rnn.l0").layer.constants
    matrices = [p.weight for constant in weight.values() for p in getattr(constant, "products", ())]
    frames = [[x for x, m in one.products if any(np.array_equal(m, w) for w in matrices)] for one in (dense, held)]
    op = artifact.graph.node("rnn.l0").layer.program
    per_frame = sum(len(one.terms) for one in op.affines)
    first = next(i for i, term in enumerate(t for one in op.affines for t in one.terms) if term.source == "x")
    codes, products = ([one[t * per_frame + first][0] for t in range(12)] for one in frames)
    v, accumulator, changed = np.zeros_like(codes[0]), 0, 0
    for code, product in zip(codes, products):
        following = np.array([new if abs(int(new) - int(old)) > 9 else old for new, old in zip(code, v)])
        accumulator = accumulator + matrices[first] @ (following - v)
        changed += int((following != v).sum())
        v = following
        np.testing.assert_array_equal(product, v)
        np.testing.assert_array_equal(matrices[first] @ product, accumulator)
    assert 0 < changed < 12 * len(v)
    found = ENGINES["runtime, portable"](with_thresholds(artifact, {name: 9}), x, None).changes
    assert found == {("rnn.l0", artifact.held_codes()[name][1]): (changed, 12)}


@examples(40)
@given(recipes(), seeds)
def test_a_batch_row_is_that_row_alone(recipe, seed):
    artifact = build(recipe)
    x, lengths = random_input(np.random.default_rng(seed), artifact, rows=4, time=6)
    for name, engine in ENGINES.items():
        whole = engine(artifact, x, lengths).output
        padded = x.copy()
        for row, length in enumerate(lengths):
            padded[row, length:] = 0 if artifact.graph.vocabulary else artifact.input_format.lo  # must not matter
            alone = engine(artifact, x[row : row + 1, :length], None).output[0]
            found = whole[row, : len(alone)] if whole.ndim == 3 else whole[row]
            assert_equal(artifact, found, alone, name)
        assert_equal(artifact, engine(artifact, padded, lengths).output, whole, name)


def stepped(stream, codes, floats: bool):
    """Frame by frame, as floats with an array for what comes out, or as codes."""
    model = stream.model
    if floats:
        out = np.empty(model.output_size, np.float32)
        return np.stack([stream.step(frame, out).copy() for frame in as_floats(model, codes)])
    return np.stack([stream.step_codes(frame) for frame in codes])


def as_floats(model, codes):
    """What has these codes; ids stay."""
    return codes if model.vocabulary else decode(codes, model.artifact.input_format)


def whole(model, codes, floats: bool):
    """What ``run`` gives for every prefix of one row."""
    run, x = (model.run, as_floats(model, codes)) if floats else (model.run_codes, codes)
    if model.is_sequence:
        return run(x, engine="reference")
    return np.stack([run(x[: t + 1], engine="reference") for t in range(len(x))])


@examples(40)
@given(recipes(), seeds)
def test_chunks_are_the_whole(recipe, seed):
    """Frames one by one, as floats or as codes, with the state saved and restored into another stream on the way."""
    artifact = build(recipe)
    assume(artifact.graph.whole_sequence is None)
    model = Model(artifact)
    rng = np.random.default_rng(seed)
    codes = random_frames(rng, artifact, 7)
    floats = is_float(artifact) or seed % 2 == 1  # of which there are no codes
    wanted = whole(model, codes, floats)
    stream = model.stream()
    assert_equal(artifact, stepped(stream, codes, floats), wanted)
    stream.reset()
    cut = int(rng.integers(0, 8))
    assert_equal(artifact, stepped(stream, codes[:cut], floats) if cut else wanted[:0], wanted[:cut])
    state = stream.save()
    other = Model(loads(dumps(artifact))).stream()
    stepped(other, codes, floats)
    other.restore(state)
    assert other.save() == state
    if cut < 7:
        assert_equal(artifact, stepped(other, codes[cut:], floats), wanted[cut:])
        assert_equal(artifact, stepped(stream, codes[cut:], floats), wanted[cut:])
        assert other.save() == stream.save()


@examples(40)
@given(recipes(nodes=2), seeds)
def test_a_saved_state_is_what_the_document_says(recipe, seed):
    artifact = build(recipe)
    assume(artifact.graph.whole_sequence is None)
    codes = random_frames(np.random.default_rng(seed), artifact, 3)
    model = Model(artifact)
    stream = model.stream()
    assert stream.save() == naive.state(model.data, [])
    stepped(stream, codes, is_float(artifact))
    assert stream.save() == naive.state(model.data, codes.tolist())


@pytest.mark.fast(8)
def test_every_saturation_bound_is_hit(cell, scheme):
    """Far-out inputs drive the narrow codes and the gates to both ends of their ranges, in every engine alike."""
    artifact = quantized(cell, scheme).artifact
    rng = np.random.default_rng(5)
    x = (1e4 * rng.choice([-1.0, 1.0], (8, 12, FEATURES))).astype(np.float32)
    found = assert_agree(artifact, x)
    assert found.saturations["input", "input"] == x.size
    assert found.saturations["rnn.l0", "x.code"] > 0
    result = run(artifact, x)
    assert result.values["first"].min() == artifact.format_of("first").lo
    assert result.values["first"].max() == artifact.format_of("first").hi


SATURATING = ("affine", "requantize", "add", "sub", "mul", "sum_of_products", "lerp")


@pytest.mark.fast(0)
def test_every_operation_saturates_at_both_ends_in_some_vector(monkeypatch):
    """Over random programs each counted operation exceeds both bounds, and the counters are the naive ones."""
    hit = {kind: set() for kind in SATURATING}

    class Watched(naive.Program):
        def finish(self, path, values, counter):
            lo, hi = naive.bounds(self.formats[path], path in self.p["codes"])
            (kind,) = (op["op"] for op in self.p["ops"] if counter in (op["out"], *op["out"][:1]))
            hit[kind] |= {(v > hi) - (v < lo) for v in values}
            return super().finish(path, values, counter)

    monkeypatch.setattr(naive, "Program", Watched)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        if artifact := attempt(([rng.choice(SATURATING, 6).tolist()], seed)):
            assert_naive(artifact, random_input(rng, artifact)[0][:1])
    assert hit == {kind: {-1, 0, 1} for kind in SATURATING}


def test_the_tables_cover_every_entry():
    """A new cell or scheme is tested by existing; this only says which there are."""
    assert {case[0] for case in CASES} == set(EVERY_CELL) >= {*CELLS, "mingru", "fastgrnn"}
    assert {case[1:] for case in CASES} == {(scheme, head) for scheme in SCHEMES for head in HEADS}
    assert {"int8", "w4a8", "fixed16", "fixed8"} <= set(SCHEMES)
    assert set(ENGINES) == {"reference", "simulation", *(f"runtime, {kernel}" for kernel in KERNELS)}
    assert KERNELS[-1] == "portable"
