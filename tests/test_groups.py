"""Calibration rows side by side: what is seen of them is what each batch alone would have shown."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from support import FEATURES, HIDDEN, BothDirections, Only, TorchModel, Words, sequences, words

import rindle
from rindle import RindleError
from rindle.nn.calibrate import groups
from rindle.nn.calibrate.plan import calibrate
from rindle.nn.capture.source import run_graph, source_of
from rindle.nn.quantize import calibrated

LENGTHS = [3, 9, 1, 9, 4, 7]
SCHEME = {"*": "fixed16 mmse median", "weight.*": "int8 max", "code.*": "int8 mmse"}


def whole_numbers(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """With weights of -1, 0 and 1, recurrent ones that only permute and change signs, and no bias: of whole numbers every
    product and sum is exact in float32, in whatever order.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            rows, columns = value.shape
            new = rng.integers(-1, 2, (rows, columns))
            if "_hh" in name:
                new = np.eye(rows)[rng.permutation(rows)] * rng.choice([-1, 1], rows)
            value.copy_(torch.from_numpy(new.astype(np.float32)))
    return module.eval()


@pytest.fixture(scope="module")
def exact():
    """A graph of both directions, of ReLUs."""
    rnn = torch.nn.RNN(FEATURES, 6, 2, nonlinearity="relu", bias=False, bidirectional=True, batch_first=True)
    return source_of(whole_numbers(Only(rnn))).capture(rows_of([(2, 5)])[0])[0]


def rows_of(shapes, seed: int = 0) -> list[np.ndarray]:
    """Batches [B, T, I] of multiples of 3: none is a power of two, where a histogram's last bin closes."""
    rng = np.random.default_rng(seed)
    return [3 * rng.integers(-20, 21, (*shape, FEATURES)).astype(np.float32) for shape in shapes]


def one_by_one(monkeypatch) -> None:
    monkeypatch.setattr(groups, "ROWS", 1)
    monkeypatch.setattr("rindle.nn.conversion.rounding.runs.ROWS", 1)


shapes = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 8)), min_size=1, max_size=6)


@given(shapes, st.sampled_from([2, 5, 64]), st.sampled_from([1, 2000, 2**26]), st.integers(0, 9))
@examples(25)
def test_a_plan_of_groups_is_the_plan_of_batches_one_by_one(exact, shapes, rows, elements, seed):
    data, plans = rows_of(shapes, seed), []
    for limits in ((1, 1), (rows, elements)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(groups, "ROWS", limits[0])
            patch.setattr(groups, "ELEMENTS", limits[1])
            plans.append(calibrate(exact, data, True, SCHEME | {"rnn.l0/code.*": "fixed8 mmse"}))
    alone, together = plans
    assert together.histograms.keys() == alone.histograms.keys()
    for key, one in alone.histograms.items():
        other = together.histograms[key]
        assert (other.top, other.largest) == (one.top, one.largest), key
        np.testing.assert_array_equal(other.counts, one.counts)
        assert {rule: sorted(steps) for rule, steps in other.steps.items()} == {
            rule: sorted(steps) for rule, steps in one.steps.items()
        }
    assert any(one.steps for one in alone.histograms.values())
    assert {name: layer.formats for name, layer in together.layers.items()} == {
        name: layer.formats for name, layer in alone.layers.items()
    }
    assert (together.input_format, together.batches, together.frames) == (
        alone.input_format,
        len(data),
        sum(b * t for b, t in shapes),
    )
    assert len(together.samples) == len(alone.samples) > 0
    assert all((one == other).all() for one, other in zip(together.samples, alone.samples))


@given(shapes, st.integers(1, 8), st.integers(1, 300))
def test_groups_hold_every_row_once_and_keep_their_limits(shapes, rows, elements):
    data = rows_of(shapes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "ROWS", rows)
        patch.setattr(groups, "ELEMENTS", elements)
        made = list(groups.groups(data, FEATURES))
    assert [number for group in made for number in group.batches] == list(range(len(data)))
    for group in made:
        sizes = [len(frame) for frame in group.frames]
        assert sizes == sorted(sizes, reverse=True)
        assert len(group.batches) == 1 or (sizes[0] <= rows and FEATURES * sum(sizes) <= elements)
        for number, batch in group.batches.items():
            np.testing.assert_array_equal(group.part(group.frames, number), batch)
    for one, following in pairwise(made):
        more = sum(batch[..., 0].size for batch in (*one.batches.values(), next(iter(following.batches.values()))))
        count = len(one.frames[0]) + len(next(iter(following.batches.values())))
        assert count > rows or FEATURES * more > elements  # as few groups as the limits allow


class Strided(torch.nn.Module):
    """Half as many frames, then an attention over them."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(FEATURES, HIDDEN, 3, stride=2, padding=1)
        self.rnn = torch.nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.score = torch.nn.Linear(HIDDEN, 1)

    def forward(self, x):
        y, _ = self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return (torch.softmax(self.score(y), 1) * y).sum(1)


MODELS = {
    "all frames": lambda: TorchModel("lstm"),
    "last": lambda: TorchModel("sru", "last"),
    "mean": lambda: TorchModel("gru", "mean"),
    "both directions": BothDirections,
    "ids": lambda: Words("all", "gru", True),
    "windows and attention": Strided,
}


@pytest.mark.fast(2)
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model(name, monkeypatch):
    """The formats, and what the check is given: a batch of each length, with the output that it alone has."""
    torch.manual_seed(0)
    net, plans = MODELS[name]().eval(), []
    make = words if name == "ids" else sequences
    data = [make(1 + k % 2, time, seed=k) for k, time in enumerate(LENGTHS)]
    graph, _ = source_of(net).capture(data[1])

    def check(x, y):
        shown.append(x.numpy())
        torch.testing.assert_close(y.float(), run_graph(graph, x), rtol=1e-5, atol=1e-6)

    for limit in (one_by_one, lambda _: None):
        with monkeypatch.context() as patch:
            limit(patch)
            shown = []
            plans.append(calibrate(graph, data, True, SCHEME, None, check))
        first = {batch.shape[1]: batch for batch in reversed(data)}
        shorter = data[0][:, :1]
        assert len(shown) == len(first) + 1
        for x in shown:
            assert (x == (shorter if x is shown[1] else first[x.shape[1]])).all()
    for node, layer in plans[0].layers.items():
        for path, fmt in layer.formats.items():
            other = plans[1].layers[node].formats[path]
            assert other.scale == pytest.approx(fmt.scale, rel=1e-5), (node, path)
            assert (other.bits, other.frac) == (fmt.bits, fmt.frac)


@pytest.mark.fast(1)
@pytest.mark.parametrize("words", ["gptq", "gptq actorder corrected"])
def test_rounding_sees_the_same_rows(words, monkeypatch):
    """In fixed point the sums of inputs are exact, and so the codes are equal."""
    rnn = torch.nn.LSTM(FEATURES, 6, bidirectional=True, batch_first=True)
    torch.manual_seed(0)
    net, data = Only(rnn).eval(), [sequences(1 + k % 2, time, seed=k) for k, time in enumerate(LENGTHS)]
    rules = {"*": "fixed16 max(1.25)", "weight.*": f"fixed3 mmse {words}", "code.*": "fixed8 mmse"}
    together = calibrated(net, rules, data).plan
    one_by_one(monkeypatch)
    alone = calibrated(net, rules, data).plan
    for name, layer in alone.layers.items():
        assert layer.codes and layer.codes.keys() == together.layers[name].codes.keys()
        for term, codes in layer.codes.items():
            np.testing.assert_array_equal(together.layers[name].codes[term], codes)
        for gate, bias in layer.biases.items():
            np.testing.assert_allclose(together.layers[name].biases[gate], bias, atol=1e-6)


@pytest.mark.parametrize("wrong", [(0,), (1,), (5,), (4, 1), (0, 5)])
def test_what_becomes_infinite_is_named_by_its_batch(wrong):
    """The first one, though a later one may be longer and so stand before it, and its first path."""
    model = TorchModel("gru").eval()
    with torch.no_grad():
        model.first.weight.fill_(1e30)
    data = [1e-3 * sequences(2, time, seed=k) for k, time in enumerate(LENGTHS)]
    for number in wrong:
        data[number][1, -1] = 1e30
    with pytest.raises(RindleError, match=rf"first/y becomes NaN or infinite on calibration batch {min(wrong)}$"):
        rindle.quantize(model, "int8", data)


class Chain(Only):
    """Two large factors before a GRU."""

    def __init__(self):
        super().__init__(torch.nn.GRU(FEATURES, HIDDEN, batch_first=True))
        self.one, self.two = torch.nn.Linear(FEATURES, FEATURES), torch.nn.Linear(FEATURES, FEATURES)
        with torch.no_grad():
            self.one.weight.fill_(1e20)
            self.two.weight.fill_(1e14)

    def forward(self, x):
        return super().forward(self.two(self.one(x)))


def test_the_first_batch_is_named_though_a_later_one_fails_in_an_earlier_path():
    data = [1e-3 * sequences(2, time, seed=k) for k, time in enumerate(LENGTHS)]
    data[1][0, 2], data[4][0, 2] = 1e10, 1e25
    with pytest.raises(RindleError, match=r"two/y becomes NaN or infinite on calibration batch 1$"):
        rindle.quantize(Chain().eval(), "int8", data)


class Sometimes(Only):
    """Is another model at some length."""

    def __init__(self, module, length: int):
        super().__init__(module)
        self.length = length

    def forward(self, x):
        return super().forward(x) * (2 if x.shape[1] == self.length else 1)


@pytest.mark.parametrize("length", sorted(set(LENGTHS)))
def test_a_model_that_differs_at_one_length_is_found(length):
    torch.manual_seed(0)
    net = Sometimes(torch.nn.GRU(FEATURES, HIDDEN, batch_first=True), length).eval()
    data = [sequences(2, time, seed=k) for k, time in enumerate([6, *LENGTHS])]
    with pytest.raises(RindleError, match=f"the captured graph differs from Sometimes by .* on {length} frames"):
        rindle.quantize(net, "int8", data)
