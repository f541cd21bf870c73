"""States from Python: read, given, and the same in every engine."""

import copy
import pickle

import numpy as np
import pytest
import torch
from support import FEATURES, quantized, sequences

import rindle
from rindle import RindleError, RindleWarning
from rindle.engines import reference
from rindle.nn import simulate
from rindle.numbers.formats import encode, encode_input


def states_of(model, generator, rows: int) -> dict[str, np.ndarray]:
    """Random codes for every state of a model: [rows, n]."""
    found = {}
    for name, (span, fmt) in model._states.items():
        found[name] = generator.integers(fmt.lo, fmt.hi + 1, (rows, span.stop - span.start))
    return found


@pytest.mark.fast(8)
def test_given_states_give_the_same_integers_in_every_engine(cell, scheme):
    model, generator = quantized(cell, scheme), np.random.default_rng(0)
    x, lengths = sequences(4, 9), np.array([9, 4, 1, 7])
    codes = states_of(model, generator, 4)
    wanted = reference.run(model.artifact, x, lengths, states=codes)
    simulated = simulate.run(model.artifact, x, lengths, states=codes)
    np.testing.assert_array_equal(simulated.codes, wanted.codes)
    assert simulated.saturations == wanted.saturations
    assert (wanted.codes != reference.run(model.artifact, x, lengths).codes).any()
    fmt = model.artifact.input_format
    for row, length in enumerate(lengths):
        stream = model.stream()
        values = {name: value[row] * model._states[name][1].scale for name, value in codes.items()}
        stream.set_states(values)
        found = stream.states()
        assert all(np.array_equal(found[name], values[name].astype(np.float32)) for name in values)
        for t in range(length):
            y = stream.step_codes(encode_input(x[row, t], fmt)[0].astype(np.int16))
            np.testing.assert_array_equal(y, wanted.codes[row, t])


def test_a_state_carries_on_where_a_sequence_was_cut(cell):
    """Its values say all: a stream that is given them goes on as the one that they came from, thresholds aside."""
    model, (x,) = quantized(cell, "int8"), sequences(1, 12)
    whole = model.run(x)
    first, second = model.stream(), model.stream()
    for frame in x[:5]:
        first.step(frame)
    second.set_states(first.states())
    for t in range(5, 12):
        np.testing.assert_array_equal(second.step(x[t]), whole[t])


def test_states_that_are_not_named_and_held_values_stay():
    model = quantized("lstm", "int8").with_thresholds({"rnn.l0/h": 3, "rnn.l1/x": 2})
    stream = model.stream()
    for frame in sequences(1, 6)[0]:
        stream.step(frame)
    saved, before = stream.save(), stream.states()
    stream.set_states({})
    assert stream.save() == saved
    size = len(before["rnn.l1/c"])
    stream.set_states({"rnn.l1/c": np.full(size, 0.25)})
    after = stream.states()
    assert (after["rnn.l1/c"] == 0.25).all()
    assert all(np.array_equal(after[name], before[name]) for name in before if name != "rnn.l1/c")
    stream.set_states({"rnn.l1/c": before["rnn.l1/c"]})
    assert stream.save() == saved  # v̂, too


def test_values_become_the_nearest_codes_and_saturate():
    model = quantized("gru", "int8")
    stream, (span, fmt) = model.stream(), model._states["rnn.l0/h"]
    values = np.random.default_rng(1).normal(0, 2, span.stop - span.start).astype(np.float32)
    stream.set_states({"rnn.l0/h": values})
    codes = encode(values, fmt.scale, fmt.lo, fmt.hi)
    assert (codes == fmt.hi).any() and (codes == fmt.lo).any()
    np.testing.assert_array_equal(stream.states()["rnn.l0/h"], (codes * fmt.scale).astype(np.float32))


@pytest.mark.parametrize(
    "states, words",
    [
        ({"rnn.l0/c": np.zeros(17)}, "no state named 'rnn.l0/c'; there are rnn.l0/h, rnn.l1/h"),
        ({"rnn.l0/h": np.zeros(3)}, r"the state rnn.l0/h is \[3\], or not finite; give 17 finite values"),
        ({"rnn.l0/h": np.full(17, np.nan)}, "or not finite"),
    ],
)
def test_what_is_refused_leaves_the_stream_as_it_was(states, words):
    stream = quantized("gru", "int8").stream()
    stream.step(sequences(1, 1)[0, 0])
    before = stream.save()
    with pytest.raises(RindleError, match=words):
        stream.set_states({"rnn.l1/h": np.ones(17), **states})
    assert stream.save() == before


def test_a_model_can_be_pickled_and_copied(cell):
    model, x = quantized(cell, "int8"), sequences(2, 5)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert isinstance(other, rindle.Model) and other.data == model.data and other.kernel == model.kernel
        np.testing.assert_array_equal(other.run(x), model.run(x))
    assert x.shape[2] == FEATURES


def test_a_given_state_that_saturates_is_counted_by_its_name():
    model = quantized("gru", "int8")
    stream, (span, fmt) = model.stream(), model._states["rnn.l0/h"]
    values = np.zeros(span.stop - span.start)
    stream.set_states({"rnn.l0/h": values})
    assert ("rnn.l0", "h") not in stream.measure().saturations
    values[:3] = 5 * fmt.hi * fmt.scale
    values[3] = fmt.hi * fmt.scale
    stream.set_states({"rnn.l0/h": values})
    assert stream.measure().saturations["rnn.l0", "h"] == 3
    with pytest.raises(RindleError):
        stream.set_states({"rnn.l0/h": values, "rnn.l1/h": np.full(3, np.nan)})
    assert stream.measure().saturations["rnn.l0", "h"] == 3, "what was refused is not counted"


class Stateful(torch.nn.Module):
    """A host keeps its states, which are far beyond what the layer reaches from zero."""

    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(6, 12, batch_first=True)

    def forward(self, x, *states):
        return self.rnn(x, states[0] if len(states) == 1 else states or None)[0]


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
def test_formats_take_the_initial_states_that_calibration_saw(kind):
    torch.manual_seed(0)
    net, x = Stateful(kind).eval(), torch.randn(16, 10, 6)
    large = [3 * torch.randn(1, 16, 12) for _ in range(2 if kind is torch.nn.LSTM else 1)]
    ready = rindle.prepare(net, "int8", lambda m: m(x, *large))
    made = rindle.convert(ready, whole=False)
    with torch.no_grad():
        wanted = net(x, *large)
        for found in (ready(x, *large), made(x, *large)):
            assert 10 * torch.log10(wanted.square().mean() / (wanted - found).square().mean()) > 25
    assert not [name for name in made.rnn.saturations if name in ("rnn.l0/h", "rnn.l0/c")]
    zeros = rindle.prepare(net, "int8", x)
    with pytest.warns(RindleWarning, match="elements of the initial state") as caught:
        zeros(x, *large)
    assert {str(one.message).split(" saturate")[0].split()[-1] for one in caught} <= {"l0/h", "l0/c"}
    made = rindle.convert(zeros, whole=False)
    made(x, *large)
    outside = int((large[0].abs() > 1.001).sum())
    assert abs(made.rnn.saturations["rnn.l0/h"] - outside) <= 2 and outside > 10
