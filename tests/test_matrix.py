"""rindle._core.Matrix: the kernels' product of many vectors, against NumPy in int64."""

import numpy as np
import pytest

from rindle import _core

KERNELS = _core.kernels()


def draw(shape, most, dtype, seed):
    """Codes all over the range, with its ends."""
    generator = np.random.default_rng(seed)
    return generator.choice([-most, most, *range(-min(most, 7), min(most, 7) + 1)], shape).astype(dtype)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("code_bits", [2, 8, 9, 12])
def test_product_is_exact(kernel, code_bits):
    most = 2 ** (code_bits - 1) - 1
    for seed, (rows, columns, n) in enumerate([(1, 1, 1), (33, 65, 13), (64, 64, 3), (7, 512, 25), (130, 16, 0)]):
        weights = draw((rows, columns), 127, np.int8, seed)
        matrix = _core.Matrix(weights, code_bits, kernel)
        assert (matrix.rows, matrix.columns, matrix.code_bits) == (rows, columns, code_bits)
        for dtype in (np.int8, np.int16):
            x = draw((n, columns), min(most, np.iinfo(dtype).max), dtype, seed + 100)
            sums = matrix.multiply(x)
            assert sums.dtype == np.int32 and sums.shape == (n, rows)
            np.testing.assert_array_equal(sums, x.astype(np.int64) @ weights.astype(np.int64).T)


def test_refusals():
    weights = np.full((2, 600), 127, np.int8)
    with pytest.raises(ValueError, match=r"codes of 16 bits could leave int32.*at most 15 bits"):
        _core.Matrix(weights, 16)
    _core.Matrix(weights, 15)
    with pytest.raises(ValueError, match=r"weight \[1, 2\] is -128, must be -127..127"):
        _core.Matrix(np.array([[0, 0, 0], [0, 0, -128]], np.int8))
    with pytest.raises(ValueError, match="code_bits is 17"):
        _core.Matrix(weights, 17)
    with pytest.raises(ValueError, match="0 by 3"):
        _core.Matrix(np.zeros((0, 3), np.int8))
    with pytest.raises(ValueError, match="unknown; known are"):
        _core.Matrix(weights, 8, "fast")
    matrix = _core.Matrix(weights)
    with pytest.raises(ValueError, match=r"x\[1, 3\] is the code 128, must be -127..127 for codes of 8 bits"):
        x = np.zeros((2, 600), np.int16)
        x[1, 3] = 128
        matrix.multiply(x)
    with pytest.raises(ValueError, match="x has 599 columns, the matrix has 600"):
        matrix.multiply(np.zeros((2, 599), np.int8))
    with pytest.raises(TypeError):
        matrix.multiply(np.zeros((2, 600), np.float32))
    with pytest.raises(TypeError):
        _core.Matrix(weights.astype(np.int16))
