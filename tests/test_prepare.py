"""prepare, train, convert: the laws of quantized modules, for every kind of recurrent module."""

import copy
import inspect
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from modules_table import MODULES, SEQUENCES, WIDTH, assert_equal, flat, furthest, inputs, made, packed, row
from support import FEATURES, TorchModel, sequences
from torch import nn
from torch.nn.utils.rnn import pad_packed_sequence

import rindle
from rindle import RindleError
from rindle.nn import simulate
from rindle.nn.lsq import WeightSteps

pytestmark = pytest.mark.fast(6)  # the same for every kind of module

WIDE = {"*": "fixed16 max(1.25)", "weight.*": "int16 max", "code.*": "fixed16 max(1.25)"}
FORMS = ("prepared", "weights", "integers")


def prepared(name: str, scheme="int8", **options) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """A module, the same prepared, and its input. Initial states are part of what it is calibrated with."""
    module = made(name)
    x = inputs(module)

    def calibrate(model):
        first = model(x)
        model(x, first if isinstance(module, nn.RNNCellBase) else first[1])

    return module, rindle.prepare(module, scheme, calibrate, **options).eval(), x


def arguments_of(module: nn.Module) -> list:
    return [(one.name, one.default) for one in inspect.signature(module.forward).parameters.values()]


@cache
def _form(name: str, which: str):
    module, ready, x = prepared(name, activations=which != "weights")
    return module, (rindle.convert(ready, whole=False) if which == "integers" else ready), x


def form(name: str, which: str):
    """A module; the same prepared, its weights alone prepared, or of integers; and their input."""
    module, other, x = _form(name, which)
    return module, copy.deepcopy(other), x


@pytest.mark.parametrize("name", MODULES)
def test_without_quantization_it_is_the_float_module(name):
    """Formats so wide that only rounding to 16 bits is left."""
    module, ready, x = prepared(name, WIDE)
    assert 0 < furthest(ready(x), module(x)) < 2e-3


@pytest.mark.parametrize("name", MODULES)
def test_integers_are_what_was_trained(name):
    """Less than half a step of an 8-bit code of values in -1..1 (before a clip, relative to the largest)."""
    module, ready, x = prepared(name)
    integers = rindle.convert(ready, whole=False)
    scale = max(1.0, float(flat(module(x))[0].detach().abs().max()))
    assert furthest(integers(x), ready(x)) < 0.5 / 127 * scale
    assert furthest(ready(x), module(x)) > 0


@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("name", MODULES)
def test_forward_is_that_of_the_origin(name, which):
    """Arguments by name, the shapes and the order of what is returned, and inputs without a batch."""
    module, other, x = form(name, which)
    assert arguments_of(other) == arguments_of(module)
    wanted = module(x)
    assert furthest(other(x), wanted) < 0.1
    states = wanted if name.endswith("Cell") else wanted[1]
    keyword = list(inspect.signature(module.forward).parameters)[1]
    assert furthest(other(x, **{keyword: states}), module(x, states)) < 0.1
    if not name.startswith("Recurrent"):
        one = x[0] if name.endswith("Cell") else x[0] if module.batch_first else x[:, 0]
        found, alone = other(one), module(one)
        assert [part.shape for part in flat(found)] == [part.shape for part in flat(alone)]
        assert furthest(found, alone) < 0.1


@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_packed_row_is_that_row_alone(name, which):
    module, other, x = form(name, which)
    lengths, rows = [5, 9, 1, 7], range(4)
    states = [state[:, :4] for state in flat(module(x)[1])]
    for given in (None, states):
        initial = None if given is None else tuple(given) if len(given) > 1 else given[0]
        y, finals = other(packed(module, x, lengths), initial)
        y, _ = pad_packed_sequence(y, batch_first=True)
        for k in rows:
            one = None if given is None else tuple(s[:, k : k + 1] for s in given)
            one = one if one is None or len(one) > 1 else one[0]
            alone, final = other(row(module, x, k, lengths[k]), one)
            alone = alone if module.batch_first else alone.transpose(0, 1)
            close = np.testing.assert_array_equal if which == "integers" else np.testing.assert_allclose
            tolerance = {} if which == "integers" else {"atol": 1e-2}  # a float sum in another order may cross a code
            close(y[k, : lengths[k]].detach().numpy(), alone[0].detach().numpy(), **tolerance)
            for all_rows, mine in zip(flat(finals), flat(final), strict=True):
                close(all_rows[:, k].detach().numpy(), mine[:, 0].detach().numpy(), **tolerance)


@pytest.mark.parametrize(
    "name", [name for name in SEQUENCES if "both" not in name and name not in ("LSTM, projection", "Recurrent, shared")]
)
def test_final_states_carry_on_exactly(name):
    """A sequence in two parts, the second from the first one's final states, is the sequence: states are codes."""
    _, integers, x = form(name, "integers")
    first, second = (x[:, :4], x[:, 4:]) if integers.stack.batch_first else (x[:4], x[4:])
    y, states = integers(x)
    before, middle = integers(first)
    after, last = integers(second, middle)
    assert_equal(torch.cat([before, after], 1 if integers.stack.batch_first else 0), y)
    assert_equal(last, states)


@pytest.mark.parametrize("which", ["prepared", "weights"])
@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_is_trained(name, which):
    _, ready, x = form(name, which)
    before = {key: value.clone() for key, value in ready.named_parameters()}
    loss = sum(part.square().sum() for part in flat(ready.train()(x)))
    optimizer = torch.optim.SGD(ready.parameters(), 0.1)
    loss.backward()
    still = {key for key, value in ready.named_parameters() if value.grad is None or not value.grad.any()}
    # from zero initial states, one frame's recurrent weights meet only zeros
    assert all("hh" in key or "code" in key for key in still) if name.endswith("Cell") else not still
    optimizer.step()
    assert not any(torch.equal(value, before[key]) for key, value in ready.named_parameters() if key not in still)


@pytest.mark.parametrize("which", ["prepared", "weights"])
@pytest.mark.parametrize("name", MODULES)
def test_checkpoints_pass_between_float_and_prepared(name, which):
    module, ready, x = form(name, which)
    own = dict(ready.named_parameters())
    assert all(own[key].shape == value.shape for key, value in module.named_parameters())
    with torch.no_grad():
        for parameter in ready.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    back = made(name, seed=1)
    back.load_state_dict(rindle.float_state_dict(ready))
    assert all(torch.equal(value, own[key]) for key, value in back.named_parameters())
    _, other, _ = form(name, which)
    other.load_state_dict(ready.state_dict())
    assert_equal(other(x), ready(x))
    other.load_state_dict(module.state_dict())  # a float checkpoint: its weights, and the steps as they were
    assert all(torch.equal(dict(other.named_parameters())[key], value) for key, value in module.named_parameters())
    assert all(torch.equal(value, own[key]) for key, value in other.named_parameters() if key.endswith("rho"))


@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("name", MODULES)
def test_copies_and_pickles_compute_the_same(name, which):
    _, one, x = form(name, which)
    wanted = one(x)  # before the copy: a forward must not leave behind what cannot be copied
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert type(other) is type(one) and other.training == one.training
        assert_equal(other(x), wanted)
    if which != "integers":
        with torch.no_grad():
            next(iter(copy.deepcopy(one).parameters())).zero_()
        assert_equal(one(x), wanted)


@pytest.mark.parametrize("name", MODULES)
def test_the_state_of_integers_is_their_file(name, tmp_path):
    _, one, x = form(name, "integers")
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other = rindle.convert(prepared(name, "w4a8")[1], whole=False)
    assert furthest(other(x), one(x)) > 0
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_equal(other(x), one(x))
    assert other.model.data == one.model.data
    rindle.save(one.model, tmp_path / "one.rindle")
    assert (tmp_path / "one.rindle").read_bytes() == one.model.data


def test_integers_refuse_to_be_trained():
    _, integers, x = form("GRU", "integers")
    with pytest.raises(RindleError, match=r"holds integers and cannot be trained; train what rindle\.prepare returned"):
        integers.train()
    integers.eval()
    y, _ = integers(x.requires_grad_())
    with pytest.raises(RindleError, match=r"gru\.l0 holds integers and cannot be trained|gru\.l1 holds integers"):
        y.sum().backward()
    with pytest.raises(RindleError, match=r"the \.rindle bytes hold lstm\.l0; the module is gru\.l0, gru\.l1"):
        integers.load_state_dict(form("LSTM", "integers")[1].state_dict())
    with pytest.raises(RindleError, match="holds NaN or infinity"):
        integers(torch.full((1, 2, WIDTH), float("nan")))


def test_dropout_between_layers_is_kept():
    torch.manual_seed(0)
    module = nn.LSTM(WIDTH, 8, 2, dropout=0.5, batch_first=True)
    x = inputs(module)
    ready = rindle.prepare(module, "int8", x)
    assert ready.training and not torch.equal(ready(x)[0], ready(x)[0])
    ready.eval()
    assert torch.equal(ready(x)[0], ready(x)[0])
    assert furthest(ready(x), module.eval()(x)) < 0.05


# ---------------------------------------------------------------------------------------------------- whole models


class Attention(nn.Module):
    """Two recurrent layers and an attention, of rows with lengths: nothing that is captured whole."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(FEATURES, 12, batch_first=True, bidirectional=True)
        self.score = nn.Linear(24, 1)
        self.cell = nn.LSTMCell(24, 10)
        self.out = nn.Linear(10, 3)

    def forward(self, x, lengths):
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.encoder(rows)[0], batch_first=True)
        scores = self.score(y)[..., 0].masked_fill(torch.arange(y.shape[1]) >= lengths[:, None], -torch.inf)
        context, state = (scores.softmax(1)[..., None] * y).sum(1), None
        for _ in range(2):
            state = self.cell(context, state)
        return self.out(state[0])


def test_any_control_flow_is_calibrated_trained_and_converted():
    torch.manual_seed(0)
    model = Attention().eval()
    x, lengths = torch.from_numpy(sequences(16, 12)), torch.arange(16) % 9 + 4
    ready = rindle.prepare(model, "int8", lambda one: one(x, lengths))
    integers = rindle.convert(ready, whole=False)
    wanted = model(x, lengths).detach()
    spread = float(wanted.max() - wanted.min())
    assert furthest(ready(x, lengths), wanted) < 0.05 * spread
    assert furthest(integers(x, lengths), ready(x, lengths)) < 0.03 * spread
    kinds = [type(module).__name__ for module in integers.children()]
    assert kinds == ["IntegerRNN", "IntegerLinear", "IntegerRNN", "IntegerLinear"]
    batches = [{"x": x[:8], "lengths": lengths[:8]}, {"x": x[8:], "lengths": lengths[8:]}]
    again = rindle.prepare(model, "int8", batches)
    assert_equal(again(x, lengths), ready(x, lengths))
    with pytest.raises(RindleError, match=r"the model's input was not one tensor; give calibration=, or convert"):
        rindle.convert(ready)


@pytest.mark.fast(2)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "sru"])
def test_a_converted_model_is_its_simulation_and_its_modules(cell, bidirectional):
    torch.manual_seed(0)
    model = TorchModel(cell, layers=1).eval()
    if bidirectional:
        model.rnn = rindle.Recurrent(rindle.CELLS[cell], 17, 17, batch_first=True, bidirectional=True)
        model.last = nn.Linear(34, 3)
    x = torch.from_numpy(sequences(8, 15))
    ready = rindle.prepare(model, "w4a8", x)
    optimizer = torch.optim.Adam(ready.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        ready(x).square().mean().backward()
        optimizer.step()
    whole, modules = rindle.convert(ready), rindle.convert(ready, whole=False)
    y = whole.run(x.numpy())
    codes = simulate.run(whole.artifact, x.numpy()).codes
    np.testing.assert_array_equal((codes * whole.artifact.output_format.scale).astype(np.float32), y)
    spread = y.max() - y.min()
    assert np.abs(y - ready(x).detach().numpy()).max() < 0.1 * spread
    assert np.abs(y - modules(x).detach().numpy()).max() < 0.1 * spread
    learned = {name: steps for name, steps in ready.named_modules() if isinstance(steps, WeightSteps)}
    found = whole.artifact.graph.node("first").layer.constants["y"].products[0].row_scales
    steps = learned["first.quantization.weights.weight"]
    np.testing.assert_array_equal(found, steps.steps().detach().numpy()[:, 0])
    assert not np.array_equal(found, steps.start.numpy()[:, 0])
    code = ready.get_submodule("first.quantization.codes.l0.x_code")
    found = whole.artifact.graph.node("first").layer.formats["x.code"].scale
    assert found == code.step().item() != code.start.item()


@pytest.mark.fast(1)
def test_the_whole_model_without_training_is_what_quantize_makes(scheme):
    torch.manual_seed(0)
    model, x = TorchModel("gru").eval(), sequences()
    ready = rindle.prepare(model, scheme, torch.from_numpy(x), {"rnn.l0/weight.nh.h": "int3 mmse"})
    found = rindle.convert(ready, torch.from_numpy(x))
    wanted = rindle.quantize(model, scheme, x, {"rnn.l0/weight.nh.h": "int3 mmse"})
    np.testing.assert_array_equal(found.run(x), wanted.run(x))
    weights = rindle.convert(rindle.prepare(model, scheme, activations=False), torch.from_numpy(x))
    plain = rindle.quantize(model, scheme, x)
    np.testing.assert_array_equal(weights.run(x), plain.run(x))


def test_weight_norm_and_foreign_modules_are_taken_over_as_by_capture():
    torch.manual_seed(0)
    module = nn.GRU(WIDTH, 8, batch_first=True)
    x = inputs(module)
    wanted = module(x)[0]
    normed = nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    ready = rindle.prepare(normed, "int8", x).eval()
    assert furthest(ready(x)[0], wanted) < 0.05


class Derived(nn.LSTM):
    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((lambda x: x, "int8", None), "model is a function; it must be a torch.nn.Module"),
        ((nn.Linear(2, 2), "int8", torch.zeros(1, 2)), "Linear has no recurrent module; there is nothing to prepare"),
        ((nn.GRU(2, 2), "int8", None), "calibration is missing"),
        ((nn.GRU(2, 2), "int8", []), "the calibration data are empty"),
        ((nn.GRU(2, 2), "int7", torch.zeros(3, 1, 2)), "unknown scheme 'int7'"),
        ((nn.GRU(2, 2), "int8", torch.zeros(3, 1, 2), {"n.tan": "fixed16"}), "no path fits 'n.tan'"),
        ((nn.GRU(2, 2), "int8", torch.full((3, 1, 2), torch.inf)), "NaN or infinite on the calibration data"),
        ((Derived(2, 2), "int8", torch.zeros(3, 1, 2)), "is a Derived, a LSTM with a forward of its own; let it hold"),
        (
            (nn.Sequential(nn.Identity(), nn.GRU(2, 2)), "int8", lambda m: m[0](1)),
            "the calibration data never reached 1",
        ),
    ],
)
def test_what_prepare_refuses(arguments, words):
    with pytest.raises(RindleError, match=words):
        rindle.prepare(*arguments)


def test_what_convert_refuses():
    model, x = TorchModel("gru"), torch.from_numpy(sequences())
    with pytest.raises(RindleError, match=r"TorchModel is not a prepared model; give what rindle\.prepare returned"):
        rindle.convert(model)
    weights = rindle.prepare(model, activations=False)
    for whole in (True, False):
        with pytest.raises(
            RindleError, match="only weights were prepared, so activations need data; give calibration="
        ):
            rindle.convert(weights, whole=whole)
    with pytest.raises(RindleError, match="the model is prepared already"):
        rindle.prepare(weights, "int8", x)
    ready = rindle.prepare(model, "int8", x)
    ready.first = nn.Linear(FEATURES, 17)
    other = rindle.prepare(TorchModel("gru"), "int8", x, {"rnn.l0/code.z.h": "int7 max"})
    with pytest.raises(RindleError, match="the checkpoint's formats of l0 are of other paths"):
        other.load_state_dict(rindle.prepare(TorchModel("gru"), "int8", x).state_dict(), strict=False)
