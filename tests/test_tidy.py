"""What a captured graph is made simpler by: padding and cutting that windows take up, scales that weights take up."""

import numpy as np
import pytest
import torch
from operations import CASES, STREAMED, Model, first, trained
from support import FEATURES, sequences
from torch import nn

import rindle
from rindle.nn.capture.frontend import capture
from rindle.program.nodes import Window

X = torch.from_numpy(sequences(3, 10))


def nodes(model):
    return {node.name: node for node in capture(model.eval(), X)[0].nodes}


@pytest.mark.parametrize("name", STREAMED)
def test_what_is_causal_streams(name):
    torch.manual_seed(0)
    model = rindle.quantize(CASES[name].eval(), "int8", sequences(6, 14))
    x, stream = sequences(2, 9, seed=3), model.stream()
    for row in x:
        stream.reset()
        np.testing.assert_array_equal([stream.step(frame) for frame in row], model.run(row))


def test_a_convolution_cut_at_the_end_has_no_frames_ahead():
    found = nodes(CASES["causal by cutting to the length"])
    assert list(found) == ["first", "conv.window", "conv", "forward.relu"]
    assert found["conv.window"].window == Window(3, 1, 1, 2, 0) and found["conv.window"].window.causal


def test_a_cut_stays_where_another_reads_the_frames_cut_off():
    model = Model(
        lambda m, x: (lambda y: torch.cat([y[:, :, :-2].mean(2), y.amax(2)], 1))(m.conv(x.transpose(1, 2))),
        conv=nn.Conv1d(FEATURES, 4, 3, padding=2),
    )
    found = nodes(model)
    assert found["conv.window"].window == Window(3, 1, 1, 2, 2)
    assert sum(node.kind == "window" for node in found.values()) == 2


def test_a_cut_does_not_pass_a_stride_or_a_state():
    strided = Model(
        lambda m, x: m.conv(x.transpose(1, 2))[:, :, :-1].transpose(1, 2),
        conv=nn.Conv1d(FEATURES, 4, 3, stride=2, padding=2),
    )
    assert nodes(strided)["conv.window"].window == Window(3, 1, 2, 2, 2)
    recurrent = Model(
        lambda m, x: m.rnn(m.conv(x.transpose(1, 2)).transpose(1, 2))[0][:, 2:],
        conv=nn.Conv1d(FEATURES, 4, 3, padding=2), rnn=nn.GRU(4, 3, batch_first=True),
    )  # fmt: skip
    assert nodes(recurrent)["conv.window"].window == Window(3, 1, 1, 2, 2)


def test_a_batch_norm_is_folded_into_what_it_follows_alone():
    assert list(nodes(CASES["batch norm after a Linear"])) == ["first"]
    assert list(nodes(CASES["batch norm in two dimensions"])) == ["first", "conv.window", "conv"]
    assert list(nodes(CASES["batch norm of what others read"])) == ["first", "norm", "forward.add"]
    after_relu = Model(
        lambda m, x: m.norm(m.first(x).relu().transpose(1, 2)).transpose(1, 2),
        first=first(),
        norm=trained(nn.BatchNorm1d(6)),
    )
    assert list(nodes(after_relu)) == ["first", "forward.relu", "norm"]


def test_a_scale_of_each_feature_is_not_of_a_channel():
    model = Model(
        lambda m, x: (m.conv(m.first(x)[:, None]) * torch.linspace(0, 1, 4)).transpose(1, 2).flatten(2),
        first=first(),
        conv=nn.Conv2d(1, 2, (1, 3)),
    )
    assert list(nodes(model)) == ["first", "conv", "forward.mul"]


def test_two_convolutions_of_one_shape_share_a_window():
    model = Model(
        lambda m, x: (m.a(x.transpose(1, 2)) * m.b(x.transpose(1, 2)).sigmoid()).transpose(1, 2),
        a=nn.Conv1d(FEATURES, 4, 3), b=nn.Conv1d(FEATURES, 4, 3),
    )  # fmt: skip
    assert [node.kind for node in nodes(model).values()].count("window") == 1
