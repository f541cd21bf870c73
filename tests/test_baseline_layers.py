"""The baselines' Li-GRU and SRU are the cells of the same equations, once forward and once backward."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.baselines.recurrent import SRU, LiGRU, Stack
from rindle.cells import sru
from rindle.nn.modules import Recurrent
from rindle.program.tracer import cell

TIME, BATCH, INPUTS, UNITS = 9, 3, 5, 4


@cell(states=("h",))
def ligru(n, x, h):
    """Li-GRU with its norm folded into W and the bias."""
    z, a = n.affine("z a", x, h)
    h = n.lerp(n.sigmoid(z), h, n.relu(a))
    return h


def run_both_ways(kind, inputs, parameters, x):
    """`parameters(direction)` by name → outputs side by side, the last first state of each direction."""
    outputs, lasts = [], []
    for direction, order in enumerate((1, -1)):
        layer = Recurrent(kind, inputs, UNITS)
        names = [f"{name}_l0" for name in kind.layout]
        assert sorted(names) == sorted(name for name, _ in layer.named_parameters())
        layer.load_state_dict({f"{name}_l0": value for name, value in parameters(direction).items()})
        y, (last, *_) = layer(x if order == 1 else x.flip(0))
        outputs.append(y if order == 1 else y.flip(0))
        lasts.append(last[0])
    return torch.cat(outputs, -1), torch.stack(lasts)


@pytest.fixture(autouse=True)
def exact():
    torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def used_norm(size):
    """Statistics, scale and shift as after training: none is 0 or 1."""
    norm = torch.nn.BatchNorm1d(size)
    for value in (norm.weight.data, norm.running_var):
        value.uniform_(0.5, 2)
    for value in (norm.bias.data, norm.running_mean):
        value.uniform_(-1, 1)
    return norm


@torch.no_grad()
def test_ligru_is_the_cell_with_the_norm_folded_in():
    layer, x = LiGRU(INPUTS, UNITS).eval(), torch.randn(TIME, BATCH, INPUTS)
    layer.norm = norm = used_norm(4 * UNITS).eval()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()

    def parameters(direction):
        rows = slice(2 * UNITS * direction, 2 * UNITS * (direction + 1))
        return {
            "weight_x": (scale[:, None] * layer.input.weight)[rows],
            "weight_h": layer.recurrent[direction],
            "bias": (norm.bias - scale * norm.running_mean)[rows],
        }

    y, last = run_both_ways(ligru, INPUTS, parameters, x)
    found, found_last = layer(x)
    assert torch.allclose(found, y) and torch.allclose(found_last, last)


@torch.no_grad()
def test_sru_is_the_cell_behind_a_projection():
    layer, x = SRU(INPUTS, UNITS).eval(), torch.randn(TIME, BATCH, INPUTS)
    layer.bias.normal_()

    def parameters(direction):
        return {
            "weight_x": layer.input.weight[3 * UNITS * direction : 3 * UNITS * (direction + 1)],
            "bias": layer.bias[:, direction].flatten(),
            "v_f": layer.peep[0, direction],
            "v_r": layer.peep[1, direction],
        }

    y, last = run_both_ways(sru, UNITS, parameters, layer.project(x))
    found, found_last = layer(x)
    assert torch.allclose(found, y) and torch.allclose(found_last, last)


def test_the_norm_sees_all_frames_of_the_batch_and_only_in_training():
    layer, x = LiGRU(INPUTS, UNITS, dropout=0.0), torch.randn(TIME, BATCH, INPUTS)
    read = layer.input(x).flatten(0, 1)
    layer.norm.momentum = 1.0
    layer(x)
    assert torch.allclose(layer.norm.running_mean, read.mean(0)) and torch.allclose(layer.norm.running_var, read.var(0))
    kept = layer.norm.running_mean.clone()
    layer.eval()(x + 1)
    assert torch.equal(layer.norm.running_mean, kept)


def test_recurrent_dropout_drops_a_unit_in_every_frame_of_a_sequence():
    layer = LiGRU(INPUTS, 50, dropout=0.5)
    y, _ = layer(torch.randn(30, 1, INPUTS).expand(-1, BATCH, -1))
    alive = (y != 0).any(0)  # a dropped unit stays at its first state, 0
    assert 0.3 < alive.double().mean() < 0.7 and (alive[0] != alive[1]).any()
    whole, _ = layer.eval()(torch.randn(30, BATCH, INPUTS))
    assert (whole != 0).any(0).all()


@pytest.mark.parametrize("kind", [LiGRU, SRU])
def test_a_row_of_the_batch_alone_and_both_directions_see_their_side(kind):
    layer, x = kind(INPUTS, UNITS).eval(), torch.randn(TIME, BATCH, INPUTS)
    y, _ = layer(x)
    assert torch.allclose(layer(x[:, 1:2])[0], y[:, 1:2])
    changed = x.clone()
    changed[5] += 1
    same = torch.isclose(layer(changed)[0], y).all(1)  # time, unit
    forward, backward = same[:, :UNITS], same[:, UNITS:]
    assert forward[:5].all() and not forward[5].all()
    assert backward[6:].all() and not backward[5].all()


def test_a_stack_is_its_layers_one_after_the_other():
    first, second, x = SRU(INPUTS, UNITS), SRU(2 * UNITS, UNITS), torch.randn(TIME, BATCH, INPUTS)
    between, last = first(x)
    y, lasts = Stack(first, second, dropout=0.5).eval()(x)
    assert torch.equal(y, second(between)[0]) and torch.equal(lasts, torch.cat([last, second(between)[1]]))
    y, _ = Stack(first, second, dropout=1.0).train()(x)
    assert torch.equal(y, second(torch.zeros_like(between))[0])
