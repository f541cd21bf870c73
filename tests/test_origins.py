"""Float cells against where they come from: ONNX's operators, Keras' and the papers' equations, by hand in NumPy."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from support import CELLS, recurrent

import rindle
from rindle import Recurrent, RindleError
from rindle.cells import linear, lstm
from rindle.cells.lstm_variants import _variant as lstm_variant
from rindle.cells.sru_variants import _variant as sru_variant
from rindle.nn import filled, keras_parameters, onnx_parameters

SIZES = [(1, 1, 1, 1), (7, 3, 5, 4), (2, 1, 3, 17), (12, 5, 9, 1)]  # frames, rows, inputs, hidden
sizes = pytest.mark.parametrize("time, batch, inputs, hidden", SIZES)


def run_onnx(operator: str, arrays: dict, lengths, **attributes) -> list[np.ndarray]:
    """Y [T, directions, B, H], and the final states [directions, B, H], by onnxruntime."""
    order = {"LSTM": "X W R B sequence_lens initial_h initial_c P"}.get(operator, "X W R B sequence_lens initial_h")
    arrays = arrays | {"sequence_lens": np.asarray(lengths, np.int32)}
    names = [name if name in arrays else "" for name in order.split()]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"] if operator == "LSTM" else ["Y", "Y_h"]
    node = helper.make_node(operator, names, outputs, **attributes)
    kinds = {np.dtype(np.float32): onnx.TensorProto.FLOAT, np.dtype(np.int32): onnx.TensorProto.INT32}
    graph = helper.make_graph(
        [node],
        operator,
        [helper.make_tensor_value_info(name, kinds[arrays[name].dtype], arrays[name].shape) for name in names if name],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: arrays[name] for name in names if name})


ONNX = {
    "lstm": ("LSTM", 4, {}),
    "lstm_peephole": ("LSTM", 4, {}),
    "lstm_cifg": ("LSTM", 4, {"input_forget": 1}),
    "lstm_peephole_cifg": ("LSTM", 4, {"input_forget": 1}),
    "gru": ("GRU", 3, {"linear_before_reset": 1}),
    "gru_reset_before": ("GRU", 3, {"linear_before_reset": 0}),
    "rnn_tanh": ("RNN", 1, {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", 1, {"activations": ["Relu"]}),
}


@pytest.mark.parametrize("name", ONNX)
@pytest.mark.parametrize("directions", [1, 2])
@sizes
def test_onnx(name, directions, time, batch, inputs, hidden):
    """Rows of unequal length, initial states, both directions; parameters converted from ONNX's order."""
    operator, gates, attributes = ONNX[name]
    rng = np.random.default_rng(hidden + directions)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    x, lengths = draw(time, batch, inputs), rng.integers(1, time + 1, batch)
    arrays = {"X": x, "W": draw(directions, gates * hidden, inputs), "R": draw(directions, gates * hidden, hidden) / 2}
    arrays |= {"B": draw(directions, 2 * gates * hidden), "initial_h": draw(directions, batch, hidden)}
    before = [arrays["initial_h"]]
    if operator == "LSTM":
        before.append(arrays.setdefault("initial_c", draw(directions, batch, hidden)))
    if "peephole" in name:
        arrays["P"] = draw(directions, 3 * hidden)
    attributes = attributes | {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"}
    if operator == "RNN":
        attributes["activations"] = attributes["activations"] * directions
    y, *finals = run_onnx(operator, arrays, lengths, **attributes)

    parameters = onnx_parameters(CELLS[name], arrays["W"], arrays["R"], arrays["B"], arrays.get("P"))
    module = filled(Recurrent(CELLS[name], inputs, hidden, bidirectional=directions == 2), *parameters)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.from_numpy(x), lengths, enforce_sorted=False)
    found, states = module(packed, [torch.from_numpy(state) for state in before])
    found, _ = torch.nn.utils.rnn.pad_packed_sequence(found, total_length=time)
    wanted = np.moveaxis(y, 1, 2).reshape(time, batch, -1)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(found[:length, row].detach(), wanted[:length, row], rtol=1e-4, atol=2e-5)
    for state, final in zip(states, finals, strict=True):
        np.testing.assert_allclose(state.detach(), final, rtol=1e-4, atol=2e-5)


def test_onnx_without_bias_is_with_zeros():
    w, r = torch.randn(1, 12, 3), torch.randn(1, 12, 4)
    (one,), (other,) = onnx_parameters(CELLS["gru"], w, r), onnx_parameters(CELLS["gru"], w, r, torch.zeros(1, 24))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_what_has_no_other_order():
    w, r = torch.zeros(1, 16, 3), torch.zeros(1, 16, 4)
    with pytest.raises(RindleError, match="ONNX has no layer that is the cell 'sru'; it has lstm, lstm_peephole"):
        onnx_parameters(CELLS["sru"], w, r)
    with pytest.raises(RindleError, match="Keras has no layer that is the cell 'lstm_cifg'"):
        keras_parameters(CELLS["lstm_cifg"], w[0], r[0])
    for name, p in (("lstm", torch.zeros(1, 12)), ("lstm_peephole", None)):
        with pytest.raises(RindleError, match=f"the cell '{name}' and P do not fit"):
            onnx_parameters(CELLS[name], w, r, None, p)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def keras(name: str, x, kernel, recurrent_kernel, bias):
    """Keras' LSTM (gates i, f, c, o), GRU (z, r, h) and SimpleRNN step by step, from the equations of their documents."""
    units = recurrent_kernel.shape[0]
    h = c = np.zeros((x.shape[1], units))
    outputs = []
    for frame in x:
        if name == "lstm":
            i, f, g, o = np.split(frame @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        elif name == "rnn_tanh":
            h = np.tanh(frame @ kernel + h @ recurrent_kernel + bias)
        else:
            input_bias, recurrent_bias = bias if name == "gru" else (bias, 0 * bias)
            xz, xr, xh = np.split(frame @ kernel + input_bias, 3, axis=1)
            uz, ur, uh = np.split(recurrent_kernel, 3, axis=1)
            bz, br, bh = np.split(recurrent_bias, 3)
            z, r = sigmoid(xz + h @ uz + bz), sigmoid(xr + h @ ur + br)
            candidate = np.tanh(xh + (r * (h @ uh + bh) if name == "gru" else (r * h) @ uh))
            h = z * h + (1 - z) * candidate
        outputs.append(h)
    return np.stack(outputs)


@pytest.mark.parametrize("name", ["lstm", "gru", "gru_reset_before", "rnn_tanh"])
@sizes
def test_keras(name, time, batch, inputs, hidden):
    rng, gates = np.random.default_rng(time), {"lstm": 4, "rnn_tanh": 1}.get(name, 3)
    shapes = (
        (inputs, gates * hidden),
        (hidden, gates * hidden),
        (2, gates * hidden) if name == "gru" else gates * hidden,
    )
    weights = [rng.normal(size=shape) for shape in shapes]
    x = rng.normal(size=(time, batch, inputs))
    module = filled(Recurrent(CELLS[name], inputs, hidden), keras_parameters(CELLS[name], *weights))
    np.testing.assert_allclose(module(torch.from_numpy(x))[0].detach(), keras(name, x, *weights), rtol=0, atol=1e-12)
    without = filled(Recurrent(CELLS[name], inputs, hidden), keras_parameters(CELLS[name], *weights[:2]))
    wanted = keras(name, x, *weights[:2], 0 * weights[2])
    np.testing.assert_allclose(without(torch.from_numpy(x))[0].detach(), wanted, rtol=0, atol=1e-12)


def numpy_parameters(module) -> dict[str, np.ndarray]:
    return {name.removesuffix("_l0"): value.detach().numpy() for name, value in module.named_parameters()}


def lstm_by_hand(x, p: dict, coupled: bool):
    """Greff et al. 2017, appendix, and Sak et al. 2014, equations (7) to (13): one text with all that they add."""
    gates = 3 if coupled else 4
    names = "igo" if coupled else "ifgo"
    hidden = p["weight_ih"].shape[0] // gates
    h, c, outputs = np.zeros((x.shape[1], p["weight_hh"].shape[1])), np.zeros((x.shape[1], hidden)), []
    peeps = (
        dict(zip("io" if coupled else "iof", np.split(p["weight_peephole"], 2 if coupled else 3)))
        if "weight_peephole" in p
        else {}
    )
    for frame in x:
        stacked = frame @ p["weight_ih"].T + h @ p["weight_hh"].T + p["bias_ih"] + p["bias_hh"]
        a = dict(zip(names, np.split(stacked, gates, axis=1)))
        i = sigmoid(a["i"] + peeps.get("i", 0) * c)
        f = 1 - i if coupled else sigmoid(a["f"] + peeps.get("f", 0) * c)
        c = f * c + i * np.tanh(a["g"])
        o = sigmoid(a["o"] + peeps.get("o", 0) * c)
        h = o * np.tanh(c)
        if "weight_hr" in p:
            h = h @ p["weight_hr"].T
        outputs.append(h)
    return np.stack(outputs)


def ligru_by_hand(x, p: dict):
    """Ravanelli et al. 2018, (5) to (7), with their norm folded away."""
    h, outputs = np.zeros((x.shape[1], p["weight_h"].shape[1])), []
    for frame in x:
        z, a = np.split(frame @ p["weight_x"].T + h @ p["weight_h"].T + p["bias"], 2, axis=1)
        z = sigmoid(z)
        h = z * h + (1 - z) * np.maximum(a, 0)
        outputs.append(h)
    return np.stack(outputs)


def sru_by_hand(x, p: dict):
    """Lei et al. 2018, (1) to (4) and (10), with the projection and the fourth matrix of the package."""
    hidden = len(p["v_f"])
    c, outputs = np.zeros((x.shape[1], hidden)), []
    for frame in x:
        source = frame @ p["weight_x"].T if "weight_p" in p else frame
        products = source @ p.get("weight_p", p["weight_x"]).T
        u, wf, wr, *rest = np.split(products, products.shape[1] // hidden, axis=1)
        f = sigmoid(wf + p["v_f"] * c + p["bias"][:hidden])
        r = sigmoid(wr + p["v_r"] * c + p["bias"][hidden:])
        c = f * c + (1 - f) * u
        outputs.append(r * c + (1 - r) * (rest[0] if rest else p.get("alpha", 1.0) * frame))
    return np.stack(outputs)


BY_HAND = {
    name: lambda x, p, name=name: lstm_by_hand(x, p, "cifg" in name) for name in CELLS if name.startswith("lstm")
}
BY_HAND |= {"ligru": ligru_by_hand} | {name: sru_by_hand for name in CELLS if "sru" in name}


@pytest.mark.parametrize("name", BY_HAND)
@sizes
def test_the_equations_by_hand(name, time, batch, inputs, hidden):
    torch.manual_seed(time)
    width = hidden if CELLS[name].program.sizes["x"] == "H" else inputs
    module, x = recurrent(name, width, hidden).double(), torch.randn(time, batch, width, dtype=torch.float64)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    np.testing.assert_allclose(
        module(x)[0].detach(), BY_HAND[name](x.numpy(), numpy_parameters(module)), rtol=0, atol=1e-12
    )


def test_every_cell_has_an_origin():
    assert set(CELLS) <= {*ONNX, *BY_HAND, "convlstm", "convlstm_peephole"}  # those in test_convlstm.py


def test_the_variants_begin_at_the_plain_cells():
    assert lstm_variant(False, False, False).program == lstm.program
    assert sru_variant(False, False, False).program == CELLS["sru"].program


def test_a_cells_document_says_source_gates_and_variant():
    for name, cell in rindle.CELLS.items():
        assert re.search(r"\b(19|20)\d\d\b", cell.doc), f"{name} names no source"
        gates = {gate for op in cell.program.affines for gate in op.out} - {"p"}
        for gate in gates:
            names = {gate, gate[0], gate[1:] or gate}  # "wi" is i before its peephole, "nh" a half of gru's n
            assert any(re.search(rf"\b{one}\b", cell.doc) for one in names), f"{name}: {gate}"
    assert "torch" in linear.doc
