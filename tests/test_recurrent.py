"""``rindle.Recurrent``: any cell as a torch module, with torch's conventions."""

import copy
import io
import pickle

import pytest
import torch
from support import EVERY_CELL, recurrent
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rindle import CELLS, SRU, Recurrent, RindleError, cell
from rindle.nn import filled
from rindle.nn.capture.stacks import stack_of, take

LENGTHS = torch.tensor([3, 7, 1, 7, 5])


@cell(states=("h", "c"), sizes={"h": "K"})
def own(n, x, h, c):
    """A user's own cell, at the top of a module, with a dimension of its own."""
    f, g = n.affine("f g", x, h)
    c = n.lerp(n.sigmoid(f), c, n.tanh(g))
    return n.affine("y", c, size="K"), c


def modules(name: str, **options) -> Recurrent:
    torch.manual_seed(0)
    return recurrent(name, 6, 6, **options).double()


@pytest.mark.fast(12)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bidirectional": True, "shared": True}])
def test_every_cell_is_a_module(cell, options):
    """Shapes, names in the state dict, and a state dict that goes round."""
    layers = (
        1 if options and EVERY_CELL[cell].program.sizes["x"] == "H" else 2
    )  # what is joined is too wide for the next
    one, other = (recurrent(cell, 6, 6, layers, batch_first=True, **options) for _ in range(2))
    directions = 2 if options else 1
    x = torch.randn(3, 5, 6)
    y, finals = one(x)
    assert y.shape == (3, 5, one.output_size) and one.output_size % directions == 0
    sizes = EVERY_CELL[cell].program.with_sizes(H=6, P=3).sizes
    states = EVERY_CELL[cell].program.states
    assert [final.shape for final in finals] == [(layers * directions, 3, sizes[state]) for state, _ in states]
    ends = ["", "_reverse"] if options == {"bidirectional": True} else [""]
    wanted = {f"{name}_l{k}{end}" for name in EVERY_CELL[cell].layout for k in range(layers) for end in ends}
    assert set(one.state_dict()) == wanted
    assert not torch.equal(other(x)[0], y)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(x)[0], y)
    assert cell in repr(one) and all(f"{name}=True" in repr(one) for name in options)


def test_a_direction_is_the_layer_alone_on_the_mirrored_rows(cell):
    both, x = modules(cell, bidirectional=True), torch.randn(7, 2, 6, dtype=torch.float64)
    y, finals = both(x)
    for reverse in (False, True):
        alone = filled(modules(cell), both.parameters_of(0, reverse))
        wanted, final = alone(x.flip(0) if reverse else x)
        assert torch.equal(y.chunk(2, -1)[reverse], wanted.flip(0) if reverse else wanted)
        assert all(torch.equal(a[int(reverse)], b[0]) for a, b in zip(finals, final))
    shared = filled(modules(cell, bidirectional=True, shared=True), both.parameters_of(0))
    twice = filled(modules(cell, bidirectional=True), both.parameters_of(0), both.parameters_of(0))
    assert torch.equal(shared(x)[0], twice(x)[0]) and not torch.equal(shared(x)[0], y)


@pytest.mark.fast(12)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_a_packed_row_is_that_row_alone(cell, bidirectional, given):
    layers = 1 if bidirectional and EVERY_CELL[cell].program.sizes["x"] == "H" else 2
    module = modules(cell, num_layers=layers, batch_first=True, bidirectional=bidirectional)
    x = torch.randn(5, 7, 6, dtype=torch.float64)
    before = [torch.rand_like(state) for state in module(x)[1]]
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    y, finals = module(packed, before if given else None)
    y, lengths = pad_packed_sequence(y, batch_first=True)
    assert torch.equal(lengths, LENGTHS)
    for row, length in enumerate(LENGTHS):
        states = [state[:, row : row + 1] for state in before] if given else None
        alone, final = module(x[row : row + 1, :length], states)
        torch.testing.assert_close(y[row, :length], alone[0], rtol=0, atol=1e-12)
        for a, b in zip(finals, final):
            torch.testing.assert_close(a[:, row], b[:, 0], rtol=0, atol=1e-12)


def test_rows_packed_in_order_stay_in_order():
    module, x = modules("gru"), torch.randn(4, 3, 6, dtype=torch.float64)
    y, (h,) = module(pack_padded_sequence(x, torch.tensor([4, 4, 2])))
    assert y.sorted_indices is None
    torch.testing.assert_close(h[0, 2], module(x[:2, 2:])[1][0][0, 0], rtol=0, atol=1e-12)


def test_a_sequence_continues_from_its_states(cell):
    module = modules(cell, num_layers=2)
    x = torch.randn(9, 2, 6, dtype=torch.float64)
    y, finals = module(x)
    first, states = module(x[:4])
    second, found = module(x[4:], states)
    torch.testing.assert_close(torch.cat([first, second]), y, rtol=0, atol=1e-12)
    for a, b in zip(found, finals):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert not torch.equal(module(x[4:])[0], second)


@pytest.mark.parametrize("kind", ["cell", "own"])
def test_copies_and_pickles_compute_the_same(kind, request):
    names = list(EVERY_CELL) if kind == "cell" else ["own"]
    for name in names:
        if kind == "cell":
            module = recurrent(name, 6, 6, batch_first=True, bidirectional=True)
        else:
            module = Recurrent(own, 6, 5, 2, sizes={"K": 3})
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        x = torch.randn(3, 4, 6)
        y, _ = module(x)
        for other in (
            copy.deepcopy(module),
            pickle.loads(pickle.dumps(module)),
            torch.load(buffer, weights_only=False),
        ):
            assert torch.equal(other(x)[0], y)
            with torch.no_grad():
                next(other.parameters()).add_(1)
            assert not torch.equal(other(x)[0], y) and torch.equal(module(x)[0], y)


def test_dimensions_of_its_own():
    y, (h, c) = Recurrent(own, 6, 5, 2, bidirectional=True, sizes={"K": 3})(torch.randn(4, 2, 6))
    assert (y.shape, h.shape, c.shape) == ((4, 2, 6), (4, 2, 3), (4, 2, 5))


@cell(states=("h",))
def two_inputs(n, x, z, h):
    return n.tanh(n.affine("a", x, z, h))


GRU = Recurrent(CELLS["gru"], 6, 4, 2, batch_first=True)
BESIDE = Recurrent(CELLS["sru_beside"], 6, 4, batch_first=True, bidirectional=True)
X = torch.zeros(3, 5, 6)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Recurrent(own, 6, 5), r"'own' has paths of the dimension K; give sizes=\{'K': …\}"),
        (lambda: Recurrent(CELLS["lstm_projection"], 6, 5), "'lstm_projection' has paths of the dimension P; give proj_size"),
        (lambda: Recurrent(CELLS["lstm"], 6, 5, proj_size=3), "'lstm' has no path of the dimension P, .* 3, by proj_size"),
        (lambda: Recurrent(CELLS["lstm"], 6, 5, sizes={"K": 3}), "'lstm' has no path of the dimension K, .* 3; leave it out"),
        (lambda: Recurrent(CELLS["lstm"], 6, 5, shared=True), "shared weights are of two directions; give bidirectional=True"),
        (lambda: Recurrent(two_inputs, 6, 5, 2), r"'two_inputs' has several inputs \(x, z\), so it makes one layer, not 2; stack"),
        (lambda: BESIDE(X), r"sru_beside takes 2 inputs \(x, s\), not 1; give a tuple of 2 tensors"),
        (lambda: BESIDE((X, X)), r"the input s has the shape \[5, 3, 6\]; it must be \[5, 3, 8\], time first"),
        (lambda: GRU((X, X)), "gru takes one input, not a tuple of 2"),
        (lambda: take(stack_of(BESIDE, ''), X), r"the module takes 2 inputs \(x, s\), not 1; give a tuple of 2 tensors"),
        (lambda: take(stack_of(BESIDE, ''), (X, X)), r"the input s is \[3, 5, 6\]; it must be \[3, 5, 8\]"),
        (lambda: SRU(3, 4), r"needs an input as wide as its state, not 3 and 4; put a Linear\(3, 4\) before it or take 'sru_h"),
        (lambda: SRU(4, 4, 2, bidirectional=True), "'sru' needs an input as wide as its state, not 8 and 4"),
        (lambda: GRU(X[0]), r"x has 2 dimensions \(5, 6\); it must have 3"),
        (lambda: GRU(X[:, :0]), "x has no frames"),
        (lambda: GRU(X[..., :5]), "x has 5 features; this gru takes 6"),
        (lambda: GRU(X, (torch.zeros(2, 3, 4),) * 2), "2 initial states are given; gru has 1: h"),
        (lambda: GRU(X, torch.zeros(1, 3, 4)), r"the initial state h has shape \[1, 3, 4\]; it must be \[2, 3, 4\]"),
        (lambda: GRU(X, torch.zeros(2, 4, 4)), r"the initial state h has shape \[2, 4, 4\]; it must be \[2, 3, 4\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(RindleError, match=words):
        call()


TORCH = {
    "lstm": nn.LSTM,
    "lstm_projection": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}


@pytest.mark.fast(6)
@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("inputs, hidden, layers, time, batch", [(5, 7, 2, 9, 4), (3, 2, 1, 1, 1), (1, 5, 3, 6, 1)])
def test_it_is_torchs_module_by_its_state_dict(name, bidirectional, inputs, hidden, layers, time, batch):
    """Outputs and final states, from zeros, from given states and packed; parameters under torch's names."""
    torch.manual_seed(1)
    options = {"bidirectional": bidirectional} | ({"proj_size": hidden - 1} if "projection" in name else {})
    module = TORCH[name](inputs, hidden, layers, **options).double()
    one = Recurrent(CELLS[name], inputs, hidden, layers, **options).double()
    one.load_state_dict(module.state_dict())
    x = torch.randn(time, batch, inputs, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.randint(1, time + 1, (batch,)), enforce_sorted=False)
    before = [torch.randn_like(state) for state in one(x)[1]]
    for arguments in ((x, None), (x, before), (packed, None), (packed, before)):
        theirs = arguments[1] and (tuple(before) if len(before) > 1 else before[0])
        wanted, final = module(arguments[0], theirs)
        found, finals = one(*arguments)
        final = final if isinstance(final, tuple) else (final,)
        if arguments[0] is packed:
            assert torch.equal(found.batch_sizes, wanted.batch_sizes)
            found, wanted = found.data, wanted.data
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        for a, b in zip(finals, final, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
