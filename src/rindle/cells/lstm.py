from ..program.tracer import cell


@cell(
    states=("h", "c"),
    layout={
        "weight_ih": "i.x f.x g.x o.x",
        "weight_hh": "i.h f.h g.h o.h",
        "bias_ih": "i f g o",
        "bias_hh": "i f g o",
    },
)
def lstm(n, x, h, c):
    """LSTM as in torch: gates i, f, g, o; no peepholes. Hochreiter & Schmidhuber 1997, with the forget gate of
    Gers et al. 2000.
    """
    i, f, g, o = n.affine("i f g o", x, h)
    c = n.sum_of_products(n.sigmoid(f), c, n.sigmoid(i), n.tanh(g))
    h = n.mul(n.sigmoid(o), n.tanh(c))
    return h, c
