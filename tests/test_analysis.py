"""The noise analysis: its numbers are those of an independent computation, and saturations are exact."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support import FEATURES, TorchModel, quantized, sequences

import rindle
from rindle import RindleError
from rindle.engines import reference
from rindle.engines.golden import with_thresholds
from rindle.file.dataset import dataset
from rindle.file.diff import compare
from rindle.measure.analysis import _CountingCodes, _Doubles, analyse, decibel
from rindle.nn.capture.source import float_outputs, float_parameters, source_of
from rindle.numbers.formats import encode_input

GOLDEN = Path(__file__).parent / "golden"
LENGTHS = np.array([20, 3, 11, 1, 20, 7])


def data(lengths=LENGTHS, seed=7):
    return dataset(sequences(len(lengths), 20, seed), lengths)


def at(found, name):
    return next(path for path in found.paths if path.name == name)


@pytest.mark.fast(4)
def test_saturations_are_those_of_the_core_and_every_path_is_reported(artifact):
    loud = data()
    loud.x[:] *= 3  # so that something saturates
    found = analyse(artifact, loud)
    counted = rindle.Model(artifact).measure(loud.x, loud.lengths).saturations
    assert sum(counted.values()) > 0
    assert at(found, "input").saturated == counted["input", "input"]
    for node in artifact.graph.programs:
        for op in node.layer.program.ops:
            paths = [at(found, f"{node.name}/{path}") for path in op.out]
            if op.kind in ("clip", "table"):
                assert all(path.saturated is None for path in paths)
            else:
                assert sum(path.saturated for path in paths) == counted[node.name, op.out[0]]
    assert found.frames == LENGTHS.sum() and found.rows == len(LENGTHS)


def test_a_path_that_saturates_is_reported_exactly():
    """The first Linear's result, forced into a range that it leaves, against the same sums done here."""
    tight = rindle.quantize(TorchModel("gru").eval(), "int8", sequences(), {"first/y": "fixed(16,15)"}).artifact
    (first,) = (node for node in tight.graph.programs if node.name == "first")
    constant = first.layer.constants["y"]
    loud, saturated, largest = data(), 0, 0
    for x, length in zip(loud.x, loud.lengths):
        codes, _ = encode_input(x[:length], tight.input_format)
        rescale = first.layer.constants.get("x.code")
        codes = (codes * rescale.multiplier + (1 << rescale.shift >> 1)) >> rescale.shift
        codes = np.clip(codes, -127, 127)
        (product,) = constant.products
        sums = codes @ product.weight.T * product.multiplier + constant.bias
        y = (sums + (1 << constant.shift >> 1)) >> constant.shift
        saturated += int(((y < -32768) | (y > 32767)).sum())
        largest = max(largest, int(np.abs(np.clip(y, -32768, 32767)).max()))
    path = at(analyse(tight, loud), "first/y")
    assert saturated > 0 and path.saturated == saturated and path.largest == largest == 32768
    assert path.used == 1.0 and path.elements == LENGTHS.sum() * len(constant.bias)
    assert path.saturation_rate == saturated / path.elements


@pytest.mark.parametrize("name", ["gru", "lstm", "sru"])
def test_the_noise_of_the_output_is_that_of_two_independent_runs(name):
    """Integers by the reference; real values by torch with the original weights: no code of the analysis is used."""
    torch.manual_seed(0)
    model = TorchModel(name).eval()
    artifact, given = quantized(name, "int8").artifact, data()
    graph, _ = source_of(model).capture(given.x[:1])
    found = analyse(artifact, given, float_parameters(graph))
    assert found.weights == "original"
    codes = reference.run(artifact, given.x, given.lengths).codes * artifact.output_format.scale
    with torch.no_grad():
        wanted = [model.double()(torch.from_numpy(x[None, :n]).double())[0].numpy() for x, n in zip(given.x, LENGTHS)]
    signal = sum((w**2).sum() for w in wanted)
    noise = sum(((w - c[: len(w)]) ** 2).sum() for w, c in zip(wanted, codes))
    output = at(found, "last/y")
    assert output.sqnr == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
    assert output.largest == max(
        abs(np.rint(c[:n] / artifact.output_format.scale)).max() for c, n in zip(codes, LENGTHS)
    )
    for position, share in enumerate(found.positions):
        frames = np.round(share * (LENGTHS - 1)).astype(int)
        errors = np.array([w[t] - c[t] for w, c, t in zip(wanted, codes, frames)])
        signal = sum((w[t] ** 2).sum() for w, t in zip(wanted, frames))
        assert output.growth[position] == pytest.approx(10 * np.log10(signal / (errors**2).sum()), abs=1e-3)
        assert output.noise[position] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-4)


def test_float_outputs_are_those_of_the_model():
    torch.manual_seed(0)
    model, given = TorchModel("lstm", "mean").eval(), data()
    graph, _ = source_of(model).capture(given.x[:1])
    with torch.no_grad():
        wanted = np.stack([model(torch.from_numpy(x[None, :n]))[0].numpy() for x, n in zip(given.x, LENGTHS)])
    np.testing.assert_allclose(float_outputs(graph, given), wanted, atol=1e-5)


def test_a_finer_format_has_less_noise():
    given, model = data(), TorchModel("gru").eval()
    found = {
        bits: analyse(rindle.quantize(model, "int8", sequences(), {"code.*": f"int{bits} mmse"}).artifact, given)
        for bits in (4, 8, 12)
    }
    for name in ("input", "rnn.l0/h.code", "rnn.l1/h.next", "last/y"):
        noise = [at(found[bits], name).sqnr for bits in (4, 8, 12)]
        assert noise[0] + 6 < noise[1] < noise[2], name


def test_thresholds_add_noise_where_they_are():
    model, given = quantized("gru", "int8"), data()
    dense = analyse(model.artifact, given)
    zero, held = (analyse(model.with_thresholds({"rnn.l0/h": theta}).artifact, given) for theta in (0, 20))
    assert [path.sqnr for path in zero.paths] == [path.sqnr for path in dense.paths]
    assert at(held, "rnn.l0/h.code").sqnr < at(dense, "rnn.l0/h.code").sqnr
    assert at(held, "first/y").sqnr == at(dense, "first/y").sqnr


def test_of_a_held_code_the_value_that_products_read_is_reported():
    """With a θ above all its codes v̂ stays 0, whatever the code is."""
    model, given = quantized("gru", "int8"), data()
    quiet = replace(given, x=given.x * np.float32(0.01))
    name, limit = "rnn.l0/x.code", model.artifact.graph.node("rnn.l0").layer.formats["x.code"].hi - 1
    dense, held = (analyse(m.artifact, quiet) for m in (model, model.with_thresholds({"rnn.l0/x": limit})))
    assert at(dense, name).largest > 0 and at(dense, name).sqnr > 10
    assert at(held, name).largest == 0 and at(held, name).sqnr == 0.0


def test_the_ends_of_a_range_are_not_beyond_it():
    layer = quantized("gru", "int8").artifact.graph.node("first").layer
    (op,) = layer.program.affines
    codes, fmt = _CountingCodes(layer, _Doubles), layer.formats["y"]
    values = np.array([[fmt.lo - 1, fmt.lo, 0, fmt.hi, fmt.hi + 1]], float)
    assert codes.saturate(op, "y", values).tolist() == [[fmt.lo, fmt.lo, 0, fmt.hi, fmt.hi]]
    assert codes.clipped["y"] == codes.saturations["y"] == 2


def test_dequantized_weights_leave_out_what_quantizing_them_costs():
    torch.manual_seed(0)
    model, given = TorchModel("gru").eval(), data()
    artifact = rindle.quantize(model, "int8", sequences(), {"weight.*": "int3 mmse"}).artifact
    graph, _ = source_of(model).capture(given.x[:1])
    own, original = analyse(artifact, given), analyse(artifact, given, float_parameters(graph))
    assert own.weights == "dequantized" and at(own, "last/y").sqnr > at(original, "last/y").sqnr + 6
    assert at(own, "input").sqnr == at(original, "input").sqnr


def test_many_chunks_give_the_numbers_of_one(monkeypatch):
    model, given = quantized("lstm", "int8", "last"), data()
    whole, done = analyse(model.artifact, given), []
    monkeypatch.setattr("rindle.measure.analysis.CHUNK", 1)
    rowwise = analyse(model.artifact, given, seen=done.append)
    assert done == [1] * len(LENGTHS)
    for a, b in zip(whole.paths, rowwise.paths):
        assert (a.saturated, a.largest, a.elements) == (b.saturated, b.largest, b.elements)
        assert a.sqnr == pytest.approx(b.sqnr)
        assert (a.growth is None) == (b.growth is None)
    assert at(whole, "last/y").growth is None and at(whole, "rnn.l1/h.next").growth is not None


def test_padding_changes_nothing():
    model, given = quantized("gru", "int8"), data()
    before = analyse(model.artifact, given)
    for row, length in enumerate(LENGTHS):
        given.x[row, length:] = 1e30
    assert analyse(model.artifact, given) == before


def test_what_does_not_fit_is_refused():
    artifact = quantized("gru", "int8").artifact
    with pytest.raises(RindleError, match=rf"the model takes float32 \[N, T, {FEATURES}\]"):
        analyse(artifact, dataset(np.zeros((2, 3, FEATURES + 1), np.float32)))
    torch.manual_seed(0)
    graph, _ = source_of(TorchModel("gru", layers=1).eval()).capture(data().x[:1])
    with pytest.raises(RindleError, match=r"no layer 'rnn\.l1'"):
        analyse(artifact, data(), float_parameters(graph))
    graph, _ = source_of(TorchModel("lstm").eval()).capture(data().x[:1])
    with pytest.raises(RindleError, match="another model"):
        analyse(artifact, data(), float_parameters(graph))


def test_decibels():
    assert decibel(100.0, 1.0) == pytest.approx(20.0)
    assert decibel(1.0, 0.0) == decibel(0.0, 0.0) == float("inf") and decibel(0.0, 1.0) == float("-inf")


# ------------------------------------------------------------------------------------------------------ differences


def found_between(a, b):
    return {(one.where, one.what) for one in compare(a, b)}


@pytest.mark.fast(4)
def test_a_model_differs_in_nothing_from_itself(artifact):
    assert compare(artifact, artifact) == []


def test_every_kind_of_change_is_found():
    model = quantized("gru", "int8")
    artifact = model.artifact
    held = model.with_thresholds({"rnn.l0/h": 3}).artifact
    assert found_between(artifact, held) == {("rnn.l0/h.code", "θ")}
    assert found_between(held, with_thresholds(held, {"rnn.l0/h": 4})) == {("rnn.l0/h.code", "θ")}
    noted = replace(artifact, provenance={**artifact.provenance, "note": "x"})
    assert found_between(artifact, noted) == {("provenance", "note")}
    (weight, *_) = [
        p for node in artifact.graph.programs for c in node.layer.constants.values() for p in getattr(c, "products", ())
    ]
    other = quantized("gru", "int8", seed=1).artifact
    differences = compare(artifact, other)
    assert ("first/weight.y.x", "weights") in {(one.where, one.what) for one in differences}
    (line,) = [one for one in differences if (one.where, one.what) == ("first/weight.y.x", "weights")]
    mine, theirs = (
        next(n for n in a.graph.programs if n.name == "first").layer.constants["y"].products[0].weight
        for a in (artifact, other)
    )
    assert f"{np.count_nonzero(mine != theirs):,} differ" in line.b and f"{weight.weight.size:,}" == line.a


@pytest.mark.parametrize(
    "name, kind, change", [("v2-words", "embedding", "rows"), ("v3-every_kind", "window", "window")]
)
def test_what_a_node_without_a_program_has_is_compared(name, kind, change):
    artifact = rindle.load(GOLDEN / f"{name}.rindle").artifact
    node = next(node for node in artifact.graph.nodes if node.kind == kind)
    other = {
        "rows": lambda: replace(node, rows=node.rows + (np.arange(node.rows.size) == 3).reshape(node.rows.shape)),
        "window": lambda: replace(node, window=replace(node.window, after=1)),
    }[change]()
    nodes = tuple(other if one is node else one for one in artifact.graph.nodes)
    changed = replace(artifact, graph=replace(artifact.graph, nodes=nodes))
    assert found_between(artifact, changed) == {(node.name, change)}


def test_another_shape_and_another_cell_are_differences():
    artifact = quantized("gru", "int8").artifact
    wide = quantized("gru", "fixed16").artifact
    assert ("input", "format") in found_between(artifact, wide)
    lstm = found_between(artifact, quantized("lstm", "int8").artifact)
    assert {("rnn.l0", "cell"), ("rnn.l0/c", "format"), ("rnn.l0/nh", "size")} <= lstm


def test_ids_are_looked_up_on_both_sides():
    """The float twin of an embedding has its dequantized rows; ids have no noise of their own, and must be in range."""

    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.rnn = torch.nn.Embedding(9, 5), torch.nn.GRU(5, 6, batch_first=True)

        def forward(self, ids):
            return self.rnn(self.table(ids))[0]

    torch.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, 9, (4, 11))
    model = rindle.quantize(Words().eval(), "int8", torch.from_numpy(ids))
    found = analyse(model.artifact, dataset(ids, [11, 3, 7, 11]))
    paths = {f"{path.node}/{path.path}": path for path in found.paths}
    assert "input" not in {path.node for path in found.paths}
    assert paths["rnn.l0/h.next"].sqnr > 30
    with pytest.raises(RindleError, match=r"id 9; the model knows 0\.\.8"):
        analyse(model.artifact, dataset(np.full((1, 2), 9)))
    with pytest.raises(RindleError, match="integer ids"):
        analyse(model.artifact, dataset(np.zeros((1, 2, 5), np.float32)))
