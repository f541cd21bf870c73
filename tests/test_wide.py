"""Codes whose 8 bits do not hold their products get 16: measured on products, over all frames and of the median frame."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

import rindle
from rindle import RindleError, RindleWarning
from rindle.nn.calibrate.plan import replan
from rindle.nn.calibrate.wide import ELEMENTS, FRAMES, Sample
from rindle.nn.quantize import calibrated
from rindle.scheme.rules import parse_rule

SPREAD = torch.tensor([33, 4, 2.5, 2, 1.6, 1.2, 1.1, 1, 0.95, 0.87])


class Net(nn.Module):
    def __init__(self, features: int = 10):
        super().__init__()
        self.rnn, self.fc = nn.GRU(features, 24, batch_first=True), nn.Linear(24, 5)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


def spread_net() -> tuple[nn.Module, torch.Tensor]:
    """A network of which every feature matters, and features of which one is far larger than the others."""
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        net.rnn.weight_ih_l0 *= 2 / SPREAD
    return net, torch.randn(24, 20, 10) * SPREAD


def loud_net() -> tuple[nn.Module, torch.Tensor]:
    """Quiet frames and a few that are a thousand times as loud, which a network that saturates hears alike."""
    torch.manual_seed(1)
    net = Net().eval()
    with torch.no_grad():
        net.rnn.weight_ih_l0 *= 3
    x = torch.randn(24, 40, 10)
    return net, torch.where(torch.rand(24, 40, 1) < 0.02, 1000 * x, x)


def decibels(net, model, x) -> float:
    with torch.no_grad():
        wanted = net(x).numpy()
    return float(10 * np.log10((wanted**2).mean() / ((wanted - model.run(x.numpy())) ** 2).mean()))


def bits(model) -> dict[str, int]:
    return {
        f"{node.name}/{code}": node.layer.formats[code].bits
        for node in model.artifact.graph.programs
        for code in node.layer.program.codes
    }


@pytest.mark.parametrize("made, better", [(spread_net, 6), (loud_net, 10)])
@pytest.mark.parametrize("scheme", ["int8", "w4a8"])
def test_a_code_that_does_not_hold_its_products_gets_16_bits_and_no_other(made, better, scheme, caplog):
    net, x = made()
    caplog.set_level(logging.INFO, "rindle")
    model = rindle.quantize(net, scheme, x)
    assert bits(model) == {"rnn.l0/x.code": 16, "rnn.l0/h.code": 8, "fc/x.code": 8}
    with pytest.warns(RindleWarning, match=r"rnn.l0/x.code: 8 bits hold its products at \d+\.\d dB"):
        strict = rindle.quantize(net, f"{scheme} strict", x)
    assert set(bits(strict).values()) == {8}
    if scheme == "int8":
        assert decibels(net, model, x) > decibels(net, strict, x) + better
    assert "it gets 'fixed16 max(1.25)'" in caplog.text
    assert set(model.artifact.provenance["widened"]) == {"rnn.l0/x.code"}


def test_loud_frames_show_in_the_median_frame_alone():
    net, x = loud_net()
    (held,) = [one for one in calibrated(net, "int8", x).plan.held if one.rule]
    assert held.products > 30 > held.median


def test_a_rule_of_the_users_own_stays():
    net, x = spread_net()
    model = rindle.quantize(net, "int8", x, {"rnn.l0/code.*.x": "int8 mmse"})
    assert set(bits(model).values()) == {8} and "widened" not in model.artifact.provenance


def test_a_quiet_model_of_equal_features_keeps_its_codes():
    torch.manual_seed(0)
    model = rindle.quantize(Net().eval(), "int8", torch.randn(24, 20, 10))
    assert set(bits(model).values()) == {8}


def test_the_files_own_overrides_make_the_same_choice_without_measuring():
    net, x = spread_net()
    model = rindle.quantize(net, "int8", x)
    again = calibrated(net, "int8 strict", x, model.artifact.provenance["overrides"])
    assert again.model().id == model.id


def test_prepare_chooses_as_quantize_does():
    net, x = spread_net()
    whole, prepared = rindle.quantize(net, "int8", x), rindle.prepare(net, "int8", x)
    converted = rindle.convert(prepared)
    assert bits(converted) == bits(whole)
    assert converted.artifact.provenance["widened"].keys() == whole.artifact.provenance["widened"].keys()
    assert bits(rindle.convert(prepared, whole=False).rnn.model)["rnn.l0/x.code"] == 16


def test_a_wide_code_leaves_room_in_32_bit_accumulators():
    torch.manual_seed(0)
    net, scale = Net(2000).eval(), torch.ones(2000)
    scale[0] = 60
    with torch.no_grad():
        net.rnn.weight_ih_l0.copy_((torch.rand(72, 2000) < 0.5) * 0.02 - 0.01)
        net.rnn.weight_ih_l0 /= scale.clamp_max(2)
    x = torch.randn(4, 10, 2000) * scale
    model = rindle.quantize(net, "int8", x)
    layer = model.artifact.graph.program("rnn.l0").layer
    products = [
        product
        for op in layer.program.affines
        for term, product in zip(op.terms, layer.constants[op.out[0]].products)
        if term.code == "x.code"
    ]
    code = layer.formats["x.code"]
    assert 12 <= code.bits < 16
    assert max(np.abs(product.weight.astype(np.int64)).sum(1).max() for product in products) * code.hi < 2**31


def test_a_sample_is_evenly_spread_and_bounded():
    sample, n = Sample(), 10 * FRAMES + 7
    for start in range(0, n, 999):
        sample.add(torch.arange(start, min(start + 999, n))[:, None])
    kept = sample.values()[:, 0]
    assert FRAMES // 2 <= len(kept) <= FRAMES and len(set(kept.diff().tolist())) == 1 and kept[0] == 0
    wide = Sample()
    for _ in range(4):
        wide.add(torch.zeros(3, ELEMENTS // 2))
    assert wide.kept <= 2


def test_a_calibration_that_kept_no_frames_says_so():
    net, x = spread_net()
    plan = calibrated(net, "fixed16", x).plan
    with pytest.raises(RindleError, match="kept no frames for it; calibrate with that rule, or leave the word out"):
        replan(plan, {("fc", "code.y.x"): parse_rule("int8 mmse wide")})
