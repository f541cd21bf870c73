from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rindle import Format, RindleError, fixed, integer
from rindle.numbers.formats import decode, encode, encode_input, pack, unpack


@st.composite
def matrices(draw):
    bits = draw(st.integers(2, 16))
    top = 2 ** (bits - 1) - 1
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 19))
    codes = st.one_of(st.integers(-top, top), st.sampled_from([-top, top, 0]))
    flat = draw(st.lists(codes, min_size=rows * columns, max_size=rows * columns))
    return bits, np.array(flat, np.int64).reshape(rows, columns)


@given(matrices())
def test_packing_round_trips_and_pads_rows_to_bytes(case):
    bits, codes = case
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (len(codes), -(-codes.shape[1] * bits // 8))
    np.testing.assert_array_equal(unpack(packed, bits, codes.shape[1]), codes)


def test_packing_is_little_endian_and_twos_complement():
    assert pack(np.array([[1, -1, 2]]), 3).tolist() == [[0b10111001, 0b0]]
    assert pack(np.array([[-2, 1]]), 12).tolist() == [[0xFE, 0x1F, 0x00]]
    assert pack(np.array([[-2]]), 16).tolist() == [[0xFE, 0xFF]]
    assert pack(np.array([[-2, 5]]), 8).tolist() == [[0xFE, 0x05]]


@pytest.mark.parametrize("bits, columns", [(3, 2), (5, 1), (7, 3), (12, 1), (2, 3)])
def test_unused_bits_must_be_zero(bits, columns):
    packed = pack(np.ones((2, columns), np.int64), bits)
    packed[1, -1] |= 0x80
    with pytest.raises(RindleError, match="unused bits"):
        unpack(packed, bits, columns)


@pytest.mark.parametrize("bits", range(2, 17))
def test_ranges(bits):
    top = 2 ** (bits - 1) - 1
    for fmt in (fixed(bits, 3, product=True), integer(bits, 0.1)):
        assert (fmt.lo, fmt.hi) == (-top, top)
    element = fixed(bits, 3)
    assert (element.lo, element.hi) == (-top - (bits == 16), top)
    assert (element.as_product().lo, element.as_product().hi) == (-top, top)
    if bits <= 7:
        unsigned = integer(bits, 0.1, signed=False)
        assert (unsigned.lo, unsigned.hi) == (0, 2**bits - 1)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"bits": 1, "frac": 0}, "2..16 bits, not 1"),
        ({"bits": 17, "frac": 0}, "2..16 bits, not 17"),
        ({"bits": 8}, "and not both"),
        ({"bits": 8, "frac": 1, "step": 1.0}, "and not both"),
        ({"bits": 8, "frac": 65}, "not 65"),
        ({"bits": 8, "frac": -65}, "not -65"),
        ({"bits": 8, "step": 0.0}, "float32 between .*, not 0.0"),
        ({"bits": 8, "step": -1.0}, "float32 between .*, not -1.0"),
        ({"bits": 8, "step": float("inf")}, "float32 between .*, not inf"),
        ({"bits": 8, "step": float("nan")}, "float32 between .*, not nan"),
        ({"bits": 8, "step": 2.0**-65}, "float32 between .*, not 2.7"),
        ({"bits": 8, "step": 2.0**65}, "float32 between .*, not 3.6"),
        ({"bits": 8, "step": 0.1}, "float32 between .*, not 0.1"),
        ({"bits": 8, "frac": 0, "signed": False, "product": True}, "not 8 bits"),
        ({"bits": 7, "frac": 0, "signed": False}, "only in products"),
    ],
)
def test_formats_that_do_not_exist(arguments, words):
    with pytest.raises(RindleError, match=words):
        Format(**arguments)


@given(st.floats(-1e6, 1e6), st.integers(-8, 24), st.integers(2, 16), st.booleans())
def test_encode_is_equation_3(value, frac, bits, product):
    fmt = fixed(bits, frac, product)
    exact = (Fraction(value) * Fraction(2) ** frac + Fraction(1, 2)).__floor__()
    assert encode([value], fmt.scale, fmt.lo, fmt.hi).tolist() == [min(max(exact, fmt.lo), fmt.hi)]


def test_encode_rounds_ties_up():
    assert encode([-1.5, -0.5, 0.5, 1.5, 2.5], 1.0, -128, 127).tolist() == [-1, 0, 1, 2, 3]


steps = st.floats(2.0**-20, 2.0**20, width=32)
scales = st.one_of(st.integers(-64, 64).map(lambda frac: (frac, None)), steps.map(lambda step: (None, step)))


def input_code(x, fmt):
    """(4) in rationals: float32(1/scale) is the only float."""
    r = Fraction(float(np.float32(1.0 / fmt.scale)))
    return (Fraction(float(x)) * r + Fraction(1, 2)).__floor__()


@given(scales, st.integers(2, 16), st.integers(-40000, 40000), st.sampled_from([0.0, 0.5, -0.5]), st.integers(-3, 3))
def test_the_input_rule_at_ties_and_beside_them(scale, bits, code, offset, ulps):
    """Values that fall on, just below and just above a tie or an integer."""
    fmt = Format(bits, frac=scale[0], step=scale[1], product=True)
    x = np.float32((code + offset) * fmt.scale)
    for _ in range(abs(ulps)):
        x = np.nextafter(x, np.float32(np.inf if ulps > 0 else -np.inf))
    codes, saturated = encode_input(np.array([x], np.float32), fmt)
    exact = input_code(x, fmt)
    assert codes.tolist() == [min(max(exact, fmt.lo), fmt.hi)]
    assert saturated == (not fmt.lo <= exact <= fmt.hi)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), scales)
def test_the_input_rule_for_any_float32(x, scale):
    fmt = Format(16, frac=scale[0], step=scale[1], product=True)
    codes, saturated = encode_input(np.array([x], np.float32), fmt)
    exact = input_code(x, fmt)
    assert codes.tolist() == [min(max(exact, fmt.lo), fmt.hi)]
    assert saturated == (not fmt.lo <= exact <= fmt.hi)


@given(scales, st.integers(-32768, 32767))
def test_decode_is_one_product_in_double(scale, code):
    fmt = Format(16, frac=scale[0], step=scale[1], product=True)
    wanted = np.float32(float(code) * float(np.float32(fmt.scale)))
    assert decode(np.array([code]), fmt).tolist() == [wanted]


@pytest.mark.parametrize("text", [fixed(8, 3), integer(8, 0.5), integer(5, 0.5, signed=False)])
def test_formats_print_as_they_are_written(text):
    assert str(text) in ("fixed(8,3)", "int(8, 0.5)", "uint(5, 0.5)")
