"""What torch.export shows of a model, and what is refused: every refusal names the operation and the module path."""

import numpy as np
import pytest
import support
import torch
from operations import Model
from support import CELLS, FEATURES, HIDDEN, VOCABULARY, MixedCells, TorchModel, Words, sequences, words
from torch import nn

import rindle
from rindle import RindleError
from rindle.nn.calibrate.plan import Recorder
from rindle.nn.capture.frontend import capture
from rindle.nn.numerics import RealArrays
from rindle.program.graph import execute

X = torch.from_numpy(sequences(3, 7))


def gru(layers=1, **options):
    return nn.GRU(FEATURES, HIDDEN, layers, **{"batch_first": True} | options)


def lstm(layers=1, **options):
    return nn.LSTM(FEATURES, HIDDEN, layers, **{"batch_first": True} | options)


def recurrent(cell, layers=2, **options):
    return support.recurrent(cell, FEATURES, FEATURES, layers, **{"batch_first": True} | options)


def head(size=HIDDEN):
    return nn.Linear(size, 3)


def both(k, source):
    """The nodes of a bidirectional layer."""
    layer, backward = f"rnn.l{k}", f"rnn.l{k}_reverse"
    return [f"{layer} program {source}", f"{backward} program {source}", f"{layer}.concat concat {layer},{backward}"]


def joined(h):
    return torch.cat([h[-2], h[-1]], 1)


CAPTURED = (
    {
        "a GRU's frames": (Model(lambda m, x: m.rnn(x)[0], rnn=gru()), ["rnn.l0 program input"]),
        "an LSTM's frames": (
            Model(lambda m, x: m.rnn(x)[0], rnn=lstm(2)),
            ["rnn.l0 program input", "rnn.l1 program rnn.l0"],
        ),
        "the last frame": (
            Model(lambda m, x: m.fc(m.rnn(x)[0][:, -1]), rnn=gru(), fc=head()),
            ["rnn.l0 program input", "rnn.l0.last last rnn.l0", "fc program rnn.l0.last"],
        ),
        "the last frame, all features": (
            Model(lambda m, x: m.rnn(x)[0][:, -1, :], rnn=gru()),
            ["rnn.l0 program input", "rnn.l0.last last rnn.l0"],
        ),
        "the final state of a GRU": (
            Model(lambda m, x: m.fc(m.rnn(x)[1][-1]), rnn=gru(2), fc=head()),
            ["rnn.l0 program input", "rnn.l1 program rnn.l0", "rnn.l1.last last rnn.l1", "fc program rnn.l1.last"],
        ),
        "the final state of the first layer": (
            Model(lambda m, x: m.rnn(x)[1][0], rnn=gru(2)),
            ["rnn.l0 program input", "rnn.l0.last last rnn.l0"],
        ),
        "the final h of an LSTM": (
            Model(lambda m, x: m.rnn(x)[1][0][-1], rnn=lstm()),
            ["rnn.l0 program input", "rnn.l0.last last rnn.l0"],
        ),
        "the squeezed final state": (
            Model(lambda m, x: m.rnn(x)[1].squeeze(0), rnn=gru()),
            ["rnn.l0 program input", "rnn.l0.last last rnn.l0"],
        ),
        "the first frame": (
            Model(lambda m, x: m.rnn(x)[0][:, 0], rnn=gru()),
            ["rnn.l0 program input", "rnn.l0.first first rnn.l0"],
        ),
        "both directions": (
            Model(lambda m, x: m.fc(m.rnn(x)[0]), rnn=lstm(2, bidirectional=True), fc=head(2 * HIDDEN)),
            [*both(0, "input"), *both(1, "rnn.l0.concat"), "fc program rnn.l1.concat"],
        ),
        "both directions without bias": (
            Model(lambda m, x: m.rnn(x)[0], rnn=gru(bidirectional=True, bias=False)),
            both(0, "input"),
        ),
        "the last frame of both directions": (
            Model(lambda m, x: m.rnn(x)[0][:, -1], rnn=gru(bidirectional=True)),
            [*both(0, "input"), "rnn.l0.concat.last last rnn.l0.concat"],
        ),
        "the mean of both directions": (
            Model(lambda m, x: m.rnn(x)[0].mean(1), rnn=lstm(bidirectional=True)),
            [*both(0, "input"), "rnn.l0.concat.mean mean rnn.l0.concat"],
        ),
        "the final states of both directions": (
            Model(lambda m, x: joined(m.rnn(x)[1][0]), rnn=lstm(2, bidirectional=True)),
            [
                *both(0, "input"),
                *both(1, "rnn.l0.concat")[:2],
                "rnn.l1.last last rnn.l1",
                "rnn.l1_reverse.first first rnn.l1_reverse",
                "forward.concat concat rnn.l1.last,rnn.l1_reverse.first",
            ],
        ),
        "the final state of the reversed direction of the first layer": (
            Model(lambda m, x: m.rnn(x)[1][1], rnn=gru(2, bidirectional=True)),
            ["rnn.l0_reverse program input", "rnn.l0_reverse.first first rnn.l0_reverse"],
        ),
        "several cells": (
            MixedCells(),
            [
                "gru.l0 program input",
                "lstm.l0 program gru.l0",
                "lstm.l0_reverse program gru.l0",
                "lstm.l0.concat concat lstm.l0,lstm.l0_reverse",
                "forward.concat concat lstm.l0.concat,input",
                "sru.l0 program forward.concat",
                "last program sru.l0",
            ],
        ),
        "one sequence": (Model(lambda m, x: m.fc(torch.cat([x], -1)), fc=head(FEATURES)), ["fc program input"]),
        "the mean over time": (
            Model(lambda m, x: m.fc(m.rnn(x)[0].mean(1)), rnn=lstm(), fc=head()),
            ["rnn.l0 program input", "rnn.l0.mean mean rnn.l0", "fc program rnn.l0.mean"],
        ),
        "the mean by its negative dimension": (
            Model(lambda m, x: m.rnn(x)[0].mean(dim=-2), rnn=lstm()),
            ["rnn.l0 program input", "rnn.l0.mean mean rnn.l0"],
        ),
        "one module used twice": (
            Model(lambda m, x: m.fc(m.fc(x)), fc=nn.Linear(FEATURES, FEATURES)),
            ["fc program input", "fc#2 program fc"],
        ),
        "output and states": (Model(lambda m, x: m.rnn(x), rnn=lstm()), ["rnn.l0 program input"]),
        "zero initial states": (
            Model(lambda m, x: m.rnn(x, torch.zeros(1, x.shape[0], HIDDEN))[0], rnn=gru()),
            ["rnn.l0 program input"],
        ),
        "zero initial states of our own": (
            Model(lambda m, x: m.rnn(x, (torch.zeros(2, x.shape[0], 5),) * 2)[0], rnn=recurrent("lstm")),
            ["rnn.l0 program input", "rnn.l1 program rnn.l0"],
        ),
        "our own in both directions": (
            Model(lambda m, x: joined(m.rnn(x)[1][0]), rnn=recurrent("gru_reset_before", bidirectional=True)),
            [
                *both(0, "input"),
                *both(1, "rnn.l0.concat")[:2],
                "rnn.l1.last last rnn.l1",
                "rnn.l1_reverse.first first rnn.l1_reverse",
                "forward.concat concat rnn.l1.last,rnn.l1_reverse.first",
            ],
        ),
        "our own with shared weights": (
            Model(lambda m, x: m.rnn(x)[0], rnn=recurrent("ligru", 1, bidirectional=True, shared=True)),
            both(0, "input"),
        ),
        "a plain RNN": (
            Model(lambda m, x: m.rnn(x)[0], rnn=nn.RNN(FEATURES, 4, 2, batch_first=True)),
            ["rnn.l0 program input", "rnn.l1 program rnn.l0"],
        ),
        "a plain RNN of ReLU in both directions": (
            Model(
                lambda m, x: m.rnn(x)[0],
                rnn=nn.RNN(FEATURES, 4, nonlinearity="relu", batch_first=True, bidirectional=True, bias=False),
            ),
            both(0, "input"),
        ),
        "a projection": (
            Model(lambda m, x: m.fc(m.rnn(x)[1][0][-1]), rnn=lstm(2, proj_size=3), fc=head(3)),
            ["rnn.l0 program input", "rnn.l1 program rnn.l0", "rnn.l1.last last rnn.l1", "fc program rnn.l1.last"],
        ),
        "a projection in both directions without bias": (
            Model(lambda m, x: m.rnn(x)[0], rnn=lstm(2, bidirectional=True, proj_size=3, bias=False)),
            [*both(0, "input"), *both(1, "rnn.l0.concat")],
        ),
        "dropout, which evaluation leaves out": (
            Model(lambda m, x: m.fc(m.drop(m.rnn(x)[0])), rnn=gru(2, dropout=0.5), drop=nn.Dropout(0.3), fc=head()),
            ["rnn.l0 program input", "rnn.l1 program rnn.l0", "fc program rnn.l1"],
        ),
        "a nested module": (
            Model(lambda m, x: m.body(x), body=nn.Sequential(nn.Linear(FEATURES, 4), nn.Identity(), nn.Linear(4, 2))),
            ["body.0 program input", "body.2 program body.0"],
        ),
        "a transposed sequence": (
            Model(lambda m, x: m.rnn(x.transpose(0, 1))[0].transpose(0, 1), rnn=gru(batch_first=False)),
            ["rnn.l0 program input"],
        ),
        "no bias": (Model(lambda m, x: m.rnn(x)[0], rnn=lstm(bias=False)), ["rnn.l0 program input"]),
        "a module named input": (
            Model(lambda m, x: m.input(x), input=nn.Linear(FEATURES, 2)),
            ["input#2 program input"],
        ),
    }
    | {
        f"our own {cell}": (
            Model(lambda m, x: m.rnn(x)[0], rnn=recurrent(cell)),
            ["rnn.l0 program input", "rnn.l1 program rnn.l0"],
        )
        for cell in CELLS
    }
    | {
        "the final state of our own": (
            Model(lambda m, x: m.rnn(x)[1][0][-1], rnn=recurrent("lstm")),
            ["rnn.l0 program input", "rnn.l1 program rnn.l0", "rnn.l1.last last rnn.l1"],
        ),
    }
)


def evaluate(graph, x):
    """The captured graph in float. x: [B, T, I]."""
    recorders = {node.name: Recorder(node.layer) for node in graph.programs}
    with torch.no_grad():
        y = execute(graph, recorders, RealArrays, list(x.unbind(1)))[graph.output]
    return torch.stack(y, 1) if isinstance(y, list) else y


@pytest.mark.fast(16)
@pytest.mark.parametrize("name", CAPTURED)
def test_what_is_captured(name):
    model, nodes = CAPTURED[name]
    graph, batch_first = capture(model.eval(), X)
    assert batch_first
    assert [f"{node.name} {node.kind} {','.join(node.sources)}" for node in graph.nodes] == nodes
    assert all(node.reverse == node.name.endswith("_reverse") for node in graph.programs)
    with torch.no_grad():
        wanted = model(X)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    torch.testing.assert_close(evaluate(graph, X), wanted, rtol=1e-4, atol=1e-5)
    longer = torch.from_numpy(sequences(2, 11))  # the captured length does not stick
    with torch.no_grad():
        wanted = model(longer)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    torch.testing.assert_close(evaluate(graph, longer), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [gru, lstm, lambda **options: recurrent("sru", **options)])
def test_time_first_models(make):
    model = Model(lambda m, x: m.rnn(x)[0], rnn=make(batch_first=False)).eval()
    graph, batch_first = capture(model, X.transpose(0, 1))
    assert not batch_first
    with torch.no_grad():
        torch.testing.assert_close(
            evaluate(graph, X), model(X.transpose(0, 1))[:].transpose(0, 1), rtol=1e-4, atol=1e-5
        )
    quantized = rindle.quantize(model, "int8", X.transpose(0, 1))
    assert quantized.run(X.numpy()).shape[:2] == (3, 7)


def test_a_time_first_model_with_a_vector_for_output():
    model = Model(lambda m, x: m.fc(m.rnn(x)[0].mean(0)), rnn=gru(batch_first=False), fc=head()).eval()
    y = rindle.quantize(model, "fixed16", X.transpose(0, 1)).run(X.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(y, model(X.transpose(0, 1)), atol=0.01)


def test_capture_leaves_the_model_as_it_was():
    model = TorchModel("gru").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    capture(model, X)
    assert model.training and model.rnn.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


REFUSED = {
    "an unknown operation": (lambda m, x: m.act(m.rnn(x)[0]), {"rnn": gru(), "act": nn.Softplus()}, r"aten\.softplus\.default in the module 'act' is not supported"),
    "in a nested module": (
        lambda m, x: m.body(x),
        {"body": nn.Sequential(nn.Linear(FEATURES, 4), nn.Mish())},
        r"aten\.mish\.default in the module 'body\.1' is not supported",
    ),
    "in forward": (lambda m, x: m.fc(x).cumsum(1), {"fc": nn.Linear(FEATURES, 2)}, r"aten\.cumsum\.default in the model's forward is not supported; over time there are mean"),
    "rows joined": (lambda m, x: torch.cat([m.fc(x), m.fc(x)], 0), {"fc": nn.Linear(FEATURES, 2)}, r"aten\.cat\.default .* is along dimension 0; only features can be concatenated, along dimension 2"),
    "frames joined": (lambda m, x: torch.cat([x, m.rnn(x)[0]], 1), {"rnn": nn.GRU(FEATURES, FEATURES, batch_first=True)}, r"aten\.cat\.default .* is along dimension 1"),
    "a vector joined with zeros": (lambda m, x: torch.cat([m.rnn(x)[0][:, -1], torch.zeros(3, 2)], 1), {"rnn": gru()}, r"aten\.cat\.default .* joins values that are not all sequences"),
    "an embedding of features": (lambda m, x: m.e(m.fc(x).argmax(-1)), {"e": nn.Embedding(4, 2), "fc": nn.Linear(FEATURES, 4)}, r"aten\.argmax\.default .* is not supported"),
    "an initial state of the input": (
        lambda m, x: m.rnn(x, m.fc(x[:, -1])[None])[0],
        {"rnn": gru(), "fc": nn.Linear(FEATURES, HIDDEN)},
        r"aten\.gru\.input in the module 'rnn' is given an initial state that follows from the input; .* a stream|A stream",
    ),
    "a learned initial state of our own": (
        lambda m, x: m.rnn(x, m.h0)[0],
        {"rnn": recurrent("gru", 1), "h0": nn.Parameter(torch.arange(3.0)[None, :, None] * torch.ones(1, 3, FEATURES))},
        r"rindle\.recurrent\S* in the module 'rnn' is given an initial state h that differs from row to row; a captured model begins",
    ),
    "the final c of our own": (lambda m, x: m.rnn(x)[1][1][-1], {"rnn": recurrent("lstm")}, r"aten\.select\.int .* reads something that is not"),
    "a learned initial state": (
        lambda m, x: m.rnn(x, m.h0)[0],
        {"rnn": gru(), "h0": nn.Parameter(torch.arange(3.0)[None, :, None] * torch.ones(1, 3, HIDDEN))},
        r"aten\.gru\.input in the module 'rnn' is given an initial state h that differs from row to row",
    ),
    "the second frame": (lambda m, x: m.rnn(x)[0][:, 1], {"rnn": gru()}, r"aten\.select\.int .* selects index 1 of dimension 1; only the last frame"),
    "the frame that was last in the example": (lambda m, x: m.rnn(x)[0][:, 6], {"rnn": gru()}, "selects index 6 of dimension 1"),
    "the last row": (lambda m, x: m.rnn(x)[0][-1], {"rnn": gru()}, "selects index -1 of dimension 0"),
    "the final c": (lambda m, x: m.rnn(x)[1][1][-1], {"rnn": lstm()}, r"aten\.select\.int .* reads something that is not"),
    "half of the sequence": (lambda m, x: m.rnn(x[:, :3])[0], {"rnn": gru()}, r"aten\.slice\.Tensor .* takes 0:3 of the 7 frames; only as many frames as the input has"),
    "a reversed sequence": (lambda m, x: m.rnn(x.flip(1))[0], {"rnn": gru()}, r"aten\.flip\.default .* reverses dimension 1 of \[B, T, F\]; .* bidirectional"),
    "the mean over rows": (lambda m, x: m.rnn(x)[0].mean(0), {"rnn": gru()}, r"aten\.mean\.dim .* is over the dimensions \[0\]"),
    "the mean over all": (lambda m, x: m.rnn(x)[0].mean(), {"rnn": gru()}, r"aten\.mean\.default .* is not supported"),
    "features moved to time": (lambda m, x: m.rnn(x.transpose(1, 2))[0], {"rnn": nn.GRU(7, 4, batch_first=True)}, r"aten\.gru\.input in the module 'rnn' takes a sequence laid out \[B, T, F\], but gets \[B, F, T\]"),
    "batch and time mixed up": (
        lambda m, x: m.second(m.rnn(x)[0])[0],
        {"rnn": gru(), "second": nn.GRU(HIDDEN, 4)},
        r"aten\.gru\.input in the module 'second' takes a sequence laid out \[T, B, F\], but gets \[B, T, F\]; check batch_first",
    ),
    "computed weights": (lambda m, x: nn.functional.linear(x, m.fc(x)[0]), {"fc": nn.Linear(FEATURES, FEATURES)}, r"aten\.(select\.int|linear\.default) .*(selects index 0 of dimension 0|computes its weight)"),
    "two outputs": (lambda m, x: (m.a(x), m.b(x)), {"a": nn.Linear(FEATURES, 2), "b": nn.Linear(FEATURES, 2)}, "must return one tensor"),
    "a stack of outputs": (lambda m, x: torch.stack([m.a(x), m.a(x)]), {"a": nn.Linear(FEATURES, 2)}, r"the output is laid out \[F, B, T, F\], but the input \[B, T, F\]; transpose it in forward"),
    "the input unchanged": (lambda m, x: x, {"fc": nn.Linear(FEATURES, 2)}, "no recurrent or Linear layer"),
    "the last input": (lambda m, x: x[:, -1], {}, "no recurrent or Linear layer; there is nothing to quantize"),
    "a constant": (lambda m, x: torch.zeros(3, 7, 2), {}, "must return one tensor|no recurrent"),
    "a branch on values": (lambda m, x: m.fc(x) if x.sum() > 0 else x, {"fc": nn.Linear(FEATURES, FEATURES)}, "torch.export cannot capture Model: "),
}  # fmt: skip


@pytest.mark.fast(10)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_by_name(name):
    forward, modules, words = REFUSED[name]
    with pytest.raises(RindleError, match=words):
        capture(Model(forward, **modules).eval(), X)


def test_a_forward_that_wants_its_states_or_lengths_is_refused_with_what_to_do():
    class Step(nn.Module):
        def forward(self, x, h, c):
            return x

    with pytest.raises(
        RindleError, match=r"the forward of Step takes x, h, c; .*a stream keeps them.*convert\(…, whole=False\)"
    ):
        capture(Step(), X)


def test_a_model_of_two_inputs_is_refused():
    class Two(nn.Module):
        def forward(self, x, y=None):
            return x

    with pytest.raises(RindleError, match=r"has 2 dimensions \(7, 5\); it must have 3"):
        capture(TorchModel("gru").eval(), X[0])
    with pytest.raises(RindleError, match="no recurrent or Linear layer"):
        capture(Two(), X)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("parameter", ["rnn.weight_hh_l1", "rnn.bias_ih_l0", "last.bias", "first.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(parameter, value):
    model = TorchModel("lstm").eval()
    with torch.no_grad():
        model.get_parameter(parameter).view(-1)[1] = value
    with pytest.raises(RindleError, match=rf"the parameter '{parameter}' holds NaN or infinity"):
        rindle.quantize(model, "int8", X)


def test_a_module_that_only_looks_like_ours_is_refused():
    from rindle.nn.modules import recurrent_op

    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return recurrent_op(x.transpose(0, 1), [self.w], [], [4, 4], "H=4", 0, False, "sru", [])[0].transpose(0, 1)

    with pytest.raises(RindleError, match=r"rindle\.recurrent.* is used outside a Recurrent module"):
        capture(Direct(), X)


IDS = torch.from_numpy(words(3, 7))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("head", ["all", "last", "mean"])
def test_ids_are_captured(head, both):
    model = Words(head, bidirectional=both).eval()
    graph, batch_first = capture(model, IDS)
    assert batch_first and graph.vocabulary == VOCABULARY
    assert (graph.nodes[0].name, graph.nodes[0].kind, graph.nodes[0].source) == ("embedding", "embedding", "input")
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, IDS), model(IDS), rtol=1e-4, atol=1e-5)


def test_time_first_ids_with_the_state_returned_and_dropout():
    """As a language model is written."""

    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.rnn, self.drop = nn.Embedding(VOCABULARY, 6), nn.LSTM(6, 6), nn.Dropout(0.4)
            self.fc = nn.Linear(6, VOCABULARY)
            self.fc.weight = self.embedding.weight

        def forward(self, ids, state=None):
            hidden, state = self.rnn(self.drop(self.embedding(ids)), state)
            return self.fc(self.drop(hidden)), state

    model = Language().eval()
    graph, batch_first = capture(model, IDS.T)
    assert not batch_first
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, IDS).transpose(0, 1), model(IDS.T)[0], rtol=1e-4, atol=1e-5)
    assert rindle.quantize(model, "int8", IDS.T).run(IDS.numpy()).shape == (3, 7, VOCABULARY)


def test_transposed_ids():
    model = Model(
        lambda m, x: m.rnn(m.e(x.t()))[0].transpose(0, 1), rnn=nn.GRU(4, 3), e=nn.Embedding(VOCABULARY, 4)
    ).eval()
    graph, batch_first = capture(model, IDS)
    assert batch_first and [node.name for node in graph.nodes] == ["e", "rnn.l0"]
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, IDS), model(IDS), rtol=1e-4, atol=1e-5)


REFUSED_IDS = {
    "ids as numbers": (lambda m, x: m.fc(x.float()), {"fc": nn.Linear(7, 2)}, r"aten\.(to|_to_copy)\S* .* is not supported"),
    "the last id": (lambda m, x: m.e(x[:, -1]), {"e": nn.Embedding(VOCABULARY, 4)}, r"aten\.select\.int .* reads the model's input, which is ids; only an Embedding can"),
    "ids joined": (lambda m, x: m.e(torch.cat([x, x], 1)), {"e": nn.Embedding(VOCABULARY, 4)}, r"aten\.cat\.default .* is ids; only an Embedding"),
    "two vocabularies": (lambda m, x: m.rnn(torch.cat([m.e(x), m.f(x)], -1))[0], {"e": nn.Embedding(VOCABULARY, 2), "f": nn.Embedding(20, 3), "rnn": gru()}, r"aten\.embedding\.default in the module 'f' has 20 rows, but another Embedding 13"),
    "an embedding alone": (lambda m, x: m.e(x), {"e": nn.Embedding(VOCABULARY, 4)}, "no recurrent or Linear layer"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_IDS)
def test_what_is_refused_of_ids(name):
    forward, modules, message = REFUSED_IDS[name]
    with pytest.raises(RindleError, match=message):
        capture(Model(forward, **modules).eval(), IDS)


def test_an_input_of_ids_has_two_dimensions():
    with pytest.raises(RindleError, match=r"has 3 dimensions \(3, 7, 1\); it must have 2, for ids"):
        capture(Model(lambda m, x: m.e(x), e=nn.Embedding(VOCABULARY, 4)).eval(), IDS[..., None])
