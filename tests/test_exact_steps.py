"""Products of far-apart precision in one affine, docs/numerics.md (8c)."""

import numpy as np
import pytest
import torch
from support import FEATURES, HIDDEN, Only, assert_agree, sequences

import rindle
from rindle import RindleError, RindleWarning
from rindle.nn.conversion.shifts import choose_shift

MIXED = {  # (weights, code) of the whole layer, and of the one product beside them
    "2 x 8, 16 x 16": (("int2 mmse", "int8 max"), ("fixed16 max(4)", "fixed16 max(1.25)")),
    "2 x 2, 16 x 16": (("int2 mmse", "int2 max"), ("fixed16 max", "fixed16 max")),
    "2 x 2, 8 x 8": (("int2 mmse", "int2 max"), ("int8 max", "int8 max")),
    "4 x 4, 16 x 16": (("int4 mmse", "int4 max"), ("fixed16 max(4)", "fixed16 max(1.25)")),
    "12 x 12, 2 x 2": (("int12 max", "int12 max"), ("int2 mmse", "int2 max")),
}


def layer(mixed: str, scale: float = 1.0):
    """An LSTM whose g.h has other formats. Returns its layer, and block -> its real weights."""
    torch.manual_seed(0)
    rnn = torch.nn.LSTM(FEATURES, HIDDEN, batch_first=True)
    with torch.no_grad():
        rnn.weight_hh_l0.mul_(scale)
    (weights, codes), (weight, code) = MIXED[mixed]
    scheme = {"*": "fixed16 max(1.25)", "weight.*": weights, "code.*": codes, "weight.g.h": weight, "code.g.h": code}
    artifact = rindle.quantize(Only(rnn), scheme, sequences()).artifact
    gates = dict(zip("ifgo", range(4)))
    real = {
        f"{gate}.{source}": matrix[k * HIDDEN : (k + 1) * HIDDEN].detach().numpy()
        for source, matrix in (("x", rnn.weight_ih_l0), ("h", rnn.weight_hh_l0))
        for gate, k in gates.items()
    }
    return artifact, real


@pytest.mark.fast(4)
@pytest.mark.filterwarnings("ignore::rindle.RindleWarning")
@pytest.mark.parametrize("mixed", MIXED)
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_no_product_vanishes_beside_a_coarser_one(mixed, scale):
    """What the integers compute with, M·code·2^-s in real units, are the weights, to within their bits."""
    artifact, real = layer(mixed, scale)
    found = artifact.graph.node("rnn.l0").layer
    (op,) = found.program.affines
    constant = found.constants[op.out[0]]
    for term, product in zip(op.terms, constant.products):
        wanted = np.concatenate([real[f"{gate}.{term.source}"] for gate in term.gates])
        y = np.repeat([found.formats[gate].scale for gate in term.gates], HIDDEN)[:, None]
        effective = (
            product.weight * product.multiplier[:, None] * 2.0**-constant.shift * y / found.formats[term.code].scale
        )
        error = np.sqrt(((effective - wanted) ** 2).sum() / (wanted**2).sum())
        assert error < {2: 0.7}.get(product.format.bits, 0.2), (term.key, error)
    assert_agree(artifact, sequences())


def test_a_step_that_grows_is_warned_of():
    with pytest.warns(
        RindleWarning, match=r"rnn.l0/weight.g.h: its steps grow up to .* share a shift with the coarser"
    ):
        layer("2 x 2, 16 x 16")


def test_a_small_term_that_would_vanish_is_too_coarse_even_if_it_is_not_the_leading_one():
    ratios, reaches = np.array([[60.0], [2.0**-20 * 1.1]]), np.array([[20.0], [2.0**31]])
    with pytest.raises(RindleError, match="n0/y: in row 0 the multiplier 0 is too coarse"):
        choose_shift(ratios, reaches, np.zeros(1), "n0/y")
    ratios[1] = 2.0**-20
    reaches[1] = 2.0**10  # whatever it is, it is less than one output code
    multipliers, _, shift = choose_shift(ratios, reaches, np.zeros(1), "n0/y")
    assert multipliers[0, 0] == 60 * 2**shift


@pytest.mark.filterwarnings("ignore::rindle.RindleWarning")
def test_given_codes_are_refused_instead():
    """GPTQ's codes belong to their steps."""
    torch.manual_seed(0)
    rnn = torch.nn.LSTM(FEATURES, HIDDEN, batch_first=True)
    with torch.no_grad():
        rnn.weight_hh_l0.mul_(0.1)
    scheme = {"*": "fixed16 max(1.25)", "weight.*": "int2 mmse gptq", "code.*": "int2 max"}
    scheme |= {"weight.g.h": "int12 max gptq", "code.g.h": "int12 max"}
    with pytest.raises(RindleError, match="too coarse"):
        rindle.quantize(Only(rnn), scheme, sequences())
