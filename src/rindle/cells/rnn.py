from ..program.tracer import cell

LAYOUT = {"weight_ih": "a.x", "weight_hh": "a.h", "bias_ih": "a", "bias_hh": "a"}


@cell(states=("h",), layout=LAYOUT)
def rnn_tanh(n, x, h):
    """Elman's network as in torch, nonlinearity="tanh"; its one affine is a. Elman 1990."""
    h = n.tanh(n.affine("a", x, h))
    return h


@cell(states=("h",), layout=LAYOUT)
def rnn_relu(n, x, h):
    """Elman's network as in torch, nonlinearity="relu"; its one affine is a. Le et al. 2015 (arXiv 1504.00941)."""
    h = n.relu(n.affine("a", x, h))
    return h
