"""From data to formats: the quantizers against brute force, histograms, bounds, and data that are wrong."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import FEATURES, HIDDEN, Only, TorchModel, codes_to, sequences

import rindle
from rindle import CELLS, RindleError, RindleWarning, cell, fixed
from rindle.nn.calibrate.groups import batches
from rindle.nn.calibrate.histogram import BINS, Histogram
from rindle.nn.calibrate.lower import lower
from rindle.nn.calibrate.plan import GRID
from rindle.numbers.formats import Format
from rindle.scheme.paths import bounds_of
from rindle.scheme.quantizers import QUANTIZERS
from rindle.scheme.rules import Rule

rows = st.lists(st.lists(st.floats(0, 1000, width=32), min_size=6, max_size=6), min_size=1, max_size=4)


def squared_error(values, counts, step, hi):
    codes = np.minimum(np.floor(values / step + 0.5), hi)
    return (counts * (codes * step - values) ** 2).sum()


@pytest.mark.parametrize("method", QUANTIZERS)
@pytest.mark.parametrize("grid", [None, GRID])
def test_a_row_of_zeros_gets_0(method, grid):
    values = np.array([[0.0, 0.0], [0.0, 3.0]])
    steps = QUANTIZERS[method].step(values, None, codes_to(127), grid, None)
    assert steps[0] == 0 and steps[1] > 0


@given(rows, st.sampled_from([1, 7, 127, 32767]), st.one_of(st.none(), st.floats(0.5, 4)))
def test_max_fits_the_largest_value(values, hi, margin):
    values = np.array(values)
    top = values.max(1) * (margin or 1.0)
    np.testing.assert_allclose(QUANTIZERS["max"].step(values, None, codes_to(hi), None, margin) * hi, top)
    for limit, step in zip(top, QUANTIZERS["max"].step(values, None, codes_to(hi), GRID, margin)):
        if limit > 0:
            assert step in GRID and step * (hi + 1) >= limit
            assert step == GRID[0] or step / 2 * (hi + 1) < limit


@given(rows, st.sampled_from([1, 7, 127]), st.floats(1, 100))
def test_percentile_fits_its_share_of_the_values(values, hi, percentile):
    values = np.array(values)
    for row, step in zip(values, QUANTIZERS["percentile"].step(values, None, codes_to(hi), None, percentile)):
        ranked = np.sort(row)
        limit = ranked[int(np.ceil(percentile / 100 * len(row) - 1e-9)) - 1]
        assert step == pytest.approx((limit if limit > 0 else row.max()) / hi)


@pytest.mark.parametrize("percentile, limit", [(25, 1.0), (25.1, 2.0), (50, 2.0), (75, 3.0), (75.1, 4.0), (100, 4.0)])
def test_percentiles_of_four_values(percentile, limit):
    assert QUANTIZERS["percentile"].step(np.array([[3.0, 1.0, 4.0, 2.0]]), None, codes_to(1), None, percentile) == limit


def test_counts_stand_for_repetitions():
    values, counts = np.array([[0.5, 1.0, 2.0, 9.0]]), np.array([5, 3, 2, 1])
    repeated = np.repeat(values, counts, axis=1)
    for name, quantizer in QUANTIZERS.items():
        for grid in (None, GRID):
            a, b = quantizer.step(values, counts, codes_to(7), grid), quantizer.step(repeated, None, codes_to(7), grid)
            np.testing.assert_allclose(a, b, err_msg=name)


@given(rows, st.sampled_from([1, 7, 127]))
def test_mmse_has_the_least_squared_error(values, hi):
    """Of all powers of two; off the grid never more than max."""
    values = np.array(values)
    counts = np.ones(values.shape[1])
    for row, power, step in zip(
        values, *(QUANTIZERS["mmse"].step(values, None, codes_to(hi), grid) for grid in (GRID, None))
    ):
        if row.max() > 0:
            powers = GRID[(row.max() / hi / 300 < GRID) & (row.max() * 4 > GRID)]
            best = min(squared_error(row, counts, one, hi) for one in powers)
            assert squared_error(row, counts, power, hi) <= best * (1 + 1e-12)
            assert squared_error(row, counts, step, hi) <= squared_error(row, counts, row.max() / hi, hi) * (1 + 1e-12)


@pytest.mark.parametrize("hi", [1, 7, 127])
def test_mmse_is_close_to_a_much_finer_search(hi):
    row = np.abs(np.random.default_rng(hi).normal(size=3000))
    counts = np.ones(3000)
    fine = min(squared_error(row, counts, one, hi) for one in np.linspace(0.05, 1.2, 1000) * row.max() / hi)
    found = squared_error(row, counts, QUANTIZERS["mmse"].step(row[None], None, codes_to(hi), None)[0], hi)
    assert found <= 1.02 * fine


def test_mmse_clips_outliers():
    values = np.abs(np.random.default_rng(0).normal(size=(1, 2000)))
    values[0, 0] = 12.0
    step = QUANTIZERS["mmse"].step(values, None, codes_to(7), None)[0]
    assert 2.5 < step * 7 < 4.5


# ---------------------------------------------------------------------------------------------------- histograms


def histogram(*parts) -> Histogram:
    one = Histogram()
    for part in parts:
        one.add(torch.as_tensor(part, dtype=torch.float32))
    return one


def test_histograms_merge_as_if_all_had_come_at_once():
    parts = [np.random.default_rng(k).normal(size=500) * 3.0**k for k in range(6)]
    merged, whole = histogram(*parts), histogram(np.concatenate(parts))
    assert merged.top == whole.top and merged.largest == whole.largest
    np.testing.assert_array_equal(merged.counts, whole.counts)
    assert merged.counts.sum() == 3000
    centres, counts = merged.magnitudes()
    assert centres[-1] == merged.largest and len(centres) <= BINS and counts.sum() == 3000


def test_the_order_of_batches_does_not_matter():
    """Not even where one of them is all zeros."""
    parts = [np.zeros(100), np.ones(50), np.full(50, 0.3)]
    counts = [histogram(*(parts[i] for i in order)).counts for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2))]
    np.testing.assert_array_equal(counts[0], counts[1])
    np.testing.assert_array_equal(counts[0], counts[2])


@pytest.mark.parametrize("largest", [1.0, 0.7, 1e-30, 1e30, 2.0**-126, 3e38])
def test_histograms_of_any_size(largest):
    one = histogram(np.array([largest, -largest / 2, 0.0]))
    centres, counts = one.magnitudes()
    assert centres[-1] == np.float32(largest)
    assert counts.sum() == 3


def test_a_histogram_of_zeros_is_zero():
    centres, _ = histogram(np.zeros(5)).magnitudes()
    assert centres.tolist() == [0.0]


# -------------------------------------------------------------------------------------------- what always holds


def bounds(function, states="h", width="I"):
    return bounds_of(cell(states=tuple(states), width=width)(function).program)


def test_bounds_of_the_cells():
    assert bounds_of(CELLS["lstm"].program) == {
        **dict.fromkeys(["f.sigmoid", "i.sigmoid", "g.tanh", "o.sigmoid", "c.tanh", "h", "h.code"], 1.0)
    }
    gru = bounds_of(CELLS["gru"].program)
    assert gru["h"] == gru["z.sigmoid"] == gru["n.tanh"] == 1.0 and "n" not in gru and "r.sigmoid.mul" not in gru
    assert set(bounds_of(CELLS["sru"].program)) == {"f.sigmoid", "r.sigmoid"}


def test_bounds_follow_the_operations():
    found = bounds(
        lambda n, x, h: n.add(n.tanh(n.affine("a", x)), n.sub(n.tanh(n.affine("b", h)), n.sigmoid(x))), width="H"
    )
    assert found["h"] == 3.0
    grows = bounds(lambda n, x, h: n.add(h, n.tanh(n.affine("a", x, h))))
    assert "h" not in grows
    decays = bounds(lambda n, x, h: n.lerp(n.sigmoid(n.affine("a", x)), h, n.tanh(n.affine("b", x))))
    assert decays["h"] == 1.0


def test_what_is_bounded_needs_no_data():
    """h never exceeds 1, whatever the calibration saw; a gate that only tables read ends where they are flat."""
    artifact = rindle.quantize(TorchModel("lstm").eval(), "int8", 0.001 * sequences()).artifact
    layer = artifact.graph.node("rnn.l0").layer
    assert layer.formats["h"] == layer.formats["f.sigmoid"] == fixed(16, 15)
    artifact = rindle.quantize(TorchModel("lstm").eval(), "fixed16", 1000 * sequences()).artifact
    layer = artifact.graph.node("rnn.l0").layer
    assert layer.formats["i"].hi * layer.formats["i"].scale < 17
    assert layer.formats["h.code"].hi * layer.formats["h.code"].scale < 2


def test_lowering_splits_by_format_and_merges_neighbours():
    program = CELLS["lstm"].program.with_sizes(I=3, H=4)
    narrow, wide = fixed(8, 5, product=True), fixed(16, 12, product=True)
    codes = dict.fromkeys(program.blocks, narrow)
    rules = dict.fromkeys(program.blocks, Rule("int", 8))
    same, formats = lower(program, codes, rules)
    assert same == program and formats == {"x.code": narrow, "h.code": narrow}
    codes["f", "h"] = codes["o", "h"] = wide
    rules["o", "x"] = Rule("int", 4)
    split, formats = lower(program, codes, rules)
    assert formats == {"x.code": narrow, "h.code.i+g": narrow, "h.code.f+o": wide}
    (op,) = split.affines
    assert [(t.code, str(t.key)) for t in op.terms] == [
        ("x.code", "i+f+g.x"),
        ("x.code", "o.x"),
        ("h.code.i+g", "i.h"),
        ("h.code.f+o", "f.h"),
        ("h.code.i+g", "g.h"),
        ("h.code.f+o", "o.h"),
    ]
    assert split.codes == tuple(op.out[0] for op in split.ops if op.out[0] in split.codes)


# ------------------------------------------------------------------------------------------------------- the data


@pytest.mark.parametrize("batch_first", [True, False])
def test_what_calibration_data_may_be(batch_first):
    x = sequences(4, 6)
    given_ = x if batch_first else x.transpose(1, 0, 2)
    for data in (
        given_,
        torch.from_numpy(given_.copy()),
        [given_],
        iter([given_]),
        [(given_, "targets")],
        given_.astype(np.float64),
        torch.utils.data.DataLoader(torch.from_numpy(given_.copy()), batch_size=len(given_)),
    ):
        found = list(batches(data, batch_first))
        np.testing.assert_array_equal(np.concatenate(found), x)
        assert found[0].dtype == np.float32 and found[0].flags.c_contiguous


def bad(index, value):
    x = sequences(2, 4)
    x[index] = value
    return x


@pytest.mark.parametrize(
    "data, words",
    [
        (None, "calibration is missing"),
        ([], "the calibration data are empty; give at least one sequence"),
        (iter(()), "the calibration data are empty"),
        (np.zeros((0, 4, FEATURES), np.float32), r"batch 0 has shape \(0, 4, 5\)"),
        (np.zeros((2, 0, FEATURES), np.float32), r"batch 0 has shape \(2, 0, 5\)"),
        (np.zeros((4, FEATURES), np.float32), r"batch 0 has shape \(4, 5\); give three dimensions"),
        ([sequences(), sequences()[:, :0]], r"batch 1 has shape \(8, 0, 5\)"),
        ([()], "batch 0 has shape"),
        (np.zeros((2, 4, FEATURES), complex), "batch 0 has dtype complex128; give real numbers"),
        (np.full((2, 4, FEATURES), "a"), "batch 0 has dtype <U1"),
        (bad((1, 2, 3), np.nan), r"batch 0 holds a value that is not a finite float32, at .* = \[1, 2, 3\]"),
        (bad((0, 3, 0), -np.inf), r"not a finite float32, at .* = \[0, 3, 0\]"),
        ([sequences(), bad((0, 0, 0), np.nan)], "batch 1 holds"),
        (bad((0, 0, 0), 1).astype(np.float64) * 1e300, "batch 0 holds a value that is not a finite float32"),
        ([sequences(), sequences()[:, :, :3]], "calibration data have 3 features; the model takes 5"),
    ],
)
def test_calibration_data_that_are_wrong(data, words):
    with pytest.raises(RindleError, match=words):
        rindle.quantize(TorchModel("gru").eval(), "int8", data)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e30, 3e38])
def test_extreme_data_are_refused_by_path_or_work(size):
    """No warning, no NaN, no nameless error."""
    data = (sequences() / np.abs(sequences()).max() * size).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            model = rindle.quantize(Only(torch.nn.GRU(FEATURES, HIDDEN, batch_first=True)).eval(), "int8", data)
        except RindleError as error:
            assert "rnn.l0/" in str(error)
        else:
            assert np.isfinite(model.run(data)).all()


@pytest.mark.parametrize("before", [[], [sequences()]])
def test_overflow_inside_the_model_is_an_error(before):
    """Finite data and weights whose product is infinite, in the first batch or a later one."""
    model = TorchModel("gru").eval()
    with torch.no_grad():
        model.first.weight.fill_(1e30)
    with pytest.raises(RindleError, match="first/y"):
        rindle.quantize(model, "int8", [*before, np.full((2, 4, FEATURES), 1e30, np.float32)])


def test_constant_data_work_with_a_warning():
    with pytest.warns(RindleWarning, match="first/x is 0 throughout the calibration data; its scale is set to 1"):
        model = rindle.quantize(TorchModel("gru").eval(), "int8", np.zeros((2, 4, FEATURES), np.float32))
    assert model.artifact.input_format == Format(8, step=1.0, product=True)
    assert np.isfinite(model.run(sequences())).all()


def test_constant_but_not_zero_needs_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = rindle.quantize(TorchModel("lstm").eval(), "int8", np.full((2, 4, FEATURES), 0.3, np.float32))
    x = np.full((1, 4, FEATURES), 0.3, np.float32)
    np.testing.assert_allclose(model.run(x), model.run(x, engine="reference"))


def test_batches_of_different_lengths():
    x = sequences(6, 20)
    model = rindle.quantize(TorchModel("gru").eval(), "int8", [x[:2], x[2:5, :7], x[5:, :1]])
    assert model.artifact.provenance["calibration"] == {"batches": 3, "frames": 40 + 21 + 1}
    assert model.artifact.golden.lengths.min() >= 1
