"""Models of several kinds of nodes through the public face: both directions, joined values, ids."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from support import FEATURES, GRAPHS, VOCABULARY, BothDirections, MixedCells, Words, quantized_graph, sequences, words
from torch import nn

import rindle
from rindle import RindleError
from rindle.measure.cost import sizes
from rindle.nn.calibrate.origins import tied
from rindle.numbers.formats import fixed

# Largest difference from float, over outputs of about 1: 2026-11-22, three times what was seen.
BUDGET = {"int8": 0.1, "fixed16": 0.01}


@pytest.mark.fast(4)
@pytest.mark.parametrize("scheme", BUDGET)
@pytest.mark.parametrize("kind", GRAPHS)
def test_the_integers_are_close_to_the_float_model(kind, scheme):
    model = quantized_graph(kind, scheme)
    torch.manual_seed(0)
    make, data = GRAPHS[kind]
    exact, x = make().eval(), data()
    with torch.no_grad():
        wanted = exact(torch.from_numpy(x)).numpy()
    found = model.run(x)
    assert found.shape == wanted.shape and np.abs(wanted).max() > 0.15
    np.testing.assert_allclose(found, wanted, atol=BUDGET[scheme])


# ------------------------------------------------------------------------------------------------------ directions


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_row_of_unequal_length_is_what_torch_computes_of_a_packed_sequence(name):
    torch.manual_seed(0)
    exact, x, lengths = BothDirections(name).eval(), sequences(), [20, 3, 1, 11, 20, 2, 7, 5]
    found = rindle.quantize(exact, "fixed16", x).run(x, lengths)
    packed = nn.utils.rnn.pack_padded_sequence(torch.from_numpy(x), lengths, batch_first=True, enforce_sorted=False)
    with torch.no_grad():
        y, h = exact.rnn(packed)
        h = h[0] if isinstance(h, tuple) else h
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
        wanted = exact.last(torch.cat([h[-2], h[-1], y[:, 0]], 1)).numpy()
    np.testing.assert_allclose(found, wanted, atol=BUDGET["fixed16"])


@pytest.mark.parametrize(
    ("kind", "node", "why"),
    [
        ("bidirectional lstm", "rnn.l0_reverse", "reads the sequence from its end"),
        ("mixed", "lstm.l0_reverse", "reads the sequence from its end"),
        ("words, mean", "rnn.l0.mean", "averages over the whole sequence"),
    ],
)
def test_what_needs_the_whole_sequence_has_no_stream(kind, node, why):
    model = quantized_graph(kind, "int8")
    with pytest.raises(RindleError, match=f"the node '{re.escape(node)}' needs the whole sequence: it {why}"):
        model.stream()
    with pytest.raises(RuntimeError, match=f'node "{re.escape(node)}" {why}'):
        model._core.check_stream()


def test_the_first_frame_has_no_stream():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(FEATURES, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0][:, 0]

    model = rindle.quantize(First().eval(), "int8", sequences())
    np.testing.assert_array_equal(model.run(sequences()), model.run(sequences()[:, :1]))
    with pytest.raises(RindleError, match=r"'rnn\.l0\.first' needs the whole sequence: it keeps the first frame"):
        model.stream()


def test_a_threshold_is_of_one_direction_and_input():
    model, x = quantized_graph("bidirectional gru", "int8"), sequences(seed=3)
    assert {"rnn.l0/x", "rnn.l0/h", "rnn.l0_reverse/x", "rnn.l0_reverse/h"} <= set(model.thresholds)
    held = model.with_thresholds({"rnn.l0_reverse/h": 9, "rnn.l1/x": 4})
    seen = {one.name: one for one in held.measure(x).inputs}
    assert {name for name, one in seen.items() if one.density < 1} == {"rnn.l0_reverse/h", "rnn.l1/x"}
    assert seen["rnn.l0_reverse/h"].hidden and not seen["rnn.l1/x"].hidden
    assert all(one.frames == x.shape[0] * x.shape[1] for one in seen.values())


# ----------------------------------------------------------------------------------------------------- joined values


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.GRU(FEATURES, 4, batch_first=True), nn.Linear(FEATURES, 3)
        self.c = nn.LSTM(7, 5, batch_first=True)
        nn.init.normal_(self.b.weight, std=20)

    def forward(self, x):
        return self.c(torch.cat([self.a(x)[0], self.b(x)], -1))[0]


def test_what_is_joined_has_the_coarsest_format_that_one_part_needs():
    torch.manual_seed(0)
    artifact = rindle.quantize(Joined().eval(), "int8", sequences()).artifact
    assert tied(artifact.graph) == {"forward.concat": [("a.l0", "h"), ("b", "y")]}
    assert artifact.format_of("a.l0") == artifact.format_of("b") == artifact.format_of("forward.concat")
    alone = rindle.quantize(nn.Sequential(Joined().b), "int8", sequences()).artifact
    assert artifact.format_of("b").frac < alone.format_of("0").frac + 8
    assert artifact.format_of("b").frac < 14  # h alone would have 15 or so


def test_a_given_format_holds_for_all_that_is_joined():
    torch.manual_seed(0)
    artifact = rindle.quantize(Joined().eval(), "int8", sequences(), {"a.l0/h": "fixed(16,5)"}).artifact
    assert artifact.format_of("b") == artifact.format_of("a.l0") == fixed(16, 5)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"a.l0/h": "fixed(16,5)", "b/y": "fixed(16,6)"}, r"forward\.concat joins values of different formats: a\.l0/h is fixed\(16,5\), b/y is fixed\(16,6\); give them one format by an override"),
        ({"b/y": "fixed12 max"}, r"forward\.concat joins values of different widths: a\.l0/h has 16 bits, b/y has 12 bits; give them one format"),
    ],
)  # fmt: skip
def test_given_formats_that_contradict_each_other_are_named(overrides, words):
    with pytest.raises(RindleError, match=words):
        rindle.quantize(Joined().eval(), "int8", sequences(), overrides)


def test_a_joined_input_of_the_model_is_wide_and_shares_the_format():
    artifact = quantized_graph("mixed", "int8").artifact
    assert artifact.input_format.bits == 16 and artifact.input_format.is_fixed
    assert artifact.format_of("forward.concat") == artifact.input_format == artifact.format_of("lstm.l0_reverse")


def test_schemes_mix_over_the_layers_of_one_model():
    torch.manual_seed(0)
    overrides = {
        "gru.l0/weight.*": "int4 mmse",
        "lstm.l0_reverse/weight.*.h": "int2 mmse",
        "sru.l0/code.*.x": "fixed16 max",
    }
    graph = rindle.quantize(MixedCells().eval(), "int8", sequences(), overrides).artifact.graph
    bits = {}
    for node in graph.programs:
        for op in node.layer.program.affines:
            for term, product in zip(op.terms, node.layer.constants[op.out[0]].products):
                code = node.layer.formats[term.code]
                bits.setdefault(node.name, set()).add((term.source, product.format.bits, code.bits))
    assert bits == {
        "gru.l0": {("x", 4, 8), ("h", 4, 8)},
        "lstm.l0": {("x", 8, 8), ("h", 8, 8)},
        "lstm.l0_reverse": {("x", 8, 8), ("h", 2, 8)},
        "sru.l0": {("x", 8, 16)},
        "last": {("x", 8, 8)},
    }


# -------------------------------------------------------------------------------------------------------------- ids


def test_an_embedding_has_the_format_of_the_only_products_that_read_it():
    artifact = quantized_graph("words", "int8").artifact
    layer = artifact.graph.node("rnn.l0").layer
    assert artifact.format_of("embedding") == layer.formats["x"] == layer.formats["x.code"]
    assert artifact.format_of("embedding").bits == 8
    assert layer.constants["x.code"].multiplier == 1 and layer.constants["x.code"].shift == 0
    assert artifact.input_format is None and artifact.graph.vocabulary == VOCABULARY


@pytest.mark.parametrize(
    ("overrides", "bits"),
    [({"rnn.l0/code.*.x": "int4 max"}, 4), ({"rnn.l0/code.i.x": "int4 max"}, 16), ({"rnn.l0/code.*.x": "fixed16"}, 16)],
)
def test_else_an_embedding_is_wide(overrides, bits):
    torch.manual_seed(0)
    model = rindle.quantize(Words().eval(), "int8", words(), overrides)
    fmt = model.artifact.format_of("embedding")
    assert fmt.bits == bits
    rows = model.artifact.graph.node("embedding").rows
    exact = Words().embedding.weight
    assert rows.shape == exact.shape and np.abs(rows).max() <= fmt.hi
    assert sizes(model.artifact)["embeddings"] == VOCABULARY * -(-10 * bits // 8)
    assert sum(sizes(model.artifact).values()) == len(model.data)


def test_a_wide_embedding_saturates_no_row_even_of_words_that_calibration_lacks():
    torch.manual_seed(0)
    exact = Words("mean").eval()
    with torch.no_grad():
        exact.embedding.weight[7] *= 100
    ids = words()
    ids[ids == 7] = 8
    model = rindle.quantize(exact, "fixed16", ids, {"rnn.l0/code.i.x": "fixed12 max"})
    embedding = model.artifact.graph.node("embedding")
    found = embedding.rows[7] * embedding.format.scale
    np.testing.assert_allclose(found, exact.embedding.weight[7].detach(), atol=embedding.format.scale)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("engine", ["runtime", "reference"])
def test_ids_of_both_widths_run_with_and_without_a_batch(dtype, engine):
    model, ids = quantized_graph("words, last", "int8"), words(3, 9).astype(dtype)
    wanted = model.run(ids)
    np.testing.assert_array_equal(model.run(ids[1], engine=engine), wanted[1])
    shorter = ids.copy()
    shorter[1, 4:] = -5  # is not read
    found = model.run(shorter, [9, 4, 9], engine=engine)
    np.testing.assert_array_equal(found[1], model.run(ids[1, :4], engine=engine))
    assert model.run_codes(ids, engine=engine).dtype == np.int16
    assert model.measure(ids).output.tolist() == wanted.tolist()


@pytest.mark.parametrize("engine", ["runtime", "reference"])
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            np.zeros((2, 3), np.float32),
            r"x is float32 \[2, 3\]; it must be int32 or int64 \[T\] or \[B, T\]: x\.astype\(np\.int32\)",
        ),
        (np.zeros((2, 3), np.int16), "x is int16"),
        (np.zeros((2, 3), bool), "x is bool"),
        (np.zeros((2, 3, 1), np.int32), r"int32 \[2, 3, 1\]; it must be int32 or int64 \[T\] or \[B, T\]$"),
        (np.zeros((2, 0), np.int32), "at least one frame"),
        ([[0, 1]], "list"),
        (np.array([[0, 13]], np.int32), r"^input row 0, frame 1, is the id 13, must be 0\.\.12$"),
        (np.array([[0, 13]]), r"^input row 0, frame 1, is the id 13, must be 0\.\.12$"),
        (np.array([[0, -1]], np.int32), r"^input row 0, frame 1, is the id -1, must be 0\.\.12$"),
        (np.array([[0, 2**40]]), r"^input row 0, frame 1, is the id 1099511627776, must be 0\.\.12$"),
    ],
)
def test_ids_that_cannot_be_are_refused(ids, message, engine):
    with pytest.raises(RindleError, match=message):
        quantized_graph("words", "int8").run(ids, engine=engine)


def test_a_model_of_features_refuses_ids_by_their_type():
    with pytest.raises(RindleError, match=r"x is int32 \[2, 3\]; it must be float32"):
        quantized_graph("mixed", "int8").run(np.zeros((2, 3), np.int32))


def test_ids_stream():
    model, ids = quantized_graph("words", "int8"), words(1, 9)[0]
    stream, wanted = model.stream(), model.run(ids)
    kinds = (int, np.int32, np.int64, np.uint8, np.array)
    for t, number in enumerate(ids):
        np.testing.assert_array_equal(stream.step(kinds[t % 5](number)), wanted[t])
    state = stream.save()
    np.testing.assert_array_equal(stream.step_codes(3), model.run_codes(np.append(ids, 3))[-1])
    after = stream.save()
    for wrong, message in (
        (13, r"x is the id 13; this model knows 0\.\.12"),
        (-1, "-1"),
        (2**40, str(2**40)),
        (np.int64(2**40), str(2**40)),
        (1.0, "x is float; this model reads one id per frame"),
        (np.float32(1), "float32"),
        (True, "bool"),
        (np.zeros(2, np.int32), r"int32 \[2\]"),
        ("3", "str"),
    ):
        with pytest.raises(RindleError, match=message):
            stream.step(wrong)
    with pytest.raises(RindleError, match="out is"):
        stream.step(1, np.zeros(3, np.float32))
    assert stream.save() == after
    stream.restore(state)
    stream.step(3)
    assert stream.save() == after


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.array([[0, 13]]), r"calibration batch 0 holds the id 13; the model knows 0\.\.12"),
        (np.array([[0, -1]]), "the id -1"),
        ([np.array([[0, 1]]), np.zeros((1, 2, 5), np.float32)], r"batch 1 holds sequences of features.*takes ids"),
        (np.zeros((2, 3), np.float32), r"shape \(2, 3\); give three dimensions"),
    ],
)
def test_calibration_ids_that_cannot_be_are_refused(data, message):
    class Safe(Words):  # the float model would refuse first, in its own words
        def forward(self, ids):
            return super().forward(ids)

    with pytest.raises((RindleError, IndexError), match=message):
        rindle.quantize(Safe().eval(), "int8", data)


def test_features_for_ids_and_ids_for_features_are_refused():
    with pytest.raises(RindleError, match=r"has 2 dimensions|torch.export cannot capture"):
        rindle.quantize(MixedCells().eval(), "int8", words())
    with pytest.raises(RindleError, match=r"torch.export cannot capture|only ids"):
        rindle.quantize(Words().eval(), "int8", sequences())


# ------------------------------------------------------------------------------------------------------ command line


def rindle_command(*arguments):
    command = [sys.executable, "-m", "rindle.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})


@pytest.mark.fast(0)
@pytest.mark.parametrize("kind", ["words", "bidirectional lstm"])
def test_the_verbs_know_these_graphs(kind, tmp_path):
    model, data = quantized_graph(kind, "int8"), GRAPHS[kind][1]()
    rindle.save(model, tmp_path / "m.rindle")
    verified = rindle_command("verify", tmp_path / "m.rindle")
    assert verified.returncode == 0 and verified.stdout.count("equal") == (4 if kind == "words" else 3)
    shown = rindle_command("inspect", tmp_path / "m.rindle").stdout
    assert ("embedding" in shown and "ids 0..12" in shown) if kind == "words" else "rnn.l0_reverse" in shown
    np.save(tmp_path / "x.npy", data)
    ran = rindle_command("run", tmp_path / "m.rindle", "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.run(data))
