"""Kernels to the last bit: models whose outputs are the accumulators themselves, so that no rounding hides an error."""

import numpy as np
import pytest
from support import assert_agree

from rindle import fixed
from rindle.cells import linear
from rindle.engines.golden import with_golden
from rindle.file.artifact import Artifact, Golden, Layer
from rindle.numbers.codes import Affine, Product, Rescale
from rindle.program.graph import Graph
from rindle.program.nodes import INPUT, ProgramNode

SHAPES = [(5, 3), (8, 16), (40, 33), (517, 401), (1201, 129)]  # columns, rows: the last two are stored otherwise


def product(weight, weight_bits, code_bits, shift, theta) -> Artifact:
    """y = sat(round(W·x, shift)), where W·x is of the held code."""
    rows, columns = weight.shape
    program = linear.program.with_sizes(I=columns, O=rows)
    formats = {"x": fixed(16, 0), "x.code": fixed(code_bits, 0, product=True), "y": fixed(16, 0)}
    term = Product(weight, fixed(weight_bits, 0, product=True), np.ones(rows, np.int64))
    constants = {"x.code": Rescale(1, 0), "y": Affine((term,), np.zeros(rows, np.int64), shift)}
    layer = Layer(program, formats, constants, {}, {} if theta is None else {"x.code": theta})
    graph = Graph(columns, (ProgramNode("n0", (INPUT,), layer),), "n0")
    artifact = Artifact(graph, fixed(16, 0), Golden(None, None, None), {})
    return with_golden(artifact, np.zeros((1, 1, columns), np.int16), np.array([1]))


def frames(rng, columns, top, shares) -> np.ndarray:
    """[2, T, columns]: in frame t a share of the elements jumps, mostly from one end of the range to the other."""
    x = np.zeros((2, len(shares), columns), np.int16)
    for t, share in enumerate(shares):
        x[:, t] = x[:, t - 1] if t else 0
        moves = rng.random((2, columns)) < share
        x[:, t][moves] = rng.choice([-top, top, -top, top, 1, 0], moves.sum())
    return x


SHARES = (1.0, 0.1, 0.0, 0.3, 0.9, 0.02, 0.2)


@pytest.mark.parametrize("columns, rows", SHAPES)
@pytest.mark.parametrize("code_bits", [7, 8, 16])
@pytest.mark.parametrize("weight_bits", [2, 8, 16])
@pytest.mark.parametrize("theta", [None, 0, 5])
def test_accumulators_are_exact(columns, rows, code_bits, weight_bits, theta):
    """Each row has one weight of 1 or -1 on what moves, and the largest ones on what rests at 0: sums stay small, but
    (for wide codes) must be kept in 64 bits, because of what the file says that they could be.
    """
    rng = np.random.default_rng(columns + code_bits + weight_bits)
    top = 2 ** (weight_bits - 1) - 1
    resting = rng.random(columns) < 0.5
    resting[rng.integers(columns)] = False
    weight = np.where(resting, rng.choice([-top, top], (rows, columns)), 0).astype(np.int64)
    weight[np.arange(rows), rng.choice(np.flatnonzero(~resting), rows)] = rng.choice([-1, 1], rows)
    x = frames(rng, columns, 2 ** (code_bits - 1) - 1, SHARES)
    x[:, :, resting] = 0
    found = assert_agree(product(weight, weight_bits, code_bits, 0, theta), x, np.array([7, 5]))
    if not theta:
        np.testing.assert_array_equal(found.output[0], x[0].astype(np.int64) @ weight.T)


@pytest.mark.parametrize("columns, rows", SHAPES)
@pytest.mark.parametrize("code_bits", [8, 16])
@pytest.mark.parametrize("weight_bits", [2, 8, 9, 16])
@pytest.mark.parametrize("theta", [None, 0])
def test_the_largest_sums_do_not_wrap(columns, rows, code_bits, weight_bits, theta):
    """Rows and frames of one sign, from one end to the other: every partial sum is as large as it can be."""
    rng = np.random.default_rng(0)
    top, most = 2 ** (weight_bits - 1) - 1, 2 ** (code_bits - 1) - 1
    weight = np.where(rng.random((rows, 1)) < 0.5, top, -top) * np.ones((1, columns), np.int64)
    weight[::3, ::2] = 0
    x = np.array([most, -most, -most, most, 0, most], np.int16)[None, :, None].repeat(columns, 2)
    x[:, -1, columns // 3 :] = 0  # few change
    shift = max(0, int(top * most * columns).bit_length() - 14)
    found = assert_agree(product(weight.astype(np.int64), weight_bits, code_bits, shift, theta), x)
    sums = x[0].astype(np.int64) @ weight.T.astype(np.int64)
    np.testing.assert_array_equal(found.output[0], (sums + (2**shift >> 1)) >> shift)
