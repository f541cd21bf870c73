"""quantize_dynamic: torch.ao's call, for every recurrent module whose h has a bound."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from modules_table import MODULES, SEQUENCES, UNBOUNDED, assert_equal, flat, furthest, inputs, made, packed, row
from support import ENGINES
from torch import nn
from torch.nn.utils.rnn import pad_packed_sequence

import rindle
from rindle import CELLS, RindleError, fixed
from rindle.nn.back.dynamic import Product, bounds, without_input
from rindle.nn.capture.stacks import stack_of

BOUNDED = [name for name in MODULES if name not in UNBOUNDED]


def dynamic(name: str, dtype=torch.qint8):
    module = made(name)
    return module, rindle.quantize_dynamic(module, {type(module)}, dtype), inputs(module)


@pytest.mark.parametrize("dtype, close", [(torch.qint8, 0.03), (torch.float16, 1e-3)])
@pytest.mark.parametrize("name", BOUNDED)
def test_it_is_close_to_float_with_the_same_forward(name, dtype, close):
    module, other, x = dynamic(name, dtype)
    wanted = module(x)
    assert 0 < furthest(other(x), wanted) < close
    states = wanted if name.endswith("Cell") else wanted[1]
    assert furthest(other(x, states), module(x, states)) < close
    assert [part.shape for part in flat(other(x))] == [part.shape for part in flat(wanted)]
    assert not other.saturations


@pytest.mark.parametrize("name", [name for name in SEQUENCES if name in BOUNDED])
def test_behind_the_product_every_engine_gives_the_modules_integers(name):
    """The .rindle file inside takes W·x, and gives what the module gives."""
    module, other, x = dynamic(name)
    x = x if module.batch_first else x.transpose(0, 1)
    z = other.product(x.reshape(-1, x.shape[2])).reshape(*x.shape[:2], -1).numpy()
    y = other(x if module.batch_first else x.transpose(0, 1))[0]
    y = y if module.batch_first else y.transpose(0, 1)
    assert other.model.input_size == z.shape[2] and other.model.artifact.input_format == fixed(16, 11)
    for engine in ENGINES.values():
        np.testing.assert_array_equal(engine(other.model.artifact, z, None).output, y.numpy())


@pytest.mark.parametrize("name", [name for name in SEQUENCES if name in BOUNDED])
def test_a_packed_row_is_that_row_alone_exactly(name):
    module, other, x = dynamic(name)
    lengths = [5, 9, 1, 7]
    y, finals = other(packed(module, x, lengths))
    y, _ = pad_packed_sequence(y, batch_first=True)
    for k, length in enumerate(lengths):
        alone, final = other(row(module, x, k, length))
        assert_equal(y[k, :length], (alone if module.batch_first else alone.transpose(0, 1))[0])
        assert_equal([state[:, k] for state in flat(finals)], [state[:, 0] for state in flat(final)])


@pytest.mark.parametrize("name", BOUNDED)
def test_copies_pickles_and_states_compute_the_same(name):
    module, one, x = dynamic(name)
    wanted = one(x)
    other = rindle.quantize_dynamic(made(name, seed=1), {type(module)})
    assert furthest(other(x), wanted) > 0
    other.load_state_dict(one.state_dict())
    for copied in (other, copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert_equal(copied(x), wanted)


def test_a_product_sums_codes_exactly():
    """Against int64: codes of x per row, codes of W, their sum, and three scales."""
    generator = torch.Generator().manual_seed(0)
    for columns in (7, 1500):  # the second leaves float32's integers
        weight, bias = torch.randn(5, columns, generator=generator), torch.randn(5, generator=generator)
        weight[3] = 0
        x = torch.randn(6, columns, generator=generator) * torch.logspace(-3, 3, 6)[:, None]
        x[2] = 0
        y = Product(weight, bias, 8)(x)
        largest = np.maximum(np.abs(weight.numpy()).max(1), 0)
        steps = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        codes = np.clip(np.floor(weight.numpy().astype(np.float64) / steps[:, None] + 0.5), -127, 127).astype(np.int64)
        scale = (x.abs().amax(1) / 127).numpy()
        scale = np.where(scale > 0, scale, np.float32(1))[:, None].astype(np.float32)
        sums = np.round(x.numpy() / scale).astype(np.int64) @ codes.T
        np.testing.assert_array_equal(y.numpy(), sums.astype(np.float32) * scale * steps + bias.numpy())


def test_without_its_input_a_program_adds_one_path_per_gate():
    cut = without_input(CELLS["gru"].program)
    assert cut.inputs == ("r_x", "z_x", "nx") and "x" not in cut.sizes
    assert [(op.kind, op.out, op.args) for op in cut.ops[:5]] == [
        ("requantize", ("h.code",), ("h",)),
        ("affine", ("r_h", "z_h"), ()),
        ("add", ("r",), ("r_h", "r_x")),
        ("add", ("z",), ("z_h", "z_x")),
        ("affine", ("nh",), ()),
    ]


def test_the_bound_of_a_projection_is_its_largest_row():
    torch.manual_seed(0)
    module = nn.LSTM(4, 6, proj_size=3)
    (node,) = stack_of(module, "").graph("", module).programs
    wanted = module.weight_hr_l0.detach().abs().sum(1).max().item()
    assert bounds(node.layer)["h"] == pytest.approx(wanted, rel=1e-6)
    program = rindle.quantize_dynamic(module, {nn.LSTM}).model.artifact.graph.programs[0].layer
    code = next(path for path in program.program.codes if path.startswith("h"))
    assert program.formats[code].scale == pytest.approx(wanted / 127, rel=1e-6)
    assert program.formats["c"] == program.formats["i"] == fixed(16, 11)


def test_saturation_is_counted():
    module, other, x = dynamic("LSTM")
    with torch.no_grad():
        module.weight_ih_l0 *= 1000
    other = rindle.quantize_dynamic(module, {nn.LSTM})
    other(x)
    assert other.saturations["input/input"] > 0
    before = other.saturations["input/input"]
    other(x)
    assert other.saturations["input/input"] == 2 * before


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 8, batch_first=True)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.gru(self.lstm(x)[0])[0])


@pytest.mark.parametrize(
    "spec, replaced",
    [(None, "lstm gru fc"), ({nn.GRU}, "gru"), ({"lstm"}, "lstm"), ({nn.LSTM, "fc"}, "lstm fc"), ([nn.Linear], "fc")],
)
def test_types_and_names_choose_what_is_replaced(spec, replaced):
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 6, 5)
    other = rindle.quantize_dynamic(net, spec)
    names = [name for name, module in other.named_children() if type(module) is not type(net.get_submodule(name))]
    assert names == replaced.split() and not other.training
    assert 0 < furthest(other(x), net(x)) < 0.05
    assert type(net.lstm) is nn.LSTM and type(net.gru) is nn.GRU
    same = rindle.quantize_dynamic(net, qconfig_spec=spec, dtype=torch.float16, mapping=None, inplace=True)
    assert same is net and type(net.get_submodule(names[0])) is not type(Net().get_submodule(names[0]))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_it_is_as_close_to_float_as_torchs_own(kind):
    """On a random network whose gates use their whole range; experiments/qat has real data."""
    ours, theirs = [], []
    for seed in range(5):
        torch.manual_seed(seed)
        module, x = nn.Sequential(kind(20, 48, batch_first=True)).eval(), torch.randn(8, 40, 20)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter *= 2
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                other = torch.ao.quantization.quantize_dynamic(module, {kind}, dtype=torch.qint8)
            wanted = module(x)[0]
            ours.append(float((rindle.quantize_dynamic(module, {kind})(x)[0] - wanted).square().mean().sqrt()))
            theirs.append(float((other(x)[0] - wanted).square().mean().sqrt()))
    assert np.mean(ours) < np.mean(theirs), (ours, theirs)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            (nn.GRU(2, 2), {nn.GRU}, torch.quint8),
            "dtype is torch.quint8; quantize_dynamic knows torch.qint8 and torch.float16",
        ),
        ((nn.GRU(2, 2), {nn.GRU}, torch.qint8, {}), "mapping is given"),
        ((nn.GRU(2, 2), {nn.GRU: 1}), "give a set of module types or of names"),
        ((nn.GRU(2, 2), {nn.Conv1d}), "quantize_dynamic replaces LSTM, GRU, RNN"),
        ((nn.GRU(2, 2), {nn.LSTM}), "GRU has none of the modules in qconfig_spec"),
        ((nn.Sequential(nn.GRU(2, 2)), {"1"}), "the model has no module '1'"),
        ((Net(), {"grux"}), "did you mean 'gru'"),
        ((nn.Sequential(nn.ReLU()), {"0"}), "0 is a ReLU; quantize_dynamic replaces"),
        ((nn.RNN(2, 2, nonlinearity="relu"), None), "rnn_relu, whose h has no bound; give calibration"),
        ((rindle.Recurrent(CELLS["ligru"], 2, 2), None), "ligru, whose h has no bound; give calibration"),
        ((rindle.SRU(2, 2), None), "sru.l0 reads its input outside of products, which has no bound; give calibration"),
        ((3, None), "model is a int; it must be a torch.nn.Module"),
    ],
)
def test_what_is_refused(arguments, words):
    with pytest.raises(RindleError, match=words):
        rindle.quantize_dynamic(*arguments)


def test_what_fails_leaves_a_model_in_place_as_it_was():
    net = nn.Sequential(nn.GRU(2, 2), nn.RNN(2, 2, nonlinearity="relu"))
    with pytest.raises(RindleError, match="whose h has no bound"):
        rindle.quantize_dynamic(net, inplace=True)
    assert type(net[0]) is nn.GRU
