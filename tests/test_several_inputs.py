"""Cells that read more than x: SRU whose highway stands beside what its products read."""

import numpy as np
import pytest
import torch
from exported import assert_exact, with_extremes
from modules_table import SEVERAL, WIDTH, H, assert_equal, inputs, made
from support import SEVERAL_INPUTS, assert_agree
from test_laws import some_thresholds
from torch import nn

import rindle
from rindle import CELLS, Recurrent
from rindle.engines.golden import with_thresholds
from rindle.nn import activity, hold, simulate

PLAIN = {"sru_beside": "sru", "sru_beside_rescale": "sru_rescale"}  # the same equation where both inputs are x


@pytest.mark.parametrize("name", SEVERAL_INPUTS)
@pytest.mark.parametrize("both", [False, True])
@torch.no_grad()
def test_with_one_input_twice_it_is_the_cell_of_one_input(name, both):
    torch.manual_seed(0)
    one, two = (
        Recurrent(cell, 4, 4, batch_first=True, bidirectional=both).double()
        for cell in (CELLS[PLAIN[name]], CELLS[name])
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
        self.rnn = Recurrent(CELLS[name], 3, 6, batch_first=batch_first, bidirectional=both)
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
    for artifact in (model.artifact, with_thresholds(model.artifact, some_thresholds(model.artifact, 0.1))):
        assert_agree(artifact, x, np.array([9, 1, 4]))
        if not both:
            assert_exact(with_extremes(artifact), tmp_path / f"c{artifact is model.artifact}")
    if not both:
        stream = model.stream()
        np.testing.assert_array_equal(np.stack([stream.step(frame) for frame in x[0]]), model.run(x)[0])


# ----------------------------------------------------------------------------- prepared; test_prepare has more laws of each


@pytest.mark.parametrize("name, both, batch_first", [("sru_beside", True, True), ("sru_beside_rescale", False, False)])
def test_a_trained_model_becomes_integers_that_every_engine_agrees_on(name, both, batch_first):
    torch.manual_seed(1)
    net, x = Net(name, both, batch_first).eval(), np.random.default_rng(2).normal(size=(8, 9, 5)).astype(np.float32)
    laid = torch.from_numpy(x if batch_first else x.swapaxes(0, 1).copy())
    ready = rindle.prepare(net, "w4a8", laid)
    np.testing.assert_array_equal(rindle.convert(ready, laid).run(x), rindle.quantize(net, "w4a8", laid).run(x))
    optimizer, losses = torch.optim.Adam(ready.parameters(), 0.01), []
    for _ in range(8):
        loss = (ready(laid) - laid[..., :4]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]
    wanted = ready(laid).detach() if batch_first else ready(laid).detach().transpose(0, 1)
    whole, modules = rindle.convert(ready), rindle.convert(ready, whole=False)
    y, off = whole.run(x), 0.1 * float(wanted.max() - wanted.min())
    assert np.abs(y - wanted.numpy()).max() < off
    beside = modules(laid) if batch_first else modules(laid).transpose(0, 1)
    assert np.abs(beside.numpy() - wanted.numpy()).max() < off
    codes = simulate.run(whole.artifact, x).codes
    np.testing.assert_array_equal((codes * whole.artifact.output_format.scale).astype(np.float32), y)
    assert_agree(whole.artifact, x, np.array([9, 1, 4, 9, 2, 3, 9, 5]))
    assert whole.artifact.graph.node("rnn.l0").sources == ("project", "body.gather" if both else "body")


@pytest.mark.parametrize("both", [False, True])
def test_what_is_held_in_training_is_held_in_the_file(both):
    """x's codes, behind a projection that is the identity on codes: the products of x are held, the highway is not."""
    torch.manual_seed(0)
    rnn = Recurrent(CELLS["sru_beside"], 4, 6, batch_first=True, bidirectional=both)
    walk = 0.2 * torch.randn(5, 40, 4 + 6 * (1 + both), generator=torch.Generator().manual_seed(1)).cumsum(1)

    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = rnn

        def forward(self, x):
            return self.rnn((x[..., :4], x[..., 4:]))[0]

    ready = rindle.prepare(Split(), "int8", walk)
    names = [f"rnn.l0{suffix}/x" for suffix in ("", "_reverse")[: 1 + both]]
    dense = ready(walk).detach()
    hold(ready, dict.fromkeys(names, 0))
    assert torch.equal(ready(walk), dense)
    hold(ready, dict.fromkeys(names, 6))
    y, trained = ready(walk).detach(), activity(ready)
    activity(ready).penalty.backward()
    integers = rindle.convert(ready)
    assert integers.thresholds == dict.fromkeys(names, 6)
    found = integers.measure(walk.numpy())
    for one in found.inputs:
        assert one.density == pytest.approx(trained.densities[one.name], abs=1e-7) and 0 < one.density < 0.9
    assert np.abs(found.output - y.numpy()).mean() < 0.3 * np.abs(dense.numpy() - y.numpy()).mean()


@pytest.mark.parametrize("name", SEVERAL)
def test_a_module_of_integers_runs_as_its_file_and_carries_its_states_on(name):
    """The file takes the inputs side by side."""
    module = made(name)
    x = inputs(module)
    integers = rindle.convert(rindle.prepare(module, "int8", lambda one: one(x)), whole=False)
    y, states = integers(x)
    time = 1 if module.batch_first else 0
    joined = torch.cat(x, -1) if module.batch_first else torch.cat(x, -1).transpose(0, 1).contiguous()
    assert integers.model.input_size == WIDTH + H * (1 + module.bidirectional) == joined.shape[2]
    assert_equal(y if module.batch_first else y.transpose(0, 1), torch.from_numpy(integers.model.run(joined.numpy())))
    if not module.bidirectional:
        first, second = zip(*(one.split([4, one.shape[time] - 4], time) for one in x))
        before, middle = integers(first)
        after, last = integers(second, middle)
        assert_equal(torch.cat([before, after], time), y)
        assert_equal(last, states)
