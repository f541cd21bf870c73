from ..program.tracer import cell


@cell(
    states=("h",),
    layout={
        "weight_ih": "r.x z.x nx.x",
        "weight_hh": "r.h z.h nh.h",
        "bias_ih": "r z nx",
        "bias_hh": "r z nh",
    },
)
def gru(n, x, h):
    """GRU with the reset gate after the product, as in torch and cuDNN: gates r, z, n; the candidate has two biases.
    Cho et al. 2014 in the form of arXiv 1406.1078v1.
    """
    r, z = n.affine("r z", x, h)
    nx = n.affine("nx", x)
    nh = n.affine("nh", h)
    candidate = n.path("n", n.add(nx, n.mul(n.sigmoid(r), nh)))
    h = n.lerp(n.sigmoid(z), h, n.tanh(candidate))
    return h
