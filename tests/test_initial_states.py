"""Initial states that a model has of its own: learned, expanded over the rows, kept in the file and begun from everywhere."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from exported import assert_exact, with_extremes
from support import KERNELS, assert_agree, assert_naive, random_frames
from test_laws import some_thresholds
from torch import nn

import rindle
from rindle import RindleError, RindleWarning
from rindle import _core as core
from rindle.engines.golden import with_thresholds
from rindle.file.container import dumps, loads
from rindle.file.diff import compare
from rindle.measure.analysis import analyse
from rindle.nn.back.dequantize import NoTorchForm, stages
from rindle.nn.capture.source import float_outputs

KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


class Net(nn.Module):
    """States far beyond what the layer reaches from zero, so that a clipped one would show."""

    def __init__(self, kind="LSTM", bidirectional=False, layers=1, own=False):
        super().__init__()
        made = rindle.Recurrent(rindle.CELLS[kind.lower()], 4, 8, layers, batch_first=True) if own else None
        self.rnn = made or KINDS[kind](4, 8, layers, batch_first=True, bidirectional=bidirectional)
        parts = (1 + bidirectional) * layers
        self.h, self.c = (nn.Parameter(scale * torch.randn(parts, 1, 8)) for scale in (1.5, 3.0))
        self.fc, self.both = nn.Linear(8 * (1 + bidirectional), 3), kind == "LSTM"

    def forward(self, x):
        h = self.h.expand(-1, x.shape[0], -1).contiguous()
        return self.fc(self.rnn(x, (h, self.c.repeat(1, x.shape[0], 1)) if self.both else h)[0])


def made(*arguments, **options):
    torch.manual_seed(0)
    net, x = Net(*arguments, **options).eval(), torch.randn(8, 12, 4)
    return net, x, rindle.quantize(net, "int8", x)


def snr(wanted, found) -> float:
    wanted, found = np.asarray(wanted, np.float64), np.asarray(found, np.float64)
    return 10 * np.log10((wanted**2).mean() / ((wanted - found) ** 2).mean())


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "LSTM"},
        {"kind": "GRU"},
        {"kind": "RNN"},
        {"kind": "LSTM", "bidirectional": True, "layers": 2},
        {"kind": "GRU", "bidirectional": True, "layers": 2},
        {"kind": "LSTM", "layers": 2, "own": True},
        {"kind": "GRU", "own": True},
    ],
)
def test_every_engine_begins_from_learned_states(options):
    net, x, model = made(**options)
    with torch.no_grad():
        wanted = net(x).numpy()
        short = net(x[:2, :2]).numpy()  # where the first states weigh most
    assert snr(wanted, model.run(x.numpy())) > 30 and snr(short, model.run(x[:2, :2].numpy())) > 30
    assert model.artifact.version == 4 and model.artifact.needs == ("initial_states",)
    artifact = model.artifact
    lengths = np.array([5, 12, 1, 8, 3, 12, 2, 7])
    for one in (artifact, with_thresholds(artifact, some_thresholds(artifact, 0.1))):
        assert_agree(one, x.numpy(), lengths)
        assert_naive(one, random_frames(np.random.default_rng(0), one, 2, 4), np.array([4, 2]))
        assert dumps(loads(dumps(one))) == dumps(one)
    trained = rindle.prepare(net, "int8", x)
    with torch.no_grad():
        assert snr(wanted, trained(x).numpy()) > 30
    assert snr(wanted, rindle.convert(trained).run(x.numpy())) > 30
    assert snr(wanted, rindle.convert(trained, whole=False)(x).numpy()) > 30


def test_the_float_graph_and_the_analysis_begin_there_too():
    net, x, model = made("GRU")
    from rindle.file.dataset import dataset
    from rindle.nn.quantize import calibrated

    planned = calibrated(net, "int8", x)
    with torch.no_grad():
        assert snr(net(x).numpy(), float_outputs(planned.plan.graph, dataset(x.numpy()))) > 100
    for found in (analyse(model.artifact, dataset(x.numpy())), planned.analysis(model, dataset(x.numpy()))):
        assert all(one.sqnr > 25 for one in found.paths if one.path in ("h.next", "y"))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_stream_begins_and_resets_to_them(kernel):
    _, x, model = made("LSTM")
    model = rindle.Model(model.artifact, kernel=kernel)
    frames, wanted = x[0].numpy(), model.run(x[:1].numpy())[0]
    stream = model.stream()
    begins = stream.states()
    for state in ("h", "c"):
        codes, fmt = model.artifact.graph.node("rnn.l0").layer.initial[state], model._states[f"rnn.l0/{state}"][1]
        np.testing.assert_array_equal(begins[f"rnn.l0/{state}"], (codes * fmt.scale).astype(np.float32))
        assert np.abs(codes).max() > 1000
    fresh = stream.save()
    np.testing.assert_array_equal([stream.step(frame) for frame in frames], wanted)
    after = stream.save()
    stream.reset()
    assert stream.save() == fresh
    np.testing.assert_array_equal([stream.step(frame) for frame in frames], wanted)
    other = model.stream()
    other.restore(after)
    assert other.save() == after != fresh
    other.set_states({"rnn.l0/h": np.zeros(8), "rnn.l0/c": np.zeros(8)})
    assert not np.array_equal(other.step(frames[0]), wanted[0]), "zeros may still be given"


def test_c_begins_from_them(tmp_path):
    for number, (kind, share) in enumerate((("LSTM", None), ("GRU", 0.1))):
        _, _, model = made(kind, layers=2)
        artifact = model.artifact
        artifact = with_thresholds(artifact, some_thresholds(artifact, share)) if share else artifact
        assert_exact(with_extremes(artifact), tmp_path / str(number))


def test_what_begins_at_zero_is_written_as_before():
    net, x, _ = made("GRU")
    with torch.no_grad():
        net.h.zero_()
    assert rindle.quantize(net, "int8", x).artifact.version == 1
    with torch.no_grad():
        net.h += 1e-9  # less than half a code
    assert rindle.quantize(net, "int8", x).artifact.version == 1


def test_states_are_part_of_what_a_model_is():
    _, _, model = made("GRU")
    nodes = tuple(
        replace(node, layer=replace(node.layer, initial={"h": node.layer.initial["h"] + 1}))
        if node.name == "rnn.l0"
        else node
        for node in model.artifact.graph.nodes
    )
    other = rindle.Model(replace(model.artifact, graph=replace(model.artifact.graph, nodes=nodes)))
    assert other.id != model.id
    assert ("rnn.l0/h", "initial") in {(one.where, one.what) for one in compare(model.artifact, other.artifact)}
    with pytest.raises(RindleError, match="another"):
        other.stream().restore(model.stream().save())
    with pytest.raises(NoTorchForm, match="begins from states of its own"):
        stages(model.artifact)


def test_codes_beyond_a_states_format_are_refused():
    net, x, _ = made("GRU")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RindleWarning)
        artifact = rindle.quantize(net, "int8", x, {"rnn.l0/h": "fixed(8,6)"}).artifact
    layer = artifact.graph.node("rnn.l0").layer
    assert layer.formats["h"].hi == 127
    for code in (128, -128):
        spoiled = replace(layer, initial={"h": np.full(8, code)})
        nodes = tuple(replace(n, layer=spoiled) if n.name == "rnn.l0" else n for n in artifact.graph.nodes)
        data = dumps(replace(artifact, graph=replace(artifact.graph, nodes=nodes)))
        with pytest.raises(RindleError, match=rf"initial.*{code}"):
            loads(data)
        with pytest.raises(ValueError, match=rf"initial.*{code}"):
            core.Model(data, None)


def test_a_learned_state_beyond_a_given_format_is_told_of():
    net, x, _ = made("GRU")
    with pytest.warns(
        RindleWarning, match=r"elements of the initial state rnn.l0/h saturate: up to .*, where its format ends at 1;"
    ):
        rindle.quantize(net, "int8", x, {"rnn.l0/h": "fixed(16,15)"})


def test_an_exported_program_keeps_them():
    net, x, model = made("LSTM")
    for shapes in (None, ({0: torch.export.Dim("rows", min=2)},)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(net, (x,), dynamic_shapes=shapes)
        assert rindle.quantize(program, "int8", x).id == model.id
