"""Level sets of weights: the nearest level, the best scale, rules, and every engine, export, and kind of rounding over each set."""

import json
import re

import numpy as np
import pytest
import torch
from exported import assert_exact, with_extremes
from random_models import random_layer, wild_layer
from support import FEATURES, TorchModel, assert_agree, assert_naive, extreme_codes, quantized, sequences
from test_laws import elman, some_thresholds

import rindle
from rindle import RindleError, RindleWarning, cli, fixed
from rindle.engines.golden import with_golden, with_thresholds
from rindle.file.artifact import Artifact, Golden
from rindle.file.container import dumps, loads
from rindle.nn.conversion.rounding import Rounding
from rindle.nn.lsq import WeightSteps
from rindle.numbers.formats import Format, encode, pack_weight, unpack_weight, weight_format
from rindle.numbers.levels import LEVELS, integers
from rindle.program.graph import Graph
from rindle.program.nodes import INPUT, ProgramNode
from rindle.program.products import terms_of
from rindle.scheme.quantizers import QUANTIZERS
from rindle.scheme.rules import parse_rule

# what the sets are, once more
WANTED = {"binary": [-1, 1], "uniform2": [-3, -1, 1, 3]}


def scheme_of(name: str, words: str = "mmse") -> dict:
    return {"*": "fixed16 max(1.25)", "weight.*": f"{name} {words}", "code.*": "int8 mmse"}


@pytest.fixture(params=LEVELS)
def levels(request):
    return LEVELS[request.param]


def test_a_stored_code_is_worth_its_level(levels):
    wanted = WANTED[levels.name]
    np.testing.assert_array_equal(levels.values(np.arange(len(wanted))), wanted)
    assert (levels.lo, levels.hi, len(wanted)) == (wanted[0], wanted[-1], 2**levels.bits)
    assert levels.has_zero == (0 in wanted)
    np.testing.assert_array_equal(levels.magnitudes, sorted({abs(one) for one in wanted}))
    u = np.linspace(-5, 5, 1001)
    nearest = levels.nearest(u)
    assert set(nearest) == set(wanted)
    np.testing.assert_allclose(np.abs(nearest - u), np.abs(np.array(wanted) - u[:, None]).min(1), atol=1e-12)


@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_integers_are_a_level_set_whose_codes_are_twos_complement(bits):
    levels = integers(bits)
    assert (levels.lo, levels.hi) == (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1) and levels.has_zero
    stored = levels.stored(np.array([levels.lo, -1, 0, 1, levels.hi]))
    np.testing.assert_array_equal(stored, np.array([levels.lo, -1, 0, 1, levels.hi]) % 2**bits)
    np.testing.assert_array_equal(levels.values(stored), [levels.lo, -1, 0, 1, levels.hi])


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 33])
def test_packing_is_the_inverse_of_unpacking(levels, columns):
    codes = np.random.default_rng(0).choice(WANTED[levels.name], (5, columns))
    packed = pack_weight(codes, weight_format(levels.bits, levels.name))
    assert packed.shape == (5, -(-columns * levels.bits // 8))
    np.testing.assert_array_equal(unpack_weight(packed, weight_format(levels.bits, levels.name), columns), codes)


def test_a_format_of_a_level_set_is_that_of_a_weight(levels):
    fmt = weight_format(levels.bits, levels.name, 0.25)
    assert (fmt.lo, fmt.hi, fmt.scale, str(fmt)) == (levels.lo, levels.hi, 0.25, f"{levels.name}(0.25)")
    for wrong in (
        {"bits": 8, "step": 1.0, "product": True},
        {"bits": levels.bits, "frac": 3, "product": True},
        {"bits": levels.bits, "step": 1.0},
        {"bits": levels.bits, "step": 1.0, "product": True, "signed": False},
    ):
        with pytest.raises(RindleError, match=levels.name):
            Format(levels=levels.name, **wrong)
    with pytest.raises(RindleError, match="no level set 'nonary'"):
        Format(2, step=1.0, product=True, levels="nonary")


# ------------------------------------------------------------------------------------------------------ the scale


def rows():
    rng = np.random.default_rng(1)
    yield np.abs(rng.normal(size=(4, 200)))
    yield np.abs(rng.standard_t(1.5, size=(4, 200)))  # a few large ones
    yield np.where(rng.random((4, 300)) < 0.95, 0, np.abs(rng.normal(size=(4, 300))))  # many zeros
    yield np.abs(rng.normal(size=(4, 1)))
    yield np.ones((2, 17))


def error(values, step, levels):
    return ((levels.nearest(values / step) * step - values) ** 2).sum()


@pytest.mark.parametrize("values", rows())
def test_mmse_is_the_best_scale_of_all(values, levels):
    for row, step in zip(values, QUANTIZERS["mmse"].step(values, None, levels)):
        fine = min(error(row, one, levels) for one in np.geomspace(1e-4, 2, 4000) * row.max())
        assert error(row, step, levels) <= fine * (1 + 1e-9) + 1e-12


def test_mmse_of_a_row_of_zeros_is_0_and_counts_count(levels):
    values, counts = np.array([[0.0, 0.0, 0.0], [0.3, 1.0, 2.0]]), np.array([3.0, 1.0, 2.0])
    zero, step = QUANTIZERS["mmse"].step(values, counts, levels)
    repeated = np.repeat(values[1:], counts.astype(int), 1)
    assert zero == 0 and step == pytest.approx(QUANTIZERS["mmse"].step(repeated, None, levels)[0])


def test_max_puts_the_largest_weight_on_the_largest_level(levels):
    values = np.abs(np.random.default_rng(0).normal(size=(5, 40)))
    np.testing.assert_allclose(QUANTIZERS["max"].step(values, None, levels) * max(WANTED[levels.name]), values.max(1))


# --------------------------------------------------------------------------------------------------------- rules


def test_rules_are_read_and_printed(levels):
    for words in ("mmse", "max", "max(0.5)", "percentile(99)", "mmse gptq", "mmse corrected learned"):
        rule = parse_rule(f"{levels.name} {words}")
        assert (rule.levels, rule.bits, str(rule)) == (levels.name, levels.bits, f"{levels.name} {words}")
    assert parse_rule(levels.name).method == "max"


def test_rules_that_make_no_sense_are_refused_by_name(levels):
    name = levels.name
    for text, words in {
        f"{name}({levels.bits},3)": f'{name} has a scale per row and no fraction bits; write "{name} mmse"',
        f"{name} kl": f'kl is for codes with a 0, which {name} lacks; write "{name} mmse"',
        f"{name} aciq": f'aciq is for codes with a 0, which {name} lacks; write "{name} mmse"',
        f"{name}8 mmse": "write for example",
    }.items():
        with pytest.raises(RindleError, match=re.escape(words)):
            parse_rule(text)
    for key in ("code.*", "h"):
        with pytest.raises(
            RindleError, match=f"is {name} mmse; a level set is for weights alone, so give it an int or"
        ):
            rindle.quantize(torch.nn.LSTM(3, 4), "int8", sequences(2, 4)[..., :3], {key: f"{name} mmse"})


# ------------------------------------------------------------------------------------------------------- engines


@pytest.mark.parametrize("cell", ["lstm", "sru", "convlstm"])
def test_engines_agree(cell, levels):
    torch.manual_seed(0)
    x, lengths = sequences(rows=5, time=8, seed=1), np.array([5, 8, 1, 8, 3])
    artifact = rindle.quantize(TorchModel(cell).eval(), scheme_of(levels.name), sequences()).artifact
    for one in (artifact, with_thresholds(artifact, some_thresholds(artifact, 0.1))):
        assert_agree(one, 50 * x, lengths)
        assert_naive(one, extreme_codes(np.random.default_rng(0), one.input_format, (2, 4, FEATURES)), np.array([4, 2]))
        assert dumps(loads(dumps(one))) == dumps(one)
    assert (artifact.version, artifact.needs) == (4, ("levels",))
    for one in terms_of(artifact.graph):
        assert one.product.format.levels == levels.name and set(np.unique(one.product.weight)) == set(
            WANTED[levels.name]
        )
        assert one.bits == one.product.weight.size * levels.bits


@pytest.mark.parametrize("code_bits", [8, 16])
@pytest.mark.parametrize("columns, rows", [(517, 401), (33000, 5)])
def test_engines_agree_on_large_matrices(columns, rows, code_bits, levels, monkeypatch):
    """Kernels store them otherwise; beyond 32,768 columns they leave them to the portable one."""
    monkeypatch.setattr("random_models._code", lambda rng, base: fixed(code_bits, base - 16 + code_bits, product=True))
    monkeypatch.setattr("random_models.Rule", lambda *_: parse_rule(levels.name))
    rng = np.random.default_rng(columns)
    layer = random_layer(rng, elman, {"I": columns, "H": rows}, [fixed(16, 12)], "n0")
    x = extreme_codes(rng, fixed(16, 12), (2, 4, columns))
    same = rng.random(columns) < 0.9
    x[:, 1, same] = x[:, 0, same]
    for one in (layer, wild_layer(rng, layer)):
        graph = Graph(columns, (ProgramNode("n0", (INPUT,), one),), "n0")
        artifact = with_golden(Artifact(graph, fixed(16, 12), Golden(None, None, None), {}), x[:1, :1], np.array([1]))
        assert_agree(artifact, x, np.array([4, 2]))
        assert_agree(with_thresholds(artifact, {"n0/x": 0, "n0/h": 3}), x, np.array([4, 2]))


def test_a_row_of_zeros_gives_its_bias_alone(levels):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(FEATURES, 6)).eval()
    model[0].weight.data[2] = 0
    x = sequences(4, 5)
    with pytest.warns(RindleWarning, match="1 rows of zeros, the first is 2"):
        artifact = rindle.quantize(model, scheme_of(levels.name), x).artifact
    (term,) = terms_of(artifact.graph)
    assert (term.product.multiplier > 0).tolist() == [True, True, False, True, True, True]
    assert set(np.unique(term.product.weight[2])) <= set(WANTED[levels.name])
    y = rindle.Model(artifact).run(50 * x)
    assert np.abs(y[..., 2] - model[0].bias[2].item()).max() < 1e-3
    assert_agree(artifact, 50 * x)


def test_the_old_formats_are_written_as_before():
    artifact = quantized("lstm", "int8", "all").artifact
    assert (artifact.version, artifact.needs) == (1, ())


# ------------------------------------------------------------------------------------------- rounding and training


def outputs_of(model, x):
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("words", ["mmse gptq", "mmse gptq actorder corrected", "mmse learned"])
def test_rounding_chooses_levels_and_loses_less(words, levels):
    torch.manual_seed(0)
    model, x = TorchModel("gru").eval(), sequences(16, 12)
    wanted, drift = outputs_of(model, x), {}
    for one in ("mmse", words):
        artifact = rindle.quantize(model, scheme_of(levels.name, one), x, rounding=Rounding(steps=60)).artifact
        for term in terms_of(artifact.graph):
            assert set(np.unique(term.product.weight)) <= set(WANTED[levels.name])
        drift[one] = float(((rindle.Model(artifact).run(x) - wanted) ** 2).mean())
    assert drift[words] < 0.9 * drift["mmse"]


def lsq_by_hand(v, s, wanted):
    """Value, and the gradients to v and to s, of LSQ on these levels."""
    code = min(wanted, key=lambda one: (abs(one - v / s), -one))
    inside = wanted[0] < v / s < wanted[-1]
    return code * s, float(inside), code - v / s if inside else code


def test_lsq_on_levels(levels):
    wanted = WANTED[levels.name]
    row = torch.linspace(-3.71, 3.73, 38).requires_grad_()
    steps = WeightSteps(np.array([0.7]), np.array([wanted[-1]]), np.array([1]), np.array([levels.alpha]))
    y = steps(row[None])
    y.sum().backward()
    by_hand = [lsq_by_hand(v, 0.7, wanted) for v in row.tolist()]
    np.testing.assert_allclose(y[0].detach(), [one[0] for one in by_hand], rtol=1e-6)
    np.testing.assert_array_equal(row.grad, [one[1] for one in by_hand])
    factor = 0.7 / np.sqrt(38 * wanted[-1])  # of the step, by its logarithm
    assert float(steps.rho.grad) == pytest.approx(sum(one[2] for one in by_hand) * factor, rel=1e-4)


@pytest.mark.parametrize("activations", [True, False])
def test_what_is_trained_is_what_is_converted(levels, activations, tmp_path):
    torch.manual_seed(0)
    x = sequences(8, 10)
    model = TorchModel("lstm")
    ready = rindle.prepare(model, scheme_of(levels.name), x if activations else None, activations=activations)
    target = torch.randn(8, 10, 3)
    optimizer = torch.optim.Adam(ready.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.mse_loss(ready(torch.from_numpy(x)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    moved = [m for m in ready.modules() if isinstance(m, WeightSteps) and m.rho.abs().max() > 1e-3]
    assert moved
    found = rindle.convert(ready, x).run(x)
    wanted = outputs_of(ready.eval(), x)
    assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)
    torch.save(ready.state_dict(), tmp_path / "state.pt")
    again = rindle.prepare(model, scheme_of(levels.name), x if activations else None, activations=activations)
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    np.testing.assert_array_equal(outputs_of(again.eval(), x), wanted)


# -------------------------------------------------------------------------------------------- export, and what is said


@pytest.mark.parametrize(("cell", "held", "code_bits"), [("lstm", True, 8), ("lstm", False, 16), ("convlstm", True, 8)])
def test_c_is_the_reference(cell, held, code_bits, levels, tmp_path):
    torch.manual_seed(0)
    overrides = {"code.*": f"int{code_bits} mmse"}
    artifact = rindle.quantize(TorchModel(cell).eval(), scheme_of(levels.name), sequences(), overrides).artifact
    artifact = with_thresholds(artifact, some_thresholds(artifact, 0.1)) if held else artifact
    assert_exact(with_extremes(artifact), tmp_path / "c")


def test_c_of_wide_sums_is_the_reference(levels, tmp_path, monkeypatch):
    """From 2^31 on, sums have 64 bits."""
    monkeypatch.setattr("random_models._code", lambda rng, base: fixed(16, base, product=True))
    monkeypatch.setattr("random_models.Rule", lambda *_: parse_rule(levels.name))
    rng, columns = np.random.default_rng(0), 66000 // levels.hi
    layer = random_layer(rng, elman, {"I": columns, "H": 9}, [fixed(16, 12)], "n0")
    graph = Graph(columns, (ProgramNode("n0", (INPUT,), layer),), "n0")
    artifact = Artifact(graph, fixed(16, 12), Golden(None, None, None), {})
    artifact = with_extremes(artifact, lengths=(3, 1))
    assert_exact(artifact, tmp_path / "c")
    assert "int64_t acc" in (tmp_path / "c/net.c").read_text()
    assert_exact(with_extremes(with_thresholds(artifact, {"n0/x": 3}), lengths=(3, 1)), tmp_path / "held")


def test_the_exported_weights_take_their_bits(levels, tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 32)
    artifact = rindle.quantize(model, scheme_of(levels.name), np.random.default_rng(0).normal(size=(4, 5, 64))).artifact
    assert rindle.export.c.to_c(artifact, tmp_path / "c").flash["weights"] == 64 * 32 * levels.bits // 8


def test_inspect_shows_the_set(levels, tmp_path, capsys, monkeypatch):
    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["rindle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code

    torch.manual_seed(0)
    rindle.save(rindle.quantize(TorchModel("lstm").eval(), scheme_of(levels.name), sequences()), tmp_path / "m.rindle")
    call("inspect", tmp_path / "m.rindle", "--json")
    product = json.loads(capsys.readouterr().out)["products"][0]
    assert (product["levels"], product["bits"]) == (levels.name, levels.bits)
    call("inspect", tmp_path / "m.rindle", "--hardware")
    assert f"{levels.name}, a scale per row" in capsys.readouterr().out


def test_values_are_codes_times_scale(levels):
    """Nothing but the scale is float: the nearest of the levels, one by one."""
    torch.manual_seed(0)
    model = torch.nn.Linear(FEATURES, 6)
    (term,) = terms_of(rindle.quantize(model, scheme_of(levels.name, "max"), sequences()).artifact.graph)
    weight = model.weight.detach().double().numpy()
    np.testing.assert_allclose(term.product.row_scales * max(WANTED[levels.name]), np.abs(weight).max(1), rtol=1e-6)
    u = weight / term.product.row_scales[:, None].astype(np.float64)
    np.testing.assert_array_equal(term.product.weight, encode(u, 1, levels.lo, levels.hi, levels.alpha))
