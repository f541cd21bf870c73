"""Float programs against torch's own modules and against equations written by hand."""

import pytest
import torch
from torch import nn

from rindle import CELLS, SRU, Recurrent, RindleError, cell
from rindle.cells import gru, linear, lstm
from rindle.nn.modules import blocks_of
from rindle.nn.numerics import FloatLayer, Real
from rindle.program.program import step

TORCH = {"lstm": nn.LSTM, "gru": nn.GRU}


def torch_parameters(module, layer: int) -> dict:
    return {
        name: getattr(module, f"{name}_l{layer}", None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }


def ours(name: str, module, batch_first: bool) -> Recurrent:
    """A Recurrent with the parameters of torch's module."""
    one = Recurrent(CELLS[name], module.input_size, module.hidden_size, module.num_layers, batch_first)
    state = module.state_dict()
    missing, unexpected = one.load_state_dict(state, strict=False)
    assert not unexpected and all("bias" in key for key in missing)
    for key in missing:
        nn.init.zeros_(getattr(one, key))
    return one


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("hidden", [1, 7, 16])
def test_float_programs_are_torchs_modules(name, layers, bias, batch_first, hidden):
    torch.manual_seed(hidden)
    module = TORCH[name](5, hidden, layers, bias=bias, batch_first=batch_first).double()
    x = torch.randn(4, 9, 5, dtype=torch.float64)
    y, finals = ours(name, module, batch_first).double()(x)
    wanted, wanted_finals = module(x)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
    wanted_finals = wanted_finals if name == "lstm" else (wanted_finals,)
    assert len(finals) == len(wanted_finals)
    for found, final in zip(finals, wanted_finals):
        torch.testing.assert_close(found, final, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TORCH)
def test_gradients_are_torchs(name):
    torch.manual_seed(0)
    module = TORCH[name](3, 4)
    one = ours(name, module, False)
    x = torch.randn(6, 2, 3)
    for each in (module, one):
        each(x)[0].square().sum().backward()
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(getattr(one, key).grad, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, gates", [("lstm", "ifgo"), ("gru", "rzn")])
def test_gate_order(name, gates):
    """Marking one gate's rows in torch's stacked parameters marks that gate's block, and no other."""
    module = TORCH[name](2, 3)
    program = CELLS[name].program.with_sizes(I=2, H=3)
    for k, gate in enumerate(gates):
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter[3 * k : 3 * k + 3] = 1.0
        blocks = blocks_of(CELLS[name], torch_parameters(module, 0), program)
        for block, value in blocks.items():
            named = block.split(".")[0] in (gate, f"{gate}x", f"{gate}h")
            assert value.any() == named, block
            assert value.shape == program.block_shape(block)


def test_grus_candidate_has_two_biases_and_its_gates_their_sum():
    module = nn.GRU(2, 1)
    nn.init.constant_(module.bias_ih_l0, 1.0)
    nn.init.constant_(module.bias_hh_l0, 10.0)
    blocks = blocks_of(gru, torch_parameters(module, 0), gru.program.with_sizes(I=2, H=1))
    assert [blocks[gate].item() for gate in ("r", "z", "nx", "nh")] == [11.0, 11.0, 1.0, 10.0]


def test_linear_is_torchs():
    module = nn.Linear(5, 3)
    program = linear.program.with_sizes(I=5, O=3)
    numerics = Real(FloatLayer(program, blocks_of(linear, {"weight": module.weight, "bias": module.bias}, program)))
    x = torch.randn(4, 5)
    y, _, _ = step(program, numerics, (x,), *numerics.initial(4))
    torch.testing.assert_close(y, module(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
def test_sru_is_lei_et_als_equations(layers):
    """Equations (1) to (4) of arXiv 1709.02755v5, by hand; no rescaling of the highway."""
    torch.manual_seed(3)
    module = SRU(4, 4, layers).double()
    x = torch.randn(7, 2, 4, dtype=torch.float64)
    y, (finals,) = module(x)
    sequence = x
    for layer in range(layers):
        w, bias, v_f, v_r = (getattr(module, f"{name}_l{layer}") for name in ("weight_x", "bias", "v_f", "v_r"))
        c, outputs = torch.zeros(2, 4, dtype=torch.float64), []
        for frame in sequence:
            f = torch.sigmoid(frame @ w[4:8].T + v_f * c + bias[:4])
            r = torch.sigmoid(frame @ w[8:].T + v_r * c + bias[4:])
            c = f * c + (1 - f) * (frame @ w[:4].T)
            outputs.append(r * c + (1 - r) * frame)
        torch.testing.assert_close(finals[layer], c, rtol=0, atol=1e-12)
        sequence = torch.stack(outputs)
    torch.testing.assert_close(y, sequence, rtol=0, atol=1e-12)


def test_sru_needs_an_input_as_wide_as_its_state():
    with pytest.raises(RindleError, match=r"'sru' needs an input as wide as its state, not 3 and 4; .*Linear\(3, 4\)"):
        SRU(3, 4)


OPERATIONS = {
    "add": (lambda n, a, b: n.add(a, b), lambda a, b: a + b),
    "sub": (lambda n, a, b: n.sub(a, b), lambda a, b: a - b),
    "mul": (lambda n, a, b: n.mul(a, b), lambda a, b: a * b),
    "lerp": (lambda n, a, b: n.lerp(a, b, a), lambda a, b: a * b + (1 - a) * a),
    "sum_of_products": (lambda n, a, b: n.sum_of_products(a, b, b, b), lambda a, b: a * b + b * b),
    "clip": (lambda n, a, b: n.add(n.clip(a, -0.25, 0.5), b), lambda a, b: a.clamp(-0.25, 0.5) + b),
    "relu": (lambda n, a, b: n.add(n.relu(a), b), lambda a, b: a.relu() + b),
    "layer_norm": (
        lambda n, a, b: n.add(n.mul(n.layer_norm(a), b), b),
        lambda a, b: (a - a.mean(-1, keepdim=True)) / (a.var(-1, keepdim=True, correction=0) + 1e-5).sqrt() * b + b,
    ),
    "tanh": (lambda n, a, b: n.add(n.tanh(a), b), lambda a, b: a.tanh() + b),
    "sigmoid": (lambda n, a, b: n.add(n.sigmoid(a), b), lambda a, b: a.sigmoid() + b),
    "requantize": (lambda n, a, b: n.add(n.requantize(a), b), lambda a, b: a + b),
}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_on_real_values(kind):
    recorded, wanted = OPERATIONS[kind]

    @cell(width="H")
    def one(n, x):
        return recorded(n, x, n.affine("a", x, bias=False))

    module = Recurrent(one, 4, 4)
    x = torch.randn(3, 2, 4)
    torch.testing.assert_close(module(x)[0], wanted(x, x @ module.weight_x_l0.T))


def test_lstm_and_gru_are_what_their_documents_say():
    assert "gates i, f, g, o" in lstm.doc and "gates r, z, n" in gru.doc
