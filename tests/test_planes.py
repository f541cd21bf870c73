"""Blocks count parameters, terms count what is multiplied: a program whose weights stand in two planes is the same model.

Every 8-bit weight w is 16·a + b, with a and b of 5 bits: two terms on one code, whose multipliers are 16·M and M. No file can say so
yet, so the artifacts are made by hand.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import TorchModel, quantized, sequences

from rindle import Format, RindleError
from rindle.engines import reference
from rindle.engines.measurement import measured_inputs
from rindle.engines.real import dequantized
from rindle.export.c import to_c
from rindle.file.container import dumps
from rindle.file.diff import compare
from rindle.file.read_program import with_planes
from rindle.measure.accelerators import workload_of
from rindle.measure.cost import weight_bytes
from rindle.measure.rezk import executed_by_rules, shared_directions, size_by_rules, size_of
from rindle.measure.widths import hardware
from rindle.nn import simulate
from rindle.nn.capture.source import source_of
from rindle.nn.numerics import FakeQuantized, FloatLayer, Real
from rindle.numbers import bounds
from rindle.numbers.codes import Product
from rindle.program.nodes import run_layer
from rindle.program.products import blocks_of, terms_of
from rindle.program.program import Block, Term, TermKey
from rindle.scheme import rezk as presets
from rindle.scheme.paths import keys_of
from rindle.scheme.rules import resolve
from rindle.search.choose_paths import paths_of

CELLS = ("lstm", "gru", "convlstm", "sru")
SCHEME = "fixed(8,8)"  # shifts only: multipliers are small enough for 16 times as much


def planes_of(op, layer):
    """The operation and its constant, each term in two planes."""
    constant = layer.constants[op.out[0]]
    terms, products = [], []
    for term, product in zip(op.terms, constant.products):
        high = np.floor(product.weight / 16 + 0.5).astype(np.int64)
        step = product.format.scale
        for plane, (codes, times) in enumerate(((high, 16), (product.weight - 16 * high, 1))):
            terms.append(replace(term, plane=plane))
            fmt = Format(5, step=step * times, product=True)
            products.append(Product(codes, fmt, product.multiplier * times))
    return replace(op, terms=tuple(terms)), replace(constant, products=tuple(products))


def in_planes(graph, constants: bool = True):
    """The graph with every term in two planes; of a captured one, the programs alone."""
    nodes = []
    for node in graph.nodes:
        if node.kind == "program":
            program, layer = node.layer.program, node.layer
            made = {op.out[0]: planes_of(op, layer) for op in program.affines} if constants else {}
            ops = [
                made[op.out[0]][0]
                if op.out[0] in made
                else replace(op, terms=tuple(replace(t, plane=p) for t in op.terms for p in (0, 1)))
                for op in program.ops
            ]
            layer = replace(layer, program=replace(program, ops=tuple(ops)))
            if constants:
                layer = replace(layer, constants=layer.constants | {name: one for name, (_, one) in made.items()})
            node = replace(node, layer=layer)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


@pytest.fixture(params=CELLS)
def both(request):
    """The model of one plane, and of two."""
    one = quantized(request.param, SCHEME).artifact
    assert all(p.product.multiplier.max() < 2**18 for p in terms_of(one.graph))
    return one, replace(one, graph=in_planes(one.graph))


@pytest.fixture(params=CELLS)
def captured(request):
    """A float graph, and the same with every term in two planes."""
    torch.manual_seed(0)
    graph, _ = source_of(TorchModel(request.param).eval()).capture(sequences())
    return graph, in_planes(graph, constants=False)


def test_a_term_has_a_key_that_prints_as_its_matrix():
    term = Term("x.code", "x", ("i", "f"))
    keys = [replace(term, plane=plane).key for plane in (1, 0)]
    assert [str(key) for key in sorted(keys)] == ["i+f.x", "i+f.x[1]"] == [f"{key}" for key in sorted(keys)]
    assert term.key == TermKey(("i", "f"), "x") and len({*keys, term.key}) == 2
    assert keys[0].of("f") == TermKey(("f",), "x", 1)
    assert str(Block("f", "h.next")) == "f.h.next" and Block("f", "x") == ("f", "x")


def test_two_planes_give_the_integers_of_one_in_the_reference_and_in_the_simulation(both):
    one, two = both
    held = {name: 3 for name in one.held_codes()}
    x = sequences(3, 9)
    for thresholds in ({}, held):
        single, planes = (replace(artifact, graph=artifact.held_graph(thresholds)) for artifact in (one, two))
        wanted = reference.run(single, x)
        for engine in (reference, simulate):
            found = engine.run(planes, x)
            np.testing.assert_array_equal(found.codes, wanted.codes)
            assert (found.saturations, found.changes) == (wanted.saturations, wanted.changes)


def test_blocks_count_parameters_and_terms_count_macs_and_bits(both):
    one, two = both
    single, planes = list(terms_of(one.graph)), list(terms_of(two.graph))
    assert [(b.gate, b.source, b.weights, b.hidden) for b in blocks_of(two.graph)] == [
        (b.gate, b.source, b.weights, b.hidden) for b in blocks_of(one.graph)
    ]
    parameters = sum(term.weights for term in single)
    assert sum(block.weights for block in blocks_of(two.graph)) == parameters
    assert sum(term.macs for term in planes) == 2 * sum(term.macs for term in single)
    assert sum(term.bits for term in planes) == 2 * 5 * parameters
    assert {block.bits for block in blocks_of(two.graph)} == {10} and {b.bits for b in blocks_of(one.graph)} == {8}
    assert len({f"{term.name}" for term in planes}) == len(planes) == 2 * len(single)
    for mine, other in zip(measured_inputs(two, {}, [4]), measured_inputs(one, {}, [4]), strict=True):
        assert (mine.macs, mine.weight_bits * 8) == (2 * other.macs, other.weight_bits * 10)
        assert replace(mine, macs=0, weight_bits=0) == replace(other, macs=0, weight_bits=0)
    mine, other = size_of(two), size_of(one)
    assert mine.float_megabytes == other.float_megabytes and mine.vectors == other.vectors
    assert [bits for _, bits in mine.matrices] == [10] * len(other.matrices)
    assert workload_of(two).operations - workload_of(one).operations == sum(term.macs for term in single)
    assert shared_directions(two.graph) == shared_directions(one.graph)


def test_bounds_are_of_every_plane_and_of_their_sum(both):
    one, two = both
    for node in two.graph.programs:
        layer, before = node.layer, one.graph.node(node.name).layer
        for op, old in zip(layer.program.affines, before.program.affines):
            constant = layer.constants[op.out[0]]
            wanted = np.abs(constant.bias).astype(object)
            for span, term, p in zip(op.spans(layer.program.sizes), op.terms, constant.products):
                code = layer.formats[term.code]
                wanted[span] += np.abs(p.weight).astype(object).sum(1) * max(-code.lo, code.hi) * p.multiplier
            found = bounds.affine(op, constant, layer.formats, layer.program.sizes)
            assert found.tolist() == wanted.tolist()
            whole = bounds.affine(old, before.constants[op.out[0]], layer.formats, layer.program.sizes)
            assert (found >= whole).all()  # |16a| + |b| >= |16a + b|
    needs = hardware(two).products
    assert [one.name for one in needs] == [term.name for term in terms_of(two.graph)]
    for need, term in zip(needs, terms_of(two.graph)):
        assert need.reach == bounds.accumulators(term.product.weight, term.code_format).max()


def test_what_schemes_and_searches_see_does_not_change(captured):
    graph, planes = captured
    assert keys_of(planes) == keys_of(graph)
    for node in planes.programs:
        program = graph.node(node.name).layer.program
        assert node.layer.program.parameters() == program.parameters()
        assert node.layer.program.code_names() == program.code_names()
    rules = resolve("w4a8", None, keys_of(graph))
    assert weight_bytes(planes, rules) == weight_bytes(graph, rules)
    assert size_by_rules(planes, rules) == size_by_rules(graph, rules)
    densities = {(b.node.name, b.source): 0.25 for b in blocks_of(graph)}
    densities |= {key: 0.75 for key in list(densities)[::2]}
    assert executed_by_rules(planes, rules, densities) == executed_by_rules(graph, rules, densities)
    assert presets.rules("rezk-m8", planes) == presets.rules("rezk-m8", graph)
    for by in ("layer", "cell"):
        assert paths_of(planes, rules, by) == paths_of(graph, rules, by)


def test_in_float_a_block_is_multiplied_once_and_is_the_sum_of_its_planes(both):
    one, two = both
    for node in two.graph.programs:
        mine, other = dequantized(node.layer), dequantized(one.graph.node(node.name).layer)
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            np.testing.assert_array_equal(value, other[name])
        blocks = {name: torch.from_numpy(np.asarray(value)) for name, value in mine.items()}
        programs = [graph.node(node.name).layer.program for graph in (one.graph, two.graph)]
        (x,) = programs[0].inputs
        frames = [(torch.ones(2, programs[0].sizes[x], dtype=torch.float64),)] * 3
        results = []
        for program in programs:
            numerics = Real(FloatLayer(program, blocks))
            results.append(torch.stack(run_layer(program, numerics, frames, *numerics.initial(2))[0]))
        torch.testing.assert_close(*results, rtol=0, atol=0)


def test_what_knows_one_plane_alone_refuses_several_by_name(both, tmp_path):
    _, two = both
    node = two.graph.recurrent[0]
    key = next(term.key for term in node.layer.program.terms if term.plane)
    first = rf"{two.graph.programs[0].name}/weight\..*\[1\] is one of several planes, which a file cannot hold; give .* one plane"
    for make in (dumps, lambda artifact: to_c(artifact, tmp_path / "c", "net")):  # the C carries the file's id
        with pytest.raises(RindleError, match=first):
            make(two)
    plan = type("Plan", (), {"program": node.layer.program, "formats": node.layer.formats, "weights": {key: None}})
    with pytest.raises(RindleError, match=r"\[1\] is one of several planes, which training does not know"):
        FakeQuantized(FloatLayer(node.layer.program, {}), plan)


def test_a_second_term_of_a_block_is_its_second_plane():
    """As a file may have it: two matrices on one code. Other gates, or another source, are other blocks."""
    terms = (Term("a", "x", ("i", "f")), Term("a", "x", ("f",)), Term("b", "h", ("f",)), Term("a", "x", ("i", "f")))
    assert [term.plane for term in with_planes(terms)] == [0, 1, 0, 2]


def test_two_planes_differ_from_one_by_name(both):
    one, two = both
    assert any("[1]" in str(difference) for difference in compare(one, two))
    assert not compare(two, two)
