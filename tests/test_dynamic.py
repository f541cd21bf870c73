"""quantize_dynamic: torch.ao's call, for every recurrent module."""

import copy
import math
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from modules_table import MODULES, SEQUENCES, assert_equal, flat, furthest, inputs, made, packed, row
from torch import nn
from torch.nn.utils.rnn import pad_packed_sequence

import rindle
from rindle import CELLS, RindleError, _core
from rindle.nn.back.dynamic_half import halves, whole
from rindle.nn.back.dynamic_modules import quantized

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments/qat"))
import dynamic as study


def dynamic(name: str, dtype=torch.qint8):
    module = made(name)
    return module, rindle.quantize_dynamic(module, {type(module)}, dtype), inputs(module)


@pytest.mark.parametrize("dtype, close", [(torch.qint8, 0.03), (torch.float16, 1e-3)])
@pytest.mark.parametrize("name", MODULES)
def test_it_is_close_to_float_with_the_same_forward(name, dtype, close):
    module, other, x = dynamic(name, dtype)
    wanted = module(x)
    assert 0 < furthest(other(x), wanted) < close
    states = wanted if name.endswith("Cell") else wanted[1]
    assert furthest(other(x, states), module(x, states)) < close
    assert [part.shape for part in flat(other(x))] == [part.shape for part in flat(wanted)]
    assert [part.dtype for part in flat(other(x))] == [part.dtype for part in flat(wanted)]


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_packed_row_is_that_row_alone_exactly(name):
    module, other, x = dynamic(name)
    lengths = [5, 9, 1, 7]
    y, finals = other(packed(module, x, lengths))
    y, _ = pad_packed_sequence(y, batch_first=True)
    for k, length in enumerate(lengths):
        alone, final = other(row(module, x, k, length))
        assert_equal(y[k, :length], (alone if module.batch_first else alone.transpose(0, 1))[0])
        assert_equal([state[:, k] for state in flat(finals)], [state[:, 0] for state in flat(final)])


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
def test_blocks_of_rows_and_chunks_of_frames_change_nothing(rows):
    torch.manual_seed(0)
    module = rindle.quantize_dynamic(nn.LSTM(5, 9, bidirectional=True), {nn.LSTM})
    x, lengths = torch.randn(70, rows, 5), torch.randint(1, 71, (rows,))
    y, (h, c) = module(nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
    y, _ = pad_packed_sequence(y)
    for k in {0, rows // 2, rows - 1}:
        alone, (one, other) = module(x[: lengths[k], k : k + 1])
        assert_equal((y[: lengths[k], k], h[:, k], c[:, k]), (alone[:, 0], one[:, 0], other[:, 0]))


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
@pytest.mark.parametrize("name", MODULES)
def test_copies_pickles_and_states_compute_the_same(name, dtype):
    module, one, x = dynamic(name, dtype)
    wanted = one(x)
    other = rindle.quantize_dynamic(made(name, seed=1), {type(module)}, dtype)
    assert furthest(other(x), wanted) > 0
    other.load_state_dict(one.state_dict())
    for copied in (other, copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert_equal(copied(x), wanted)
    matrices = {name: v for name, v in one.state_dict().items() if f"{name}_scale" in one.state_dict()}
    assert matrices and {v.dtype for v in matrices.values()} == {torch.int8 if dtype == torch.qint8 else torch.float16}


# ------------------------------------------------------------------------------------- the equations, over codes


def product(weight, x):
    """W.x in float64: int8 codes of both, a step per row of W and of x."""
    codes, steps = (part.numpy().astype(np.float64) for part in quantized(weight, "W"))
    step = np.abs(x).max(-1, keepdims=True) / 127
    return (np.rint(x / np.where(step > 0, step, 1)) @ codes.T) * step * steps


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def naive(module, x, h, c):
    """One layer of torch's over frames, products by product(), everything else in float64."""
    w, u, b, d = (getattr(module, f"{name}_l0").detach() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    v = module.weight_hr_l0.detach() if getattr(module, "proj_size", 0) else None
    b, d, outputs = b.double().numpy(), d.double().numpy(), []
    for frame in x.numpy():
        of_x, of_h = product(w, frame) + b, product(u, h) + d
        if isinstance(module, nn.LSTM):
            i, f, g, o = np.split(of_x + of_h, 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            h = h if v is None else product(v, h)
        elif isinstance(module, nn.GRU):
            (xr, xz, xn), (hr, hz, hn) = np.split(of_x, 3, -1), np.split(of_h, 3, -1)
            z = sigmoid(xz + hz)
            h = (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * h
        else:
            h = np.tanh(of_x + of_h) if module.nonlinearity == "tanh" else np.maximum(of_x + of_h, 0)
        outputs.append(h)
    return np.stack(outputs), h, c


LAYERS = {
    "lstm": lambda: nn.LSTM(7, 19),
    "lstm_projection": lambda: nn.LSTM(7, 19, proj_size=5),
    "gru": lambda: nn.GRU(7, 19),
    "rnn_tanh": lambda: nn.RNN(7, 19),
    "rnn_relu": lambda: nn.RNN(7, 19, nonlinearity="relu"),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_its_equations_over_codes(kind):
    """One frame from given states, so that no code can fall to the other side of a rounding."""
    torch.manual_seed(1)
    module = LAYERS[kind]()
    x, h, c = torch.randn(1, 6, 7), torch.randn(6, getattr(module, "proj_size", 0) or 19), torch.randn(6, 19)
    x[0, 1], h[2] = 0, 0
    wanted = naive(module, x, h.double().numpy(), c.double().numpy())
    states = (h[None], c[None]) if isinstance(module, nn.LSTM) else h[None]
    y, finals = rindle.quantize_dynamic(module)(x, states)
    found = (y, *(state[0] for state in (finals if isinstance(finals, tuple) else (finals,))))
    for one, other in zip(wanted, found):
        np.testing.assert_allclose(other.numpy(), one, rtol=2e-6, atol=2e-6)


def core_layer(module, kind: str, kernel: str | None = None):
    names = ("weight_ih_l0", "weight_hh_l0", "weight_hr_l0")
    weights = [tuple(part.numpy() for part in quantized(getattr(module, n), n)) for n in names if hasattr(module, n)]
    return _core.DynamicLayer(
        kind, weights, *(getattr(module, n).detach().numpy() for n in ("bias_ih_l0", "bias_hh_l0")), kernel
    )


def run_core(layer, x, h, c, rows=None, reverse=False):
    y = np.empty((len(x), h.shape[1]), np.float32)
    h, c = h.copy(), None if c is None else c.copy()
    layer.run(x, np.array([len(x)] if rows is None else rows), reverse, h, c, y)
    return [y, h] + ([] if c is None else [c])


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kernel_gives_the_same_floats(kind):
    torch.manual_seed(2)
    module, rng = LAYERS[kind](), np.random.default_rng(0)
    x = rng.normal(size=(300, 7)).astype(np.float32) * 3
    h = rng.normal(size=(100, getattr(module, "proj_size", 0) or 19)).astype(np.float32)
    c = rng.normal(size=(100, 19)).astype(np.float32) * 20 if kind.startswith("lstm") else None
    results = [run_core(core_layer(module, kind, kernel), x, h, c, [100, 100, 100]) for kernel in _core.kernels()]
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_array_equal(a, b)


def test_sigmoid_and_tanh_are_as_good_as_floats_can_be():
    """Through an RNN and a GRU without weights: over all of their range, relative to float64."""
    v = np.concatenate([np.linspace(-100, 100, 40001), np.geomspace(1e-30, 1, 2000), -np.geomspace(1e-30, 1, 2000)])
    v = v.astype(np.float32)

    def module(kind, gates, bias):
        codes = (np.zeros((gates * n, 1), np.int8), np.ones(gates * n, np.float32))
        return _core.DynamicLayer(
            kind, [codes, (np.zeros((gates * n, n), np.int8), codes[1])], bias, np.zeros_like(bias), None
        )

    for part in np.array_split(v, -(-len(v) // 3000)):
        n = len(part)
        x, h = np.zeros((1, 1), np.float32), np.zeros((1, n), np.float32)
        y = run_core(module("rnn_tanh", 1, part), x, h, None)[0][0]
        wanted = np.tanh(part.astype(np.float64))
        assert (np.abs(y - wanted) <= 3e-7 * np.abs(wanted)).all()
        # h = z * 1 + (1 - z) * tanh(0)
        bias = np.concatenate([np.zeros(n), part, np.zeros(n)]).astype(np.float32)
        y = run_core(module("gru", 3, bias), x, np.ones((1, n), np.float32), None)[0][0]
        wanted = 1 / (1 + np.exp(-np.clip(part.astype(np.float64), -87, 87)))
        assert (np.abs(y - wanted) <= 4e-7 * wanted).all()


def test_a_linear_product_sums_codes_exactly():
    """Against int64: codes of x per row, codes of W, their sum, and three scales."""
    generator = torch.Generator().manual_seed(0)
    for columns in (7, 1500):
        module = nn.Linear(columns, 5)
        with torch.no_grad():
            module.weight[3] = 0
        x = torch.randn(70, columns, generator=generator) * torch.logspace(-3, 3, 70)[:, None]
        x[2] = 0
        y = rindle.quantize_dynamic(module)(x.reshape(7, 10, columns)).reshape(70, 5)
        np.testing.assert_allclose(
            y.numpy(), product(module.weight, x.numpy()) + module.bias.detach().numpy(), rtol=1e-5, atol=1e-6
        )


def test_weights_of_half_precision_lose_nothing_by_their_range():
    weight = torch.tensor([[1e-7, 3e-8, 0.0], [1e5, 7.0, -3e4], [1e-42, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, -0.1, 1e-4]])
    values = whole(*halves(weight))
    assert ((values - weight).abs() <= weight.abs() * 2**-11).all()


# ---------------------------------------------------------------------------------------------- right by default


def snr(wanted, found) -> float:
    return float(10 * torch.log10(wanted.double().square().mean() / (wanted - found).double().square().mean()))


def test_cells_that_integrate_and_states_of_any_size():
    """c grows to hundreds; then it starts at 10^6. What fixed(16,11) once held ends at 16."""
    torch.manual_seed(0)
    module = nn.LSTM(4, 16, batch_first=True)
    with torch.no_grad():
        module.bias_ih_l0[:32] = 8.0
        module.bias_ih_l0[32:48] = 2.0
    x, other = torch.randn(3, 600, 4), rindle.quantize_dynamic(module)
    with torch.no_grad():
        y, (_, c) = module(x)
        assert c.abs().max() > 400 and snr(c, other(x)[1][1]) > 40 and snr(y, other(x)[0]) > 40
        states = (torch.randn(1, 3, 16) * 300, torch.randn(1, 3, 16) * 1e6)
        wanted, found = module(x, states), other(x, states)
        assert snr(wanted[0], found[0]) > 30 and snr(wanted[1][1], found[1][1]) > 60


def test_cells_that_forget_slowly():
    torch.manual_seed(0)
    module = nn.GRU(4, 24, batch_first=True)
    with torch.no_grad():
        module.bias_ih_l0[24:48] = 7.0
    x = torch.randn(2, 4000, 4)
    with torch.no_grad():
        assert snr(module(x)[0], rindle.quantize_dynamic(module)(x)[0]) > 35


@pytest.mark.parametrize("units, projected", [(24, 8), (384, 128)])
def test_a_projection_far_below_its_bound(units, projected):
    torch.manual_seed(0)
    module, x = nn.LSTM(12, units, 2, proj_size=projected), torch.randn(10, 2, 12)
    with torch.no_grad():
        assert snr(module(x)[0], rindle.quantize_dynamic(module)(x)[0]) > 25


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
        (
            (nn.Sequential(rindle.Recurrent(CELLS["convlstm"], 12, 24, image=(3, 4), kernel=(3, 3))), None),
            "0 has convolutions, which quantize_dynamic cannot do; take rindle.quantize",
        ),
        (
            (nn.Sequential(nn.Linear(200_000, 1)), None),
            "0.weight has 200000 columns; quantized dynamically it may have 133144",
        ),
        ((3, None), "model is a int; it must be a torch.nn.Module"),
    ],
)
def test_what_is_refused(arguments, words):
    with pytest.raises(RindleError, match=words):
        rindle.quantize_dynamic(*arguments)


def test_what_fails_leaves_a_model_in_place_as_it_was():
    net = nn.Sequential(nn.GRU(2, 2), nn.RNN(2, 2))
    with torch.no_grad():
        net[1].weight_hh_l0[0, 0] = torch.nan
    with pytest.raises(RindleError, match=r"1\.weight_hh_l0 holds NaN or infinity"):
        rindle.quantize_dynamic(net, inplace=True)
    assert type(net[0]) is nn.GRU


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda m, x: m(x * torch.nan), "the input holds NaN or infinity"),
        (lambda m, x: m(x, torch.full((1, 2, 6), torch.inf)), "an initial state holds NaN or infinity"),
        (lambda m, x: m(x[..., :2]), "the module takes 3 features"),
        (lambda m, x: m(x[:0]), "the input has no frames"),
        (lambda m, x: m(x, torch.zeros(1, 2, 5)), r"the initial state h is \[1, 2, 5\]; it must be \[1, 2, 6\]"),
        (lambda m, x: m.train(), "was quantized dynamically and cannot be trained"),
        (lambda m, x: m(x.requires_grad_())[0].sum().backward(), "holds integers and cannot be trained"),
        (lambda m, x: rindle.save(m, "m.rindle"), "the module was quantized dynamically: .* rindle.quantize makes"),
        (lambda m, x: rindle.save(nn.Sequential(m), "m.rindle"), "0 was quantized dynamically"),
    ],
)
def test_what_a_module_refuses(call, words):
    torch.manual_seed(0)
    with pytest.raises(RindleError, match=words):
        call(rindle.quantize_dynamic(nn.GRU(3, 6)), torch.randn(4, 2, 3))


def test_a_row_that_diverges_is_nan_alone():
    """A ReLU may grow without end: its row ends as in float, and no other row hears of it."""
    module = nn.RNN(1, 2, nonlinearity="relu")
    with torch.no_grad():
        module.weight_hh_l0.copy_(torch.eye(2) * 1e20)
    other = rindle.quantize_dynamic(module)
    x = torch.stack([torch.ones(6, 1), torch.zeros(6, 1)], 1)
    with torch.no_grad():
        module.bias_ih_l0[:], module.bias_hh_l0[:], module.weight_ih_l0[:] = 0, 0, 1
    other = rindle.quantize_dynamic(module)
    y = other(x)[0]
    assert not y[-1, 0].isfinite().any() and (y[:, 1] == 0).all()


def test_weights_that_are_written_to_count():
    """By load_state_dict and in place; the core's packed copy follows."""
    torch.manual_seed(0)
    one, two, x = rindle.quantize_dynamic(nn.GRU(3, 6)), rindle.quantize_dynamic(nn.GRU(3, 6)), torch.randn(4, 2, 3)
    before = one(x)
    assert furthest(before, two(x)) > 0
    one.load_state_dict(two.state_dict())
    assert_equal(one(x), two(x))
    one.bias_ih_l0 += 1
    assert furthest(one(x), two(x)) > 0
    with torch.inference_mode():
        third = rindle.quantize_dynamic(nn.GRU(3, 6))
        before = third(x)
        third.load_state_dict(two.state_dict())
        assert_equal(third(x), two(x))


@pytest.mark.fast(0)
def test_memory_of_modules_that_are_gone_is_given_back():
    import gc

    from rindle.nn.back.dynamic_ops import packed

    for _ in range(5):
        rindle.quantize_dynamic(nn.GRU(3, 6))(torch.randn(4, 2, 3))
        gc.collect()
    assert (
        sum(all(not s.expired() for s in storages) for storages, _ in packed._entries.values())
        < len(packed._entries) + 1
    )
    alive = len(packed._entries)
    for _ in range(20):
        rindle.quantize_dynamic(nn.GRU(3, 6))(torch.randn(4, 2, 3))
        gc.collect()
    assert len(packed._entries) <= alive + 1


# ---------------------------------------------------------------------------------------------- beside torch.ao's


def test_on_random_networks_it_is_never_worse_than_torchs_own():
    """Ten short ones of the study's, whose 40 are in experiments/qat/README.md."""
    rows = study.accuracy(10, quick=True)
    beside = [row["rindle"] - row["torch.ao"] for row in rows if not math.isnan(row["torch.ao"])]
    assert len(beside) == 9 and min(beside) > -1 and np.median(beside) > 6, rows
    assert min(row["rindle"] for row in rows) > 20, rows


def test_half_precision_is_never_worse_than_torchs_own():
    for index in range(4):
        module, x = study.draw(index, 4, quick=True)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kinds = {nn.LSTM, nn.GRU}
            other = torch.ao.quantization.quantize_dynamic(nn.Sequential(module), kinds, dtype=torch.float16)
            wanted = module(x)[0]
            found = rindle.quantize_dynamic(module, kinds, torch.float16)(x)[0]
            assert study.snr(wanted, found) > study.snr(wanted, other(x)[0]) - 1
