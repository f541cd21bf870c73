"""One call from a trained module to a model of integers, and the fake-quantized interpreter that training will use."""

import numpy as np
import pytest
import torch
from support import FEATURES, Only, TorchModel, quantized, recurrent, sequences
from torch import nn

import rindle
from rindle import RindleError
from rindle.file.container import dumps
from rindle.nn.calibrate.plan import calibrate
from rindle.nn.capture.frontend import capture
from rindle.nn.numerics import FakeQuantized, FloatLayer, Real, fake_quantize
from rindle.program.nodes import run_layer

CLOSE = {"int8": 0.05, "w4a8": 0.25, "fixed16": 0.002, "fixed8": 0.06}  # of the outputs' range


@pytest.mark.fast(12)
def test_integers_are_close_to_float(cell, scheme, head):
    torch.manual_seed(0)
    model = TorchModel(cell, head).eval()
    x = sequences(16, 25, seed=7)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    found = quantized(cell, scheme, head).run(x)
    assert found.shape == wanted.shape
    assert np.sqrt(np.square(found - wanted).mean()) < CLOSE[scheme] * (wanted.max() - wanted.min())


def test_training_mode_and_parameters_are_left_alone():
    model = TorchModel("lstm").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rindle.quantize(model, "int8", sequences())
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_same_call_gives_the_same_file():
    torch.manual_seed(0)
    model = TorchModel("gru").eval()
    first, second = (rindle.quantize(model, "int8", sequences()) for _ in range(2))
    assert dumps(first.artifact) == dumps(second.artifact)


def test_provenance_says_where_it_came_from():
    model = TorchModel("gru").eval()
    overrides = {"weight.*": "int6 max"}
    first = rindle.quantize(model, "w4a8", sequences(), overrides).artifact.provenance
    assert first["scheme"] == "w4a8" and first["overrides"] == overrides
    assert first["calibration"] == {"batches": 1, "frames": 160}
    assert first["model"]["class"] == "TorchModel"
    with torch.no_grad():
        model.last.bias[0] += 1
    second = rindle.quantize(model, "w4a8", sequences(), overrides).artifact.provenance
    assert first["model"]["sha256"] != second["model"]["sha256"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((lambda x: x, "int8", sequences()), "model is a function; it must be a torch.nn.Module"),
        ((TorchModel("gru"), "int8"), "calibration is missing"),
        ((TorchModel("gru"), "int7", sequences()), "unknown scheme 'int7'; did you mean 'int8'"),
        ((TorchModel("gru"), "int8", sequences(), {"rnn.l0/n.tan": "fixed16"}), "did you mean 'rnn.l0/n.tanh'"),
    ],
)
def test_what_is_refused(arguments, words):
    with pytest.raises(RindleError, match=words):
        rindle.quantize(*arguments)


class Sneaky(nn.Module):
    """Adds nothing at the captured length, and something at every other: export specializes the branch away."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(FEATURES, 2)
        self.other = nn.Linear(FEATURES, 2)

    def forward(self, x):
        return self.fc(x) if x.shape[1] == 20 else self.other(x)


class Impure(nn.Module):
    """Behaves otherwise while it is exported."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(FEATURES, 2)

    def forward(self, x):
        return self.fc(x) if torch.compiler.is_exporting() else self.fc(2 * x)


@pytest.mark.parametrize(
    "batches",
    [[sequences(8, 20), sequences(8, 9)], [sequences(8, 9), sequences(8, 20)], [sequences(8, 20)]],
)
def test_a_graph_that_is_not_the_model_is_refused(batches):
    """Some of the data take the other branch: no integers may come of it."""
    with pytest.raises(RindleError, match="the captured graph differs from Sneaky by"):
        rindle.quantize(Sneaky(), "int8", batches)


def test_the_captured_graph_is_compared_with_the_model():
    with pytest.raises(RindleError, match="the captured graph differs from Impure by"):
        rindle.quantize(Impure(), "int8", sequences())


# ------------------------------------------------------------------------------------------- fake quantization


def test_fake_quantize_is_equation_3_with_a_straight_through_gradient():
    fmt = rindle.fixed(4, 1)
    v = torch.tensor([-100.0, -3.5, -0.25, -0.24, 0.0, 0.25, 0.3, 3.5, 3.74, 3.75, 100.0], requires_grad=True)
    y = fake_quantize(v, fmt.scale, fmt)
    assert y.tolist() == [-3.5, -3.5, 0.0, 0.0, 0.0, 0.5, 0.5, 3.5, 3.5, 3.5, 3.5]
    y.sum().backward()
    assert v.grad.tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]


def planned(cell: str, scheme: str):
    torch.manual_seed(0)
    module = Only(recurrent(cell, FEATURES, FEATURES, batch_first=True))
    x = torch.from_numpy(sequences(6, 15))
    graph, batch_first = capture(module, x)
    plan = calibrate(graph, x, batch_first, scheme)
    return graph.nodes[0].layer, plan, x


def run_float(numerics, x):
    outputs, *_ = run_layer(numerics.program, numerics, [(frame,) for frame in x.unbind(1)], *numerics.initial(len(x)))
    return torch.stack(outputs, 1)


@pytest.mark.fast(8)
def test_the_fake_quantized_interpreter_runs_and_passes_gradients(cell, scheme):
    layer, plan, x = planned(cell, scheme)
    blocks = {name: value.clone().requires_grad_() for name, value in layer.blocks.items()}
    fake = FakeQuantized(FloatLayer(layer.program, blocks), plan.layers["rnn.l0"])
    fake.program = plan.layers["rnn.l0"].program
    y = run_float(fake, x)
    wanted = run_float(Real(layer), x)
    assert (y - wanted).abs().max() < 4 * CLOSE[scheme]
    assert not torch.equal(y, wanted)
    fmt = plan.layers["rnn.l0"].formats[fake.program.output]
    codes = y / fmt.scale
    assert torch.equal(codes, codes.round())
    y.square().sum().backward()
    for name, block in blocks.items():
        assert block.grad is not None and torch.isfinite(block.grad).all() and block.grad.any(), name


@pytest.mark.fast(6)
def test_fake_quantized_values_follow_the_integers(cell):
    """Not equal by promise, but the same grid and mostly the same codes."""
    layer, plan, x = planned(cell, "int8")
    fake = FakeQuantized(FloatLayer(layer.program, layer.blocks), plan.layers["rnn.l0"])
    fmt = plan.input_format
    with torch.no_grad():
        y = run_float(fake, fake_quantize(x, fmt.scale, fmt)).numpy()
    torch.manual_seed(0)
    module = Only(recurrent(cell, FEATURES, FEATURES, batch_first=True))
    integers = rindle.quantize(module, "int8", x).run(x.numpy())
    assert np.abs(y - integers).max() < 0.02
