"""Cells that read more than x: SRU whose highway stands beside what its products read."""

import numpy as np
import pytest
import torch
from exported import assert_exact, with_extremes
from support import assert_agree
from test_laws import some_thresholds
from torch import nn

import rindle
from rindle import CELLS, Recurrent
from rindle.cells import SEVERAL_INPUTS

PLAIN = {"sru_beside": "sru", "sru_beside_rescale": "sru_rescale"}  # the same equation where both inputs are x


@pytest.mark.parametrize("name", SEVERAL_INPUTS)
@pytest.mark.parametrize("both", [False, True])
@torch.no_grad()
def test_with_one_input_twice_it_is_the_cell_of_one_input(name, both):
    torch.manual_seed(0)
    one, two = (
        Recurrent(cell, 4, 4, batch_first=True, bidirectional=both).double()
        for cell in (CELLS[PLAIN[name]], SEVERAL_INPUTS[name])
    )
    two.load_state_dict(one.state_dict())
    x, c = torch.randn(3, 6, 4).double(), torch.randn(1 + both, 3, 4).double()
    for states in (None, c):
        (y, (after,)), (wanted, (wanted_after,)) = two((x, torch.cat([x] * (1 + both), -1)), states), one(x, states)
        torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(after, wanted_after, rtol=0, atol=1e-12)
    other = two((x, torch.cat([x, 2 * x], -1)))[0] if both else two((x, 2 * x))[0]
    changed = (other - one(x)[0]).abs().amax((0, 1)) > 1e-6
    assert changed.tolist() == [False] * 4 * both + [True] * 4  # the backward direction reads the second half


class Net(nn.Module):
    """Products behind a projection to 3 features, the highway beside it."""

    def __init__(self, name: str, both: bool, batch_first: bool):
        super().__init__()
        width = 6 * (1 + both)
        self.body, self.project = nn.Linear(5, width), nn.Linear(width, 3, bias=False)
        self.rnn = Recurrent(SEVERAL_INPUTS[name], 3, 6, batch_first=batch_first, bidirectional=both)
        self.last = nn.Linear(width, 4)

    def forward(self, x):
        x = self.body(x)
        y, _ = self.rnn((self.project(x), x))
        return self.last(y)


@pytest.mark.parametrize("name, both, batch_first", [("sru_beside", True, True), ("sru_beside_rescale", False, False)])
def test_every_engine_agrees_and_a_stream_and_c_where_it_is_causal(name, both, batch_first, tmp_path):
    torch.manual_seed(1)
    net, x = Net(name, both, batch_first).eval(), np.random.default_rng(2).normal(size=(3, 9, 5)).astype(np.float32)
    laid = torch.from_numpy(x if batch_first else x.swapaxes(0, 1).copy())
    model = rindle.quantize(net, "int8", laid)
    with torch.no_grad():
        wanted = net(laid) if batch_first else net(laid).transpose(0, 1)
    np.testing.assert_allclose(model.run(x), wanted.numpy(), atol=0.1)
    node = model.artifact.graph.node("rnn.l0_reverse" if both else "rnn.l0")
    assert len(node.sources) == 2 and node.sources[0] == "project"
    exported = rindle.quantize(torch.export.export(net, (laid,)), "int8", laid)
    np.testing.assert_array_equal(exported.run(x), model.run(x))
    for artifact in (model.artifact, model.artifact.with_thresholds(some_thresholds(model.artifact, 0.1))):
        assert_agree(artifact, x, np.array([9, 1, 4]))
        if not both:
            assert_exact(with_extremes(artifact), tmp_path / f"c{artifact is model.artifact}")
    if not both:
        stream = model.stream()
        np.testing.assert_array_equal(np.stack([stream.step(frame) for frame in x[0]]), model.run(x)[0])
