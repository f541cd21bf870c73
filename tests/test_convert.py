"""From real numbers to M, b and s: docs/numerics.md (8a), (8b), by brute force with Fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support import FEATURES, HIDDEN, TorchModel, quantized, sequences

import rindle
from rindle import Format, RindleError, fixed, integer
from rindle.engines.reference import run
from rindle.file.container import dumps, loads
from rindle.nn.conversion.convert import rescale
from rindle.nn.conversion.shifts import choose_shift
from rindle.numbers.bounds import LIMIT
from rindle.numbers.codes import Affine


def half_up(v: Fraction) -> int:
    return floor(v + Fraction(1, 2))


def integers(ratios, bias, s):
    scale = Fraction(2) ** s
    return [[half_up(Fraction(m) * scale) for m in row] for row in ratios], [half_up(Fraction(b) * scale) for b in bias]


def fits(multipliers, reaches, b, s) -> bool:
    rounding = 2 ** (s - 1) if s else 0
    sums = (sum(a * m for a, m in zip(column, ms)) for column, ms in zip(zip(*reaches), zip(*multipliers)))
    return all(m < 2**22 for row in multipliers for m in row) and all(
        total + abs(one) + rounding < LIMIT for total, one in zip(sums, b)
    )


def brute_force(ratios, reaches, bias):
    """(M, b, s), or None where it is to be refused."""
    nonzero = [Fraction(m) for row in ratios for m in row if m > 0]
    powers = all((m.numerator & (m.numerator - 1)) == 0 and (m.denominator & (m.denominator - 1)) == 0 for m in nonzero)
    if powers:
        for s in range(41):
            if all((m * 2**s).denominator == 1 for m in nonzero):
                multipliers, b = integers(ratios, bias, s)
                return (multipliers, b, s) if fits(multipliers, reaches, b, s) else None
        return None
    for s in range(40, -1, -1):
        multipliers, b = integers(ratios, bias, s)
        if fits(multipliers, reaches, b, s):
            break
    else:
        return None
    for r in range(len(bias)):
        column = [
            (reaches[t][r] * multipliers[t][r], multipliers[t][r], ratios[t][r], reaches[t][r])
            for t in range(len(ratios))
        ]
        inexact = [Fraction(m) * 2**s != multiplier for _, multiplier, m, _ in column]
        error = sum(Fraction(a, 2) / 2**s for (_, _, _, a), rough in zip(column, inexact) if rough)
        leading = max(range(len(column)), key=lambda t: column[t][0])
        if inexact[leading] and column[leading][1] < 2**11 and error > 1:
            return None
    while s > 0 and not any(m % 2 for row in multipliers for m in row) and not any(one % 2 for one in b):
        multipliers, b, s = [[m // 2 for m in row] for row in multipliers], [one // 2 for one in b], s - 1
    return multipliers, b, s


@st.composite
def cases(draw):
    terms, rows = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    power = draw(st.booleans())
    exponents = st.integers(-45, 10) if draw(st.booleans()) else st.integers(-14, -4)
    mantissas = st.just(1.0) if power else st.one_of(st.just(1.0), st.floats(1.0, 2.0, exclude_max=True))
    ratio = st.one_of(st.just(0.0), st.builds(lambda m, e: m * 2.0**e, mantissas, exponents))
    ratios = [[draw(ratio) for _ in range(rows)] for _ in range(terms)]
    assume(any(m for row in ratios for m in row))
    bits = draw(st.integers(4, 36))
    reaches = [[draw(st.integers(1, 2**bits)) if m else 0 for m in row] for row in ratios]
    bias = draw(st.lists(st.floats(-1e5, 1e5), min_size=rows, max_size=rows))
    return ratios, reaches, bias


@given(cases())
def test_multipliers_bias_and_shift(case):
    ratios, reaches, bias = case
    arrays = np.array(ratios), np.array(reaches, np.float64), np.array(bias)
    wanted = brute_force(*case)
    if wanted is None:
        with pytest.raises(RindleError, match=r"n0/y: .*(fit|shift)"):
            choose_shift(*arrays, "n0/y")
        return
    multipliers, b, s = choose_shift(*arrays, "n0/y")
    assert (multipliers.tolist(), b.tolist(), s) == wanted
    assert multipliers.dtype == b.dtype == np.int64


@given(st.lists(st.integers(-20, 1), min_size=1, max_size=4), st.floats(-1000, 1000))
def test_powers_of_two_are_shifts_only(exponents, bias):
    ratios = np.array([[2.0**e for e in exponents]])
    multipliers, b, s = choose_shift(ratios, np.full_like(ratios, 1000.0), np.full(len(exponents), bias), "n0/y")
    assert s == max(0, -min(exponents))
    assert [m * Fraction(1, 2**s) for m in multipliers[0].tolist()] == [Fraction(2) ** e for e in exponents]
    assert set(b.tolist()) == {half_up(Fraction(bias) * 2**s)}


@pytest.mark.parametrize(
    "ratio, reach, bias, words",
    [
        (
            0.7,
            2.0**53,
            0.0,
            r"no shift fits: the ratios reach 0.7, the sums 9.007e\+15 .*give the result fewer fraction",
        ),
        (5e6, 1.0, 0.0, r"no shift fits: the ratios reach 5e\+06"),
        (0.3, 1.0, 1e17, r"the bias 1e\+17 output codes"),
        (2.0**-41, 1.0, 0.0, r"powers of two from 2\^-41 to 2\^-41 .*do not fit a common shift of at most 40"),
        (2.0**22, 1.0, 0.0, r"powers of two from 2\^22 to 2\^22"),
        (
            1.3 * 2.0**-34,
            2.0**42,
            0.0,
            r"in row 0 the multiplier 83 is too coarse for the ratio 7.5.*: up to 2.0 output codes",
        ),
        (float("inf"), 1.0, 0.0, "a scale ratio or a bias is not finite"),
        (0.3, 1.0, float("nan"), "not finite"),
    ],
)
def test_what_does_not_convert_is_refused_with_the_numbers(ratio, reach, bias, words):
    with pytest.raises(RindleError, match=rf"n0/y: .*{words}"):
        choose_shift(np.array([[ratio]]), np.array([[reach]]), np.array([bias]), "n0/y")


@pytest.mark.parametrize("bias", [0.0, 3.0, -3.0])
def test_the_bound_counts_the_bias_and_the_rounding_constant(bias):
    """M = 1 and s = 20: the sums may reach 2^52 - 1, |b| and R = 2^19 included."""
    reach = 2**52 - 1 - 2**19 - abs(int(bias)) * 2**20
    choose_shift(np.array([[2.0**-20]]), np.array([[float(reach)]]), np.array([bias]), "n0/y")
    with pytest.raises(RindleError, match="do not fit"):
        choose_shift(np.array([[2.0**-20]]), np.array([[float(reach + 1)]]), np.array([bias]), "n0/y")


@given(st.integers(2, 16), st.integers(-10, 30), st.integers(2, 16), st.floats(2.0**-7, 100, width=32))
def test_requantize_constants(bits, frac, narrow, step):
    x, y = fixed(bits, frac), integer(narrow, step)
    case = [[x.scale / y.scale]], [[max(-x.lo, x.hi)]], [0.0]
    wanted = brute_force(*case)
    if wanted is None:
        with pytest.raises(RindleError, match="n0/x"):
            rescale(x, y, "n0/x.code")
        return
    found = rescale(x, y, "n0/x.code")
    assert ([[found.multiplier]], found.shift) == (wanted[0], wanted[2])


def test_a_requantize_to_the_same_format_is_a_copy():
    assert (rescale(fixed(16, 9), fixed(16, 9), "").multiplier, rescale(fixed(16, 9), fixed(16, 9), "").shift) == (1, 0)
    assert rescale(integer(8, 0.1), integer(8, 0.1), "").shift == 0


# ------------------------------------------------------------------------------------------- whole affines


def affines(artifact):
    for node in artifact.graph.programs:
        for op in node.layer.program.affines:
            yield node.layer, op, node.layer.constants[op.out[0]]


def reals(layer, op, constant: Affine):
    """m and A of each term and row, from the stored scales alone."""
    rows = len(constant.bias)
    sizes = {gate: layer.program.block_shape(gate)[0] for gate in op.out}
    scale = np.concatenate([np.full(sizes[gate], layer.formats[gate].scale) for gate in op.out])
    ratios, reaches = np.zeros((2, len(op.terms), rows))
    for t, (term, product) in enumerate(zip(op.terms, constant.products)):
        start = sum(sizes[gate] for gate in op.out[: op.out.index(term.gates[0])])
        span = slice(start, start + len(product.weight))
        steps = product.format.scale if product.row_scales is None else product.row_scales.astype(np.float64)
        code = layer.formats[term.code]
        reaches[t, span] = np.abs(product.weight).sum(1) * max(-code.lo, code.hi)
        ratios[t, span] = np.where(reaches[t, span] > 0, steps * code.scale / scale[span], 0.0)
    return ratios, reaches


@pytest.mark.fast(6)
def test_converted_affines_are_the_largest_that_fit(artifact):
    for layer, op, constant in affines(artifact):
        ratios, reaches = reals(layer, op, constant)
        multipliers, _, shift = brute_force(ratios.tolist(), reaches.astype(int).tolist(), [0.0] * ratios.shape[1])
        for t, (term, product) in enumerate(zip(op.terms, constant.products)):
            start = sum(layer.program.block_shape(gate)[0] for gate in op.out[: op.out.index(term.gates[0])])
            wanted = np.array(multipliers[t][start : start + len(product.weight)], float) / 2.0**shift
            found = product.multiplier / 2.0**constant.shift
            np.testing.assert_allclose(found, wanted, rtol=2.0**-11)  # the bias may cost a few bits


@pytest.mark.fast(6)
@pytest.mark.parametrize("scheme", ["fixed8", "fixed16"])
def test_fixed_schemes_have_shifts_only(cell, scheme):
    for _, _, constant in affines(quantized(cell, scheme).artifact):
        for product in constant.products:
            multipliers = product.multiplier[product.multiplier > 0].tolist()
            assert all(m & (m - 1) == 0 for m in multipliers)
            assert product.row_scales is None and product.format.is_fixed


def test_weights_codes_and_bias_by_hand():
    """One Linear, everything recomputed from the equations."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(FEATURES, HIDDEN))
    scheme = {"*": "fixed16 max", "weight.*": "int8 max", "code.*": "int8 max"}
    artifact = rindle.quantize(model, scheme, sequences()).artifact
    (node,) = artifact.graph.programs
    affine = node.layer.constants["y"]
    (product,) = affine.products
    weight, bias = (p.detach().double().numpy() for p in model[0].parameters())
    steps = (np.abs(weight).max(1) / 127).astype(np.float32)
    np.testing.assert_array_equal(product.row_scales, steps)
    for code, w, step in zip(product.weight.ravel(), weight.ravel(), np.repeat(steps, FEATURES)):
        assert code == min(127, max(-127, half_up(Fraction(w) / Fraction(float(step)))))
    y = node.layer.formats["y"]
    for code, one in zip(affine.bias, bias):
        assert code == half_up(Fraction(one) / Fraction(y.scale) * 2**affine.shift)
    x = sequences()
    wanted = x.astype(np.float64) @ weight.T + bias
    worst = artifact.input_format.scale * np.abs(weight).sum(1).max() + steps.max() * np.abs(x).sum(2).max()
    assert np.abs(rindle.Model(artifact).run(x) - wanted).max() < worst


def test_all_zero_rows_and_constant_paths_work_with_a_warning():
    torch.manual_seed(0)
    model = TorchModel("gru").eval()
    with torch.no_grad():
        model.rnn.weight_ih_l0[3:6] = 0
        model.first.weight[:] = 0
        model.first.bias[:] = 0
    with pytest.warns(rindle.RindleWarning) as warnings:
        artifact = rindle.quantize(model, "int8", sequences()).artifact
    said = " / ".join(str(warning.message) for warning in warnings)
    assert "weight.r+z.x has 3 rows of zeros, the first is 3; their scale is set to 1" in said
    assert "first/weight.y.x has 17 rows of zeros" in said
    assert "first/y is 0 throughout the calibration data; its scale is set to 1" in said
    affine = artifact.graph.node("rnn.l0").layer.constants["r"]
    assert not affine.products[0].multiplier[3:6].any() and not affine.products[0].weight[3:6].any()
    assert (affine.products[0].row_scales[3:6] == 1).all()
    assert artifact.graph.node("first").layer.formats["y"] == fixed(16, 0)
    loads(dumps(artifact))
    assert not run(artifact, sequences()).values["first"].any()


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"r.sigmoid": "fixed(16,-2)"}, r"rnn.l0/r.sigmoid: .*0..30 fraction bits, not fixed\(16,-2\)"),
        ({"r.sigmoid": "fixed(16,40)"}, r"rnn.l0/r.sigmoid: .*0..30 fraction bits"),
        ({"n.tanh": "fixed(16,60)"}, r"rnn.l0/h.next: lerp of .* which is not below 2\^52"),
        ({"r": "fixed(16,60)"}, "rnn.l0/r_z: no shift fits"),
        ({"rnn.l0/code.r.x": "fixed(8,60)"}, "rnn.l0/x.code.r: powers of two"),
    ],
)
def test_formats_that_no_integers_fit_are_refused_by_path(overrides, words):
    with pytest.raises(RindleError, match=words):
        rindle.quantize(TorchModel("gru").eval(), "int8", sequences(), overrides)


def test_zero_biases_and_no_affine_term():
    """Weights and biases of zero everywhere: an affine without a single multiplier."""
    zero = np.zeros((2, 3))
    multipliers, b, shift = choose_shift(zero, zero, np.zeros(3), "n0/y")
    assert (multipliers.any(), b.any(), shift) == (False, False, 0)
    assert Format(8, step=1.0).scale == 1.0
