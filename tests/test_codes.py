"""Every operation on codes against ``naive``, which reads docs/numerics.md a second time."""

from dataclasses import replace
from itertools import product

import naive
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from rindle import Format, RindleError, fixed
from rindle.file.artifact import Layer
from rindle.nn.numerics import DoubleCodes
from rindle.numbers.bounds import LIMIT, check_elementwise, elementwise
from rindle.numbers.codes import (
    Affine,
    Codes,
    NumPy,
    Product,
    Rescale,
    alignment,
    evaluate_table,
    round_shift,
)
from rindle.numbers.tables import FUNCTIONS, Table, build
from rindle.program.program import ARITY, Op, Program, Term

NAMESPACES = {"int64": NumPy, "float64": DoubleCodes}
ELEMENTWISE = ("add", "sub", "mul", "sum_of_products", "lerp")


@pytest.fixture(params=NAMESPACES)
def xp(request):
    return NAMESPACES[request.param]


def integers(array) -> list:
    return np.asarray(array).astype(np.int64).tolist()


def layer_of(op: Op, formats: dict[str, Format], constant=None, thetas=None) -> Layer:
    sizes = dict.fromkeys(formats, 1)
    codes = tuple(name for name in (*op.out, *op.reads) if name.startswith("code"))
    program = Program("one", op.reads[0], (), op.out[0], (op,), sizes, codes)
    return Layer(program, formats, {op.out[0]: constant}, {}, thetas or {})


def as_column(xp, codes):
    return xp.array(np.array(codes)[:, None])


@given(st.integers(-(2**50), 2**50), st.integers(-2, 45))
def test_rounding(v, s):
    assume(abs(v) * 2 ** max(0, -s) < LIMIT)
    for xp in NAMESPACES.values():
        assert integers(round_shift(xp, xp.array([v]), s)) == [naive.round_half_up(v, s)]


def test_rounding_of_ties_goes_up(xp):
    assert integers(round_shift(xp, xp.array([-6, -3, -2, -1, 1, 2, 3, 6]), 2)) == [-1, -1, 0, 0, 0, 1, 1, 2]
    assert integers(round_shift(xp, xp.array([-3, 3]), 0)) == [-3, 3]
    assert integers(round_shift(xp, xp.array([-3, 3]), -2)) == [-12, 12]


paths = st.builds(fixed, st.integers(2, 16), st.integers(-6, 30))


@st.composite
def elementwise_cases(draw):
    """An operation, its formats, and rows of operand codes, the extreme ones among them."""
    kind = draw(st.sampled_from(ELEMENTWISE))
    operands = [draw(paths) for _ in range(ARITY[kind])]
    if kind == "lerp" and operands[0].frac < 0:
        operands[0] = replace(operands[0], frac=-operands[0].frac)
    result = draw(paths)
    assume(elementwise(kind, tuple(operands), result) < LIMIT)
    codes = [st.one_of(st.sampled_from([f.lo, f.hi, 0, 1, -1]), st.integers(f.lo, f.hi)) for f in operands]
    return kind, operands, result, draw(st.lists(st.tuples(*codes), min_size=1, max_size=5))


@given(elementwise_cases())
def test_elementwise_operations_are_exact_then_rounded_once(case):
    kind, operands, result, rows = case
    names = "abcd"[: len(operands)]
    formats = dict(zip(names, operands)) | {"y": result}
    check_elementwise(kind, tuple(operands), result, "here")
    wanted = [naive.elementwise(kind, row, [f.frac for f in operands], result.frac) for row in rows]
    for xp in NAMESPACES.values():
        op = Op(kind, ("y",), tuple(names))
        numerics = Codes(layer_of(op, formats), xp)
        y = getattr(numerics, kind)(op, *(as_column(xp, column) for column in zip(*rows)))
        assert integers(y[:, 0]) == [naive.sat(v, result.lo, result.hi) for v in wanted]
        assert numerics.saturations == {"y": sum(not result.lo <= v <= result.hi for v in wanted)}


@given(elementwise_cases())
def test_the_worst_case_is_never_exceeded(case):
    """(15) by brute force over the corners of the operands' ranges."""
    kind, operands, result, _ = case
    fractions = [f.frac for f in operands]
    s = alignment(kind, tuple(fractions), result.frac)[1]
    for corner in product(*((f.lo, f.hi) for f in operands)):
        v = abs(naive.elementwise(kind, corner, fractions, result.frac + s))  # exact: nothing is shifted out
        assert (v + 2 ** (s - 1) if s >= 1 else v * 2**-s) <= elementwise(kind, tuple(operands), result)


def test_formats_too_far_apart_are_refused_with_the_numbers():
    with pytest.raises(RindleError, match=r"n0/y: mul of fixed\(16,14\), fixed\(16,14\) into fixed\(16,60\).*2\^62\.0"):
        check_elementwise("mul", (fixed(16, 14), fixed(16, 14)), fixed(16, 60), "n0/y")
    check_elementwise("mul", (fixed(16, 14), fixed(16, 14)), fixed(16, 49), "n0/y")  # 2^30 · 2^21
    with pytest.raises(RindleError, match="fraction bits >= 0"):
        check_elementwise("lerp", (fixed(16, -1), fixed(16, 4), fixed(16, 4)), fixed(16, 4), "n0/y")
    with pytest.raises(RindleError, match=r"2\^5"):
        check_elementwise("add", (fixed(16, 40), fixed(16, 0)), fixed(16, 40), "n0/y")


@given(st.data())
def test_affine(data):
    """Two gates, two terms of which one covers a single gate, over random M, b, s within (8b)."""
    draw = data.draw
    codes = [draw(st.builds(fixed, st.integers(2, 16), st.just(0), st.just(True))) for _ in range(2)]
    results = [draw(st.builds(fixed, st.integers(2, 16), st.just(0))) for _ in range(2)]
    shift = draw(st.integers(0, 40))
    weights = [np.array(draw(st.lists(st.integers(-127, 127), min_size=n, max_size=n)))[:, None] for n in (2, 1)]
    multipliers = [np.array(draw(st.lists(st.integers(0, 2**22 - 1), min_size=n, max_size=n))) for n in (2, 1)]
    bias = np.array([draw(st.integers(-(2**50), 2**50)) for _ in range(2)])
    x = [draw(st.sampled_from([f.lo, f.hi, 0, 1])) for f in codes]
    op = Op("affine", ("u", "v"), (), (Term("code.a", "a", ("u", "v")), Term("code.b", "b", ("v",))), ("u", "v"))
    formats = {"u": results[0], "v": results[1], "code.a": codes[0], "code.b": codes[1]}
    products = tuple(Product(w, fixed(8, 0), m) for w, m in zip(weights, multipliers))
    sums = [
        bias[0] + multipliers[0][0] * weights[0][0, 0] * x[0],
        bias[1] + multipliers[0][1] * weights[0][1, 0] * x[0] + multipliers[1][0] * weights[1][0, 0] * x[1],
    ]
    wanted = [naive.round_half_up(int(v), shift) for v in sums]
    for xp in NAMESPACES.values():
        numerics = Codes(layer_of(op, formats, Affine(products, bias, shift)), xp)
        found = numerics.affine(op, *(as_column(xp, [code]) for code in x))
        assert [integers(y[:, 0]) for y in found] == [[naive.sat(v, f.lo, f.hi)] for v, f in zip(wanted, results)]
        assert numerics.saturations["u"] == sum(not f.lo <= v <= f.hi for v, f in zip(wanted, results))


@given(st.integers(0, 2**22 - 1), st.integers(0, 40), st.integers(-32768, 32767), st.integers(2, 16), st.booleans())
def test_requantize(multiplier, shift, code, bits, product):
    result = fixed(bits, 0, product)
    op = Op("requantize", ("y",), ("x",))
    wanted = naive.round_half_up(code * multiplier, shift)
    for xp in NAMESPACES.values():
        numerics = Codes(layer_of(op, {"x": fixed(16, 0), "y": result}, Rescale(multiplier, shift)), xp)
        assert integers(numerics.requantize(op, as_column(xp, [code]))) == [[naive.sat(wanted, result.lo, result.hi)]]
        assert numerics.saturations["y"] == (not result.lo <= wanted <= result.hi)


def test_clip(xp):
    op = Op("clip", ("y",), ("x",))
    numerics = Codes(layer_of(op, {"x": fixed(16, 8), "y": fixed(16, 8)}, (-5, 300)), xp)
    assert integers(numerics.clip(op, as_column(xp, [-32768, -6, -5, 0, 300, 301, 32767]))[:, 0]) == [
        *(-5, -5, -5, 0, 300, 300, 300)
    ]
    assert numerics.saturations == {}  # clipping is what was asked for


def test_hold_lets_through_what_is_strictly_above_the_threshold(xp):
    op = Op("requantize", ("code.x",), ("x",))
    theta = np.array([0, 2, 2, 2, 2, 126])
    formats = {"x": fixed(16, 0), "code.x": fixed(8, 0, True)}
    numerics = Codes(layer_of(op, formats, Rescale(1, 0), {"code.x": theta}), xp)
    held = numerics.hold("code.x", xp.array([1, 12, 13, 8, 7, -127]), xp.array([0, 10, 10, 10, 10, 0]))
    assert integers(held) == [1, 10, 13, 10, 7, -127]
    assert numerics.changes == {"code.x": 4}


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=9))
def test_mean_rounds_half_up(codes):
    for xp in NAMESPACES.values():
        assert integers(xp.mean(xp.array([sum(codes)]), len(codes))) == [naive.mean(codes)]


def test_mean_of_a_long_extreme_sequence(xp):
    """S and 2S + T stay exact up to T = 2^31 - 1."""
    frames = 2**31 - 1
    for code in (-32768, -32767, -1, 0, 1, 32767):
        assert integers(xp.mean(xp.array([code * frames]), frames)) == [code]
    assert integers(xp.mean(xp.array([frames // 2, frames // 2 + 1, -(frames // 2)]), frames)) == [0, 1, 0]


# ------------------------------------------------------------------------------------------------------------ tables


@st.composite
def tables(draw):
    flag, degree = draw(st.sampled_from(["none", "odd", "sigmoid"])), draw(st.integers(0, 1))
    n = 2 ** draw(st.integers(0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x0 = 0 if flag != "none" else draw(st.one_of(st.integers(-40000, 40000), st.sampled_from([-(2**31), 2**31 - 1])))
    base, slope = rng.integers(-32768, 32768, (2, n))
    p, q = draw(st.integers(0, 15)), draw(st.integers(0, 30))
    return Table("random", degree, flag, x0, p, q, base, slope if degree else None, 0.0)


@given(tables(), st.integers(2, 16), st.integers(0, 30), st.lists(st.integers(-32768, 32767), min_size=1, max_size=9))
def test_tables_of_any_shape(table, bits, frac, codes):
    y = fixed(bits, frac)
    codes = [*codes, -32768, -1, 0, 1, 32767]
    entry = {part: getattr(table, part) for part in ("flag", "degree", "x0", "p", "q")}
    entry |= {"base": table.base.tolist(), "slope": None if table.slope is None else table.slope.tolist()}
    if not table.degree:  # a table whose results are not codes of y is refused at load
        table = replace(table, base=np.clip(table.base, y.lo, y.hi))
        entry["base"] = table.base.tolist()
    wanted = [naive.table(entry, code, y.lo, y.hi, frac) for code in codes]
    for xp in NAMESPACES.values():
        assert integers(evaluate_table(table, xp.array(codes), y, xp)) == wanted


EVERY_CODE = np.arange(-32768, 32768)


@pytest.mark.fast(16)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("x_frac", [0, 3, 6, 9, 11, 12, 13, 15])
@pytest.mark.parametrize("y_bits", [16, 8])
def test_built_tables_over_all_codes(function, x_frac, y_bits):
    x, y = fixed(16, x_frac), fixed(y_bits, y_bits - 1)
    table = build(function, x, y)
    codes = evaluate_table(table, EVERY_CODE, y)
    exact = FUNCTIONS[function].values(EVERY_CODE * x.scale)
    error = np.abs(codes * y.scale - exact)
    assert table.max_error == error.max()
    assert error.max() <= y.scale + 2.0**-11
    assert codes[32768] == round(float(FUNCTIONS[function].values(np.zeros(1))[0]) / y.scale)
    if table.flag != "none":
        mirrored = -codes if table.flag == "odd" else 2**y.frac - codes
        assert (codes[1:32768] == np.clip(mirrored, y.lo, y.hi)[:32768:-1]).all()
    entry = {part: getattr(table, part) for part in ("flag", "degree", "x0", "p", "q")}
    entry |= {"base": table.base.tolist(), "slope": table.slope.tolist()}
    for code in range(-32768, 32768, 97):
        assert codes[code + 32768] == naive.table(entry, code, y.lo, y.hi, y.frac)
    twin = evaluate_table(table, DoubleCodes.array(EVERY_CODE), y, DoubleCodes)
    assert torch.equal(twin, torch.from_numpy(codes).double())


@pytest.mark.fast(6)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("bits, frac", [(2, 0), (4, 2), (8, 5), (12, 9), (16, -3), (16, 30)])
def test_built_tables_for_odd_formats(function, bits, frac):
    """Every format converts to something legal, whose stored error is the measured one."""
    x = fixed(bits, frac)
    for y in (fixed(16, 15), fixed(5, 4), fixed(16, 30), fixed(16, 0)):
        table = build(function, x, y)
        codes = np.arange(x.lo, x.hi + 1)
        error = np.abs(evaluate_table(table, codes, y) * y.scale - FUNCTIONS[function].values(codes * x.scale)).max()
        assert table.max_error == error
        assert 0 <= table.p <= 15 and 0 <= table.q <= 30
        assert len(table.base) <= 256 and np.abs(table.slope).max() <= 32768
        reachable = min(1.0, (y.hi + 1) * y.scale)
        assert error <= 1 - reachable + y.scale + 2.0**-11


def test_an_unknown_function_is_refused():
    with pytest.raises(
        RindleError, match="unknown function 'softplus'; there are normal_cdf, normal_cdf_tanh, sigmoid, tanh"
    ):
        build("softplus", fixed(16, 12), fixed(16, 15))
