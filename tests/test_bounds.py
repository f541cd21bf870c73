"""Bounds are reached, and never passed: A and the sums of (8b), by brute force in Python's integers."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rindle import Format, RindleError, fixed, integer
from rindle.numbers import bounds
from rindle.numbers.codes import Affine, Product, Rescale
from rindle.program.program import Op, Term

CODES = [integer(8, 1.0), integer(2, 1.0), integer(7, 1.0, signed=False), fixed(16, 0), fixed(16, 0, product=True)]
LEVELS = {"int4": range(-7, 8), "ternary": (-1, 0, 1), "binary": (-1, 1), "uniform2": (-3, -1, 1, 3)}


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
@given(data=st.data(), code=st.sampled_from(CODES))
def test_an_accumulator_reaches_its_bound_and_passes_it_never(data, levels, code):
    """Of weights of any level set; the largest sum over all ends of the code's range, of which one is the worst."""
    columns = data.draw(st.integers(1, 5))
    row = data.draw(st.lists(st.sampled_from(list(levels)), min_size=columns, max_size=columns))
    (found,) = bounds.accumulators(np.array([row], np.int8), code).tolist()
    sums = [abs(sum(w * x for w, x in zip(row, xs))) for xs in product((code.lo, code.hi), repeat=columns)]
    assert max(sums) <= found
    if code.signed:
        # with -2^15 the worst sum would need 2^15, too
        short = sum(abs(w) for w in row) if code.lo != -code.hi else 0
        assert max(sums) >= found - short
    assert bounds.largest(code) == max(abs(code.lo), abs(code.hi))


def test_int8_levels_do_not_wrap():
    assert bounds.accumulators(np.array([[-128, 127]], np.int8), integer(8, 1.0)).tolist() == [255 * 127]


@given(
    st.lists(st.tuples(st.integers(0, 2**50), st.integers(0, 2**40), st.integers(0, 2)), min_size=1, max_size=4),
    st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3),
)
def test_sums_are_exact_however_large(terms, bias):
    """Also beyond 64 bits, where a file would have to be refused with the number."""
    arrays = [(slice(row, 3), np.full(3 - row, a), np.full(3 - row, m)) for a, m, row in terms]
    found = bounds.sums(arrays, np.array(bias))
    wanted = [abs(b) + sum(a * m for a, m, first in terms if row >= first) for row, b in enumerate(bias)]
    assert found.tolist() == wanted


def test_an_affine_sums_its_terms_where_they_add():
    """Two gates of 1 and 2 rows; the second term adds to the second gate alone."""
    op = Op("affine", ("u", "v"), (), (Term("code.a", "a", ("u", "v")), Term("code.b", "b", ("v",))), ("u", "v"))
    formats, sizes = {"code.a": integer(4, 1.0), "code.b": integer(8, 1.0)}, {"u": 1, "v": 2}
    one = Product(np.array([[1, -2], [3, 0], [0, 0]]), Format(4, step=1.0, product=True), np.array([5, 1, 9]))
    other = Product(np.array([[1], [-1]]), Format(2, step=1.0, product=True), np.array([2, 3]))
    affine = Affine((one, other), np.array([-10, 20, 30]), 3)
    assert op.spans(sizes) == (slice(0, 3), slice(1, 3))
    wanted = [10 + 3 * 7 * 5, 20 + 3 * 7 + 127 * 2, 30 + 127 * 3]
    assert bounds.affine(op, affine, formats, sizes).tolist() == wanted
    assert [bounds.rounding(s) for s in (0, 1, 3)] == [0, 1, 4]
    assert bounds.requantized(integer(8, 1.0), Rescale(3, 4)) == 127 * 3 + 8


def test_sums_below_2_to_the_52_pass_and_others_are_refused_with_the_number():
    bounds.check_sums(np.array([2**52 - 5, 1]), 3, "n0/y")
    with pytest.raises(RindleError, match=r"n0/y: Σ A·M \+ \|b\| \+ R reaches 4503599627370496 .2\^52.00."):
        bounds.check_sums(np.array([2**52 - 4, 1]), 3, "n0/y")
    with pytest.raises(RindleError, match=r"2\^80.00"):
        bounds.check_sums(np.array([2**80], object), 0, "n0/y")
