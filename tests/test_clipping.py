"""ACIQ, minimum KL divergence, and the median over calibration sequences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import FEATURES, HIDDEN, Only, TorchModel, codes_to, quantized, recurrent, sequences

import rindle
from rindle import RindleError, RindleWarning
from rindle.scheme.quantizers import QUANTIZERS, aciq, kl
from rindle.scheme.rules import parse_rule

# bits: α/σ of a normal, α/b of a Laplace distribution, as they are in use (Rezk et al. 2022)
PUBLISHED = {
    2: (1.478, 2.332),
    3: (1.805, 3.045),
    4: (2.192, 4.004),
    5: (2.577, 5.083),
    6: (2.945, 6.232),
    7: (3.291, 7.427),
    8: (3.617, 8.653),
}


@pytest.mark.parametrize("bits", PUBLISHED)
def test_aciq_has_the_published_limits(bits):
    assert (round(aciq.normal_limit(bits - 1), 3), round(aciq.laplace_limit(bits - 1), 3)) == PUBLISHED[bits]


@pytest.mark.parametrize("bits", range(1, 16))
def test_aciq_limits_are_where_the_expected_noise_is_least(bits):
    """Both noises integrated numerically, on a grid of limits."""
    limits, x = np.linspace(0.5, 25, 500), np.linspace(0, 60, 6_000)
    quantization = limits**2 * (1 - 2.0**-bits) / (3 * 4.0**bits)
    for density, found in (
        (np.exp(-x), aciq.laplace_limit(bits)),
        (np.exp(-(x**2) / 2) * math.sqrt(2 / math.pi), aciq.normal_limit(bits)),
    ):
        clipping = [np.trapezoid(np.maximum(x - limit, 0) ** 2 * density, x) for limit in limits]
        best = limits[np.argmin(clipping + quantization)]
        assert found == pytest.approx(best, abs=0.06)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("which", ["normal", "laplace"])
def test_aciq_tells_the_distributions_apart(bits, which):
    draw = getattr(np.random.default_rng(bits), which)
    values = np.abs(3.0 * draw(size=(2, 40_000)))
    hi = 2 ** (bits - 1) - 1
    limit = PUBLISHED[bits][which == "laplace"] * 3.0
    np.testing.assert_allclose(aciq.step(values, None, codes_to(hi)) * hi, limit, rtol=0.03)


def plain_divergence(counts, cut, levels):
    """The definition, bin by bin."""
    p = counts[:cut].astype(float).copy()
    q, kept = np.zeros(cut), counts[:cut]
    p[-1] += counts[cut:].sum()
    for level in range(levels):
        span = slice(level * cut // levels, (level + 1) * cut // levels)
        filled = kept[span] > 0
        if filled.any():
            q[span][filled] = kept[span].sum() / filled.sum()
    if not q.sum() or (q[p > 0] == 0).any():
        return math.inf
    p, q = p / p.sum(), q / q.sum()
    return sum(a * math.log(a / b) for a, b in zip(p, q) if a > 0)


@given(st.integers(0, 2**32), st.sampled_from([2, 3, 8, 128]), st.floats(0.02, 1), st.integers(1, 6))
def test_the_divergence_is_its_definition(seed, levels, share, rows):
    rng = np.random.default_rng(seed)
    cut = max(levels, round(share * 400))
    counts = rng.geometric(0.02, (rows, 400)) * (rng.random((rows, 400)) < rng.choice([0.03, 0.4, 1.0], (rows, 1)))
    found = kl.divergence(counts.astype(float), cut, levels)
    for row, one in zip(counts, found):
        wanted = plain_divergence(row, cut, levels) if row.sum() else math.inf
        assert one == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("hi", [7, 127])
def test_kl_takes_the_cut_of_the_least_divergence(hi):
    values = np.abs(np.random.default_rng(hi).laplace(size=20_000))
    counts, _ = np.histogram(values, kl.BINS, (0, values.max()))
    cuts = np.unique(np.linspace(hi + 1, kl.BINS, kl.CUTS).astype(int))
    best = min(cuts, key=lambda cut: plain_divergence(counts, cut, hi + 1))
    assert hi > 7 or best < kl.BINS
    step = kl.step(values[None], None, codes_to(hi))[0]
    assert step * hi == pytest.approx(best / kl.BINS * values.max())


@pytest.mark.parametrize("method", ["aciq", "kl"])
def test_outliers_are_clipped(method):
    values = np.abs(np.random.default_rng(0).normal(size=(1, 20_000)))
    values[0, 0] = 40.0
    assert QUANTIZERS[method].step(values, None, codes_to(127))[0] * 127 < 20


@pytest.mark.parametrize("method", ["aciq", "kl"])
def test_the_scale_of_the_data_is_the_scale_of_the_step(method):
    values = np.abs(np.random.default_rng(1).normal(size=(3, 500)))
    steps = QUANTIZERS[method].step(values, None, codes_to(7))
    np.testing.assert_allclose(QUANTIZERS[method].step(8 * values, None, codes_to(7)), 8 * steps)


# ------------------------------------------------------------------------------------------- median over sequences

RULES = {
    "*": "fixed16 mmse{word}",
    "weight.*": "int8 max",
    "code.*": "{kind}8 mmse{word}",
}


def rules(kind, word=""):
    return {pattern: text.format(kind=kind, word=word) for pattern, text in RULES.items()}


def steps_of(net, scheme, data):
    """(node, path) -> log2 of the scale, of every path with a format."""
    graph = rindle.quantize(net, scheme, data).artifact.graph
    return {
        (node.name, path): np.log2(fmt.scale) for node in graph.programs for path, fmt in node.layer.formats.items()
    }


def net(name="gru"):
    torch.manual_seed(0)
    return TorchModel(name).eval()


@pytest.mark.fast(1)
@pytest.mark.parametrize("kind", ["int", "fixed"])
@pytest.mark.parametrize("name", ["gru", "lstm", "ligru", "sru"])
def test_the_median_is_that_of_every_sequence_alone(name, kind):
    """However they come: batches of several, of one, of other lengths."""
    x = sequences(5, 20) * np.array([1, 2, 0.5, 100, 3], np.float32)[:, None, None]
    parts = [x[:2], x[2:3], x[3:, :11]]
    alone = [steps_of(net(name), rules(kind), row[None]) for part in parts for row in part]
    found = steps_of(net(name), rules(kind, " median"), parts)
    for key, one in found.items():
        assert one == pytest.approx(np.median([steps[key] for steps in alone]), abs=1e-6), key
    together = steps_of(net(name), rules(kind), parts)
    assert sum(found[key] != together[key] for key in found) > len(found) / 4


def test_of_an_even_number_of_powers_of_two_the_median_clips_less():
    x = sequences(1, 20) * np.array([1, 16], np.float32)[:, None, None]
    alone = [steps_of(net(), rules("fixed"), row[None]) for row in x]
    found = steps_of(net(), rules("fixed", " median"), x)
    assert found == {key: max(one[key] for one in alone) for key in found}
    assert alone[0] != alone[1]


@pytest.mark.fast(0)
def test_sequences_of_zeros_do_not_count():
    x = sequences(2)
    zeros = np.zeros((5, 20, FEATURES), np.float32)
    scheme = {
        "*": "fixed16 max",
        "weight.*": "int8 max",
        "first/code.*": "int8 mmse median",
        "[rl]*/code.*": "int8 mmse",
    }
    first = steps_of(net(), scheme, x)["first", "x.code"]
    assert steps_of(net(), scheme, np.concatenate([x, zeros]))["first", "x.code"] == first
    with pytest.warns(RindleWarning, match="first/x is 0 throughout"):
        rindle.quantize(net(), scheme, zeros)


def test_prepared_models_take_the_median_too():
    """Rows of a packed sequence end at different times."""
    model = Only(recurrent("gru_reset_before", FEATURES, HIDDEN, batch_first=True)).eval()
    x = sequences(4, 12) * np.array([1, 30, 1, 1], np.float32)[:, None, None]
    found = {}
    for word in ("", " median"):
        prepared = rindle.prepare(model, rules("int", word), torch.from_numpy(x))
        layer = rindle.convert(prepared).artifact.graph.node("rnn.l0").layer
        wanted = rindle.quantize(model, rules("int", word), x).artifact.graph.node("rnn.l0").layer
        assert layer.formats == wanted.formats
        found[word] = layer.formats
    assert found[""] != found[" median"]


def test_packed_rows_are_sequences_of_their_own_length():
    class Packed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.GRU(FEATURES, HIDDEN, batch_first=True)

        def forward(self, x):
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, [12, 7, 5], batch_first=True)
            return self.rnn(packed)[0].data

    torch.manual_seed(0)
    model, x = Packed().eval(), sequences(3, 12) * np.array([1, 8, 2], np.float32)[:, None, None]
    prepared = rindle.prepare(model, rules("int", " median"), torch.from_numpy(x))
    layer = rindle.convert(prepared, whole=False).rnn.model.artifact.graph.node("rnn.l0").layer
    rows = [x[0:1], x[1:2, :7], x[2:3, :5]]
    wanted = rindle.quantize(Only(model.rnn), rules("int", " median"), rows).artifact.graph.node("rnn.l0").layer
    assert layer.formats == wanted.formats


def test_a_median_needs_sequences_and_something_to_choose():
    with pytest.raises(RindleError, match="'median' stands at rules of code and element paths"):
        rindle.quantize(net(), {"*": "fixed16 max", "weight.*": "int8 max median", "code.*": "int8 max"}, sequences())
    with pytest.raises(RindleError, match="nothing of given fraction bits is calibrated"):
        parse_rule("fixed(16,11) median")
    assert quantized("gru", "int8").run(sequences()).shape == (8, 20, 3)
