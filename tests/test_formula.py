"""Bytes of weights before they are written, and size and operations as Rezk et al. 2022 count them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from shapes import chain, resolved
from support import FEATURES, HIDDEN, Only, TorchModel, quantized, recurrent, sequences

import rindle
from rindle.engines.measurement import Measurement
from rindle.measure.cost import sizes, weight_bytes
from rindle.measure.rezk import (
    Part,
    Size,
    executed,
    executed_by_rules,
    executed_of,
    shared_directions,
    size_by_rules,
    size_of,
)
from rindle.nn.capture.source import source_of
from rindle.program.products import terms_of
from rindle.scheme.paths import keys_of
from rindle.scheme.rules import resolve

# ------------------------------------------------------------------------------------------------ bytes of weights


@pytest.mark.fast(4)
def test_the_bytes_of_weights_are_those_that_are_written(cell):
    """Any bits on any block: rows end in the middle of bytes, and products are split."""
    torch.manual_seed(0)
    net = TorchModel(cell).eval()
    graph, _ = source_of(net).capture(sequences())
    keys, rng = keys_of(graph), np.random.default_rng(len(cell))
    blocks = [f"{layer}/{path}" for layer, paths in keys.items() for path in paths if path.startswith("weight.")]
    overrides = {block: f"int{rng.integers(2, 12)} max" for block in blocks}
    expected = weight_bytes(graph, resolve("int8", overrides, keys))
    assert expected == sizes(rindle.quantize(net, "int8", sequences(), overrides).artifact)["weights"]


@pytest.mark.filterwarnings("ignore:.*its steps grow:rindle.errors.RindleWarning")  # of the skipped path
def test_the_bytes_of_a_scheme_that_skips_paths():
    """Products that were split into several matrices take as much as one."""
    torch.manual_seed(0)
    net = TorchModel("lstm").eval()
    for scheme in ("rezk-m1 skip=all", "rezk-m8 skip=first", "int8"):
        rules = rindle.scheme_rules(net, scheme, sequences())
        graph, _ = source_of(net).capture(sequences())
        expected = weight_bytes(graph, resolve(rules, None, keys_of(graph)))
        assert expected == sizes(rindle.quantize(net, scheme, sequences()).artifact)["weights"]


# ------------------------------------------------------------------------------------------------- published sizes

MODELS = {  # graph, and how many numbers of batch norms, biases and vectors the paper's formula counts
    "LSTM": (chain("lstm", 4), 4_400),
    "GRU": (chain("gru_reset_before", 5), 5_500),
    "LiGRU": (chain("ligru", 5), 5_500),
    "SRU": (chain(["sru"] + ["sru_projection"] * 5, 6, (23, 1100, 1100, 256), 1904), 8_800),
}
# MB and compression in per cent for skip = none, all, first; the LiGRU's skipped half counted as a half
SIZES = {
    "rezk-uniform8": {
        "LSTM": (13.63, 75.0, 14.78, 72.9, 14.20, 73.9),
        "GRU": (13.33, 75.0, 14.77, 72.3, 14.19, 73.4),
        "LiGRU": (9.57, 75.0, 11.01, 71.2, 10.43, 72.7),
        "SRU": (7.46, 75.0),
    },
    "rezk-uniform4": {
        "LSTM": (6.82, 87.5, 8.55, 84.3, 7.68, 85.9),
        "GRU": (6.67, 87.5, 8.83, 83.4, 7.97, 85.0),
        "LiGRU": (4.79, 87.5, 6.95, 81.8, 6.09, 84.1),
        "SRU": (3.74, 87.5),
    },
    "rezk-8-4": {
        "LSTM": (6.84, 87.4, 8.57, 84.3, 7.71, 85.9),
        "GRU": (6.69, 87.4, 8.85, 83.4, 7.99, 85.0),
        "LiGRU": (4.80, 87.4, 6.96, 81.8, 6.10, 84.0),
        "SRU": (3.77, 87.3),
    },
    "rezk-m1": {
        "LSTM": (4.97, 90.9, 6.99, 87.2, 5.98, 89.0),
        "GRU": (4.89, 90.8, 7.41, 86.1, 6.40, 88.0),
        "LiGRU": (3.94, 89.7, 6.46, 83.1, 5.46, 85.7),
        "SRU": (3.43, 88.5),
    },
    "rezk-m2": {
        "LSTM": (3.96, 92.7, 5.98, 89.0, 4.97, 90.9),
        "GRU": (3.87, 92.7, 6.40, 88.0, 5.39, 89.9),
        "LiGRU": (2.93, 92.3, 5.45, 85.7, 4.44, 88.4),
        "SRU": (2.43, 91.8),
    },
    "rezk-m3": {
        "LSTM": (3.45, 93.7, 5.47, 90.0, 4.46, 91.8),
        "GRU": (3.37, 93.7, 5.89, 88.9, 4.88, 90.8),
        "LiGRU": (2.42, 93.7, 4.94, 87.1, 3.93, 89.7),
        "SRU": (1.93, 93.5),
    },
    "rezk-m4": {
        "LSTM": (3.41, 93.7, 5.43, 90.0, 4.42, 91.9),
        "GRU": (3.34, 93.7, 5.86, 89.0, 4.85, 90.9),
        "LiGRU": (2.40, 93.7, 4.92, 87.1, 3.91, 89.8),
        "SRU": (1.88, 93.7),
    },
    "rezk-m8": {
        "LSTM": (3.71, 93.2, 5.66, 89.6, 4.65, 91.5),
        "GRU": (3.57, 93.3, 6.02, 88.7, 5.01, 90.6),
        "LiGRU": (2.55, 93.3, 5.00, 86.9, 3.99, 89.6),
        "SRU": (1.90, 93.6),
    },
}
CASES = [
    (row, model, mode, table[2 * k : 2 * k + 2])
    for row, models in SIZES.items()
    for model, table in models.items()
    for k, mode in enumerate(("none", "all", "first")[: len(table) // 2])
]


@pytest.mark.parametrize("row, model, mode, wanted", CASES)
def test_the_published_sizes(row, model, mode, wanted):
    graph, vectors = MODELS[model]
    size = size_by_rules(graph, resolved(f"{row} skip={mode}", graph), vectors)
    assert size.megabytes == pytest.approx(wanted[0], abs=0.0051)
    assert 100 * size.compression == pytest.approx(wanted[1], abs=0.051)


@pytest.mark.parametrize(
    "row, model", [("rezk-m6", "rezk-m2"), ("rezk-m7", "rezk-m3")]
)  # sizes do not depend on the bits of activations
def test_rows_that_differ_in_activations_alone_have_one_size(row, model):
    for graph, vectors in MODELS.values():
        one, other = (size_by_rules(graph, resolved(name, graph), vectors) for name in (row, model))
        assert one.megabytes == other.megabytes


@pytest.mark.parametrize(
    "model, matrices, megabytes",
    [("LSTM", 14_280_200, 54.48), ("GRU", 13_965_050, 53.28), ("LiGRU", 10_019_900, 38.23), ("SRU", 7_802_300, 29.78)],
)
def test_the_published_float_sizes(model, matrices, megabytes):
    graph, vectors = MODELS[model]
    size = size_by_rules(graph, resolved("fixed16", graph), vectors)
    assert sum(count for count, _ in size.matrices) == matrices
    assert size.float_megabytes == pytest.approx(megabytes, abs=0.0051)


def test_the_size_of_a_model_is_that_of_its_rules():
    torch.manual_seed(0)
    net = TorchModel("lstm_peephole").eval()
    graph, _ = source_of(net).capture(sequences())
    rules = resolve(rindle.scheme_rules(net, "rezk-m1 skip=all", sequences()), None, keys_of(graph))
    made, planned = size_of(rindle.quantize(net, "rezk-m1 skip=all", sequences()).artifact), size_by_rules(graph, rules)
    assert made.megabytes == planned.megabytes and made.vectors == planned.vectors
    assert made.float_megabytes == planned.float_megabytes
    assert made.vectors == HIDDEN + 2 * (4 + 3) * HIDDEN + 3


def test_embeddings_count():
    from support import quantized_graph

    artifact = quantized_graph("words", "int8").artifact
    size = size_of(artifact)
    assert size.matrices[0] == (13 * 10, artifact.graph.node("embedding").format.bits)


# ------------------------------------------------------------------------------------------ eliminated operations

W0, W, U, FC = (
    {  # weights by cell: of the first layer, of the others, recurrent (counted once), behind them
        "lstm": (50_600, 2_420_000, 1_210_000, 2_129_600),
        "gru": (37_950, 1_815_000, 907_500, 2_129_600),
        "ligru": (25_300, 1_210_000, 605_000, 2_129_600),
    },
    1,
    2,
    3,
)


def parts(cell, x, h, fc, skipped=0.0, layers=0):
    """Densities in per cent. skipped: share of U at 16 bits in the first ``layers``."""
    first, later, recurrent_, behind = W0[cell]
    found = [Part(later if k else first, d / 100) for k, d in enumerate(x)]
    found += [Part(2 * recurrent_, d / 100, skipped if k < layers else 0.0) for k, d in enumerate(h)]
    rest = Part(0.0002 * sum(part.macs for part in found), 0.0, 1.0)  # element-wise operations: their published share
    return [*found, Part(behind, fc / 100), rest]


def test_the_published_operations_of_an_lstm():
    densities = [94.2, 81.7, 78.9, 75.7], [84.5, 87.6, 66.8, 76.2], 67.7
    assert 100 * executed(parts("lstm", *densities)) == pytest.approx(77.6, abs=0.051)


@pytest.mark.parametrize("layers, wanted", [(0, 8.2), (5, 29.3), (3, 20.7)])
def test_the_published_operations_of_a_ligru(layers, wanted):
    """No skip, skip in all layers, and in the first three."""
    densities = [19.9, 10.3, 10.0, 10.3, 8.4], [8.1, 6.1, 6.1, 4.8, 2.8], 11.6
    assert 100 * executed(parts("ligru", *densities, 0.5, layers)) == pytest.approx(wanted, abs=0.051)


@pytest.mark.parametrize(
    "x, h, eliminated",
    [([56, 51, 50, 50], [43, 45, 47, 28], 42.3), ([92, 90, 88, 90], [84, 83, 88, 59], 12.7)],
)
def test_the_published_operations_of_a_gru_without_thresholds(x, h, eliminated):
    """4 and 8 bits; layer 0 in 16 bits, 97 % dense, a dense FC. The densities are published in whole per cent, so that the
    sum is known to a quarter of a point.
    """
    found = executed(parts("gru", [97, *x], [97, *h], 100))
    assert 100 * (1 - found) == pytest.approx(eliminated, abs=0.25)


def held(model):
    return model.with_thresholds(dict.fromkeys(model.artifact.held_codes(), 0))


def test_an_all_dense_model_executes_everything_and_a_still_one_nothing():
    model = held(quantized("gru_reset_before", "int8"))
    seen = model.measure(sequences())
    for density in (0.0, 1.0, 0.25):
        inputs, others = (tuple(replace(one, density=density) for one in part) for part in (seen.inputs, seen.others))
        assert executed_of(model.artifact, Measurement(seen.output, inputs, {}, others)) == pytest.approx(density)


def test_operations_are_the_inputs_densities_weighed_by_macs():
    """No skip, no shared weights: the sum over all layers, the Linear ones included."""
    model = held(quantized("lstm", "int8"))
    seen = model.measure(sequences())
    every = (*seen.inputs, *seen.others)
    assert {one.name for one in every} == {"first/x", "rnn.l0/x", "rnn.l0/h", "rnn.l1/x", "rnn.l1/h", "last/x"}
    macs = np.array([one.macs for one in every])
    assert macs.sum() == 5 * 17 + 4 * 4 * 17 * 17 + 17 * 3
    wanted = macs @ [one.density for one in every] / macs.sum()
    assert 0.1 < wanted < 0.99
    assert executed_of(model.artifact, seen) == pytest.approx(wanted)


def test_a_skipped_path_counts_as_97_per_cent_dense():
    torch.manual_seed(0)
    model = held(rindle.quantize(TorchModel("ligru").eval(), "int8 skip=all", sequences()))
    seen = model.measure(sequences())
    every = {one.name: one for one in (*seen.inputs, *seen.others)}
    assert {name for name in every if "h.code" in name} == {f"rnn.l{k}/h.code.{g}" for k in (0, 1) for g in "za"}
    total = sum(one.macs for one in every.values())
    wanted = sum(one.macs * (0.97 if name.endswith("h.code.a") else one.density) for name, one in every.items())
    assert executed_of(model.artifact, seen) == pytest.approx(wanted / total)


def test_directions_that_share_their_weights_count_them_once():
    torch.manual_seed(0)
    shared = recurrent("ligru", FEATURES, HIDDEN, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, value in shared.named_parameters():
            if name.endswith("_reverse"):
                value.copy_(dict(shared.named_parameters())[name.removesuffix("_reverse")])
    apart = recurrent("ligru", FEATURES, HIDDEN, batch_first=True, bidirectional=True)
    models = [held(rindle.quantize(Only(one), "int8", sequences())) for one in (shared, apart)]
    assert [shared_directions(m.artifact.graph) for m in models] == [{"rnn.l0_reverse": "rnn.l0"}, {}]
    once, twice = (size_of(m.artifact) for m in models)
    assert sum(c for c, _ in once.matrices) * 2 == sum(c for c, _ in twice.matrices) == 4 * HIDDEN * (FEATURES + HIDDEN)
    assert once.vectors * 2 == twice.vectors
    for model, times in zip(models, (0.5, 1.0)):
        seen = model.measure(sequences())
        weights = [one.macs * (1.0 if one.hidden else times) for one in seen.inputs]
        wanted = np.dot(weights, [one.density for one in seen.inputs]) / sum(weights)
        assert executed_of(model.artifact, seen) == pytest.approx(wanted)


@pytest.mark.fast(2)
@pytest.mark.filterwarnings("ignore:.*its steps grow:rindle.errors.RindleWarning")  # of the skipped path
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before", "ligru"])
@pytest.mark.parametrize(
    "scheme, shared", [("rezk-uniform8", False), ("rezk-uniform8", True), ("rezk-m8 skip=all", False)]
)
def test_before_and_after_conversion_size_and_operations_are_the_same(cell, shared, scheme):
    torch.manual_seed(1)
    net = Only(rindle.Recurrent(rindle.CELLS[cell], FEATURES, HIDDEN, 2, bidirectional=True, shared=shared)).eval()
    rows = sequences().swapaxes(0, 1)
    graph, _ = source_of(net).capture(rows)
    rules = resolve(rindle.scheme_rules(net, scheme, rows), None, keys_of(graph))
    model = held(rindle.quantize(net, scheme, rows))
    assert shared_directions(graph) == shared_directions(model.artifact.graph)
    assert len(shared_directions(graph)) == 2 * shared
    made, planned = size_of(model.artifact), size_by_rules(graph, rules)
    assert (made.megabytes, made.float_megabytes) == (planned.megabytes, planned.float_megabytes)
    seen = model.measure(sequences())
    densities = {}
    for one in seen.inputs:
        node, code = model.artifact.held_codes()[one.name]
        terms = [t for op in model.artifact.graph.node(node).layer.program.affines for t in op.terms if t.code == code]
        if model.artifact.graph.node(node).layer.formats[code].bits < 16:
            densities[node, terms[0].source] = one.density
    for elementwise in (False, True):
        found = executed_of(model.artifact, seen, elementwise)
        assert found == pytest.approx(executed_by_rules(graph, rules, densities, elementwise), rel=1e-12)
    still = dict.fromkeys(densities, 0.0)
    wide = executed_by_rules(graph, rules, still)
    assert (wide == 0) == ("skip" not in scheme)
    assert executed_by_rules(graph, rules, still, elementwise=True) > wide


def test_before_conversion_a_convolution_counts_at_every_pixel():
    """A layer of 5 pixels before one of 1: the share that ran depends on how often each multiplies."""
    torch.manual_seed(1)
    cell, image = rindle.CELLS["convlstm"], (1, FEATURES)
    layer = rindle.Recurrent(cell, FEATURES, 2 * FEATURES, batch_first=True, image=image, kernel=(1, 3))
    net = torch.nn.Sequential(Only(layer), torch.nn.Linear(2 * FEATURES, 4)).eval()
    graph, _ = source_of(net).capture(sequences())
    rules = resolve("int8", None, keys_of(graph))
    model = held(rindle.quantize(net, "int8", sequences()))
    seen = model.measure(sequences())
    every = (*seen.inputs, *seen.others)
    terms = {one.term.code: one.term for one in terms_of(model.artifact.graph)}
    codes = model.artifact.held_codes()
    densities = {(one.node, terms[codes[one.name][1]].source): one.density for one in every}
    assert len(set(densities.values())) == len(every) == 3
    assert executed_by_rules(graph, rules, densities) == pytest.approx(executed_of(model.artifact, seen), rel=1e-12)


def test_elementwise_operations_are_as_many_as_vectors_and_97_per_cent_dense():
    graph, _ = MODELS["LSTM"]
    rules = resolved("rezk-uniform8", graph)
    still = {(node.name, source): 0.0 for node in graph.programs for _, source in node.layer.program.blocks}
    macs, vectors = 14_280_200, 4 * 4 * 550 + 1936
    assert size_by_rules(graph, rules).vectors == vectors
    wanted = 0.97 * vectors / (macs + vectors)
    assert executed_by_rules(graph, rules, still, elementwise=True) == pytest.approx(wanted)


def test_a_size_is_its_bits():
    size = Size(((2**20, 2), (2**20, 16)), 2**19)
    assert (size.megabytes, size.float_megabytes) == (2 / 8 + 2 + 1, 2 * 4 + 1)
    assert size.compression == pytest.approx(1 - 3.25 / 9)


def test_the_reset_state_counts_as_hidden():
    """r ⊙ h is made of the state."""
    seen = quantized("gru_reset_before", "int8").measure(sequences())
    assert {one.name: one.hidden for one in seen.inputs} == {
        f"rnn.l{k}/{name}": hidden for k in (0, 1) for name, hidden in (("x", False), ("h", True), ("rh", True))
    }


# --------------------------------------------------------------------------------------------------------- verbs


def test_the_verbs_say_both_counts(tmp_path, capsys, monkeypatch):
    import json
    import sys

    from rindle import cli
    from rindle.file.dataset import dataset

    model = quantized("lstm", "int8", "last")
    held_ = held(model)
    rindle.save(model, tmp_path / "m.rindle")
    dataset(sequences(), None, model.run(sequences()).argmax(1)).save(tmp_path / "d.npz")

    def verb(*arguments):
        monkeypatch.setattr(sys, "argv", ["rindle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    file, data = tmp_path / "m.rindle", tmp_path / "d.npz"
    code, out, _ = verb("eval", file, "--data", data, "--formula", "rezk", "--json")
    found, size = json.loads(out)["files"][0]["rezk"], size_of(model.artifact)
    assert code == 0 and found["megabytes"] == size.megabytes and found["compression"] == size.compression
    assert found["executed"] == executed_of(held_.artifact, held_.measure(sequences())) < 1
    assert found["eliminated"] == 1 - found["executed"]
    code, out, _ = verb("inspect", file, "--formula", "rezk", "--json")
    assert json.loads(out)["rezk"]["megabytes"] == size.megabytes
    assert "rezk" in verb("eval", file, "--data", data, "--formula", "rezk")[1]
    assert f"compression {size.compression:.1%}" in verb("inspect", file, "--formula", "rezk")[1]
    for arguments, words in (
        (("eval", file, "--data", data, "--formula", "other"), "unknown formula 'other'; there are rezk"),
        (("inspect", file, "--formula", "other"), "unknown formula 'other'"),
        (("inspect", file, "--formula", "rezk", "--diff", file), "leave out --diff and --data"),
    ):
        code, _, err = verb(*arguments)
        assert code == 2 and words in err
