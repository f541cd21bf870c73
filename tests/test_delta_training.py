"""Training with thresholds in the loop: what it computes, its gradients, and that the file has what was trained."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import rindle
from rindle import RindleError
from rindle.nn import activity, hold
from rindle.nn.train import delta

WIDTH, HIDDEN = 5, 12


class Tagger(nn.Module):
    def __init__(self, rnn: nn.Module, width: int):
        super().__init__()
        self.rnn, self.fc = rnn, nn.Linear(width, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0])


KINDS = {
    "lstm": lambda: nn.LSTM(WIDTH, HIDDEN, 2, batch_first=True),
    "gru, both ways": lambda: nn.GRU(WIDTH, HIDDEN, batch_first=True, bidirectional=True),
    "ligru": lambda: rindle.Recurrent(rindle.CELLS["ligru"], WIDTH, HIDDEN, batch_first=True),
    "gru_reset_before": lambda: rindle.Recurrent(rindle.CELLS["gru_reset_before"], WIDTH, HIDDEN, batch_first=True),
    "sru": lambda: rindle.Recurrent(rindle.CELLS["sru_highway"], WIDTH, HIDDEN, batch_first=True),
}


def walk(rows: int = 6, frames: int = 40, seed: int = 0) -> torch.Tensor:
    """Random walks: their changes are small beside their range."""
    steps = torch.randn(rows, frames, WIDTH, generator=torch.Generator().manual_seed(seed))
    return 0.2 * steps.cumsum(1)


def prepared(kind: str) -> tuple[nn.Module, list[str]]:
    torch.manual_seed(0)
    rnn = KINDS[kind]()
    model = rindle.prepare(Tagger(rnn, HIDDEN * (2 if "both" in kind else 1)), "int8", walk())
    return model, [name for name in rindle.convert(model).thresholds if name.startswith("rnn.")]


@pytest.mark.fast(1)
@pytest.mark.parametrize("kind", KINDS)
def test_threshold_zero_changes_neither_values_nor_gradients(kind):
    plain, names = prepared(kind)
    held = copy.deepcopy(plain)
    hold(held, dict.fromkeys(names, 0))
    x = walk(seed=1)
    for model in (plain, held):
        model(x).square().sum().backward()
    assert torch.equal(plain(x), held(x))
    for (name, one), other in zip(plain.named_parameters(), held.parameters()):
        assert torch.equal(one.grad, other.grad), name


@pytest.mark.fast(1)
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_has_the_thresholds_and_the_runtime_the_densities_of_training(kind):
    """x's codes are the integers themselves. Those of h come through float sums that may round a code differently: where a
    density of 240 elements and more is compared, a few of them may fall on the other side of θ.
    """
    model, names = prepared(kind)
    thetas = {name: 3 + 2 * k for k, name in enumerate(names)}
    hold(model, thetas)
    x = walk(seed=1)
    y = model(x).detach().numpy()
    trained = activity(model).densities
    integers = rindle.convert(model)
    assert {name: integers.thresholds[name] for name in names} == thetas
    found = integers.measure(x.numpy())
    assert {one.name for one in found.inputs} == set(trained) == set(names)
    for one in found.inputs:
        exact = not one.hidden and one.node.startswith("rnn.l0")
        assert one.density == pytest.approx(trained[one.name], abs=1e-7 if exact else 0.02), one.name
        assert 0 < one.density < 0.98  # something was skipped, and not all
    dense = rindle.convert(model).with_thresholds(dict.fromkeys(names, 0)).run(x.numpy())
    assert abs(found.output - y).mean() < 0.3 * abs(found.output - dense).mean()  # held as in training, not as if dense


def test_a_held_input_is_the_last_value_that_moved_further_than_theta():
    """The definition, followed by hand over a module whose output shows what its product reads."""
    rnn = nn.RNN(1, 1, batch_first=True)
    with torch.no_grad():
        for parameter, value in zip(rnn.parameters(), (0.5, 1e-6, 0.0, 0.0)):
            parameter.fill_(value)
    model = rindle.prepare(
        rnn, {"*": "fixed16 max(1.25)", "weight.*": "int8 max", "code.*": "int8 max"}, torch.full((1, 2, 1), 1.27)
    )
    hold(model, {"rnn_tanh.l0/x": 5})
    codes = [3, 6, 10, 12, 18, 13, 12, 5]  # one code is 0.01
    wanted = [0, 6, 6, 12, 18, 18, 12, 5]
    y, _ = model(torch.tensor(codes)[None, :, None] * 0.01)
    assert (2 * torch.atanh(y[0, :, 0]) / 0.01).round().int().tolist() == wanted
    assert activity(model).densities == {"rnn_tanh.l0/x": 5 / 8}


def test_rows_of_unequal_length_are_held_each_within_its_own():
    model, names = prepared("lstm")
    hold(model, dict.fromkeys(names, 6))
    x, lengths = walk(3, 30, seed=2), [30, 17, 9]
    whole = pack_padded_sequence(x, lengths, batch_first=True)
    packed = model.rnn(whole)[0]
    found = activity(model).densities
    changed = dict.fromkeys(names, 0.0)
    for row, length in enumerate(lengths):
        alone = model.rnn(x[row : row + 1, :length])[0][0]
        mine = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0][row, :length]
        torch.testing.assert_close(mine, alone, rtol=0, atol=1e-5)
        for name, density in activity(model).densities.items():
            changed[name] += density * length
    assert found == pytest.approx({name: total / sum(lengths) for name, total in changed.items()}, abs=5e-3)


def test_the_gradient_passes_straight_through_a_held_input():
    """Of the loss to x: as if nothing were held, also in frames whose codes stay."""
    model, names = prepared("lstm")
    model.eval()
    hold(model, {names[0]: 100})
    x = walk(1, 12, seed=3).requires_grad_()
    model(x).sum().backward()
    assert activity(model).densities[names[0]] < 0.2
    assert (x.grad.abs().sum(-1) > 0).all()


@pytest.mark.fast(0)
def test_the_penalty_makes_states_that_move_less():
    x, labels = walk(12, 30, seed=4), torch.randint(3, (12, 30), generator=torch.Generator().manual_seed(0))

    def trained(beta: float) -> tuple[float, float]:
        model, names = prepared("gru, both ways")
        hold(model, {name: 4 for name in names if name.endswith("/h")})
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(15):
            loss = nn.functional.cross_entropy(model(x).flatten(0, 1), labels.flatten())
            seen = activity(model)
            optimizer.zero_grad()
            (loss + beta * seen.penalty).backward()
            optimizer.step()
        return sum(seen.densities.values()), float(seen.penalty.detach())

    (dense, moved), (sparse, still) = trained(0.0), trained(3.0)
    assert sparse < 0.85 * dense and still < 0.85 * moved


def test_thresholds_stay_in_copies_checkpoints_and_modules_of_integers():
    model, names = prepared("lstm")
    thetas = dict.fromkeys(names, 2)
    hold(model, thetas)
    model(walk())  # whose activity nobody looks at
    other, _ = prepared("lstm")
    other.load_state_dict(model.state_dict())
    for one in (copy.deepcopy(model), other):
        assert delta.thresholds(one) == thetas
        one(walk())
        assert set(activity(one).densities) == set(names)
    integers = rindle.convert(model, whole=False).rnn.model
    assert {name: integers.thresholds[name] for name in names} == thetas
    hold(model, {names[0]: None})
    assert set(delta.thresholds(model)) == set(names[1:])


def test_what_cannot_be_held_is_refused_by_name():
    model, names = prepared("lstm")
    with pytest.raises(RindleError, match=r"no input named 'rnn\.l0/y'; did you mean 'rnn\.l0/[xh]'"):
        hold(model, {"rnn.l0/y": 1})
    for theta in (-1, 0.5, 127):
        with pytest.raises(RindleError, match=rf"θ of rnn\.l0/x is {theta}; it must be a whole number 0\.\.126"):
            hold(model, {"rnn.l0/x": theta})
    with pytest.raises(RindleError, match="no input is held"):
        activity(model)
    hold(model, {names[0]: 1})
    with pytest.raises(RindleError, match="has not been run since"):
        activity(model)
    with pytest.raises(RindleError, match="LSTM is not a prepared model"):
        hold(nn.LSTM(2, 3), {"l0/x": 1})
    weights = rindle.prepare(Tagger(KINDS["lstm"](), HIDDEN), "int8", activations=False)
    with pytest.raises(RindleError, match="only weights were prepared"):
        hold(weights, {"rnn.l0/x": 1})
