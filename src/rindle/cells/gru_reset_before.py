from ..program.tracer import cell


@cell(
    states=("h",),
    layout={
        "weight_ih": "r.x z.x n.x",
        "weight_hh": "r.h z.h n.rh",
        "bias_ih": "r z n",
        "bias_hh": "r z n",
    },
)
def gru_reset_before(n, x, h):
    """GRU with the reset gate before the product, U (r ⊙ h): gates r, z, n; each has one bias, the sum of two parameters.
    Cho et al. 2014 (arXiv 1406.1078v3), equations (5) to (8); Keras' reset_after=False, ONNX's linear_before_reset=0.
    """
    r, z = n.affine("r z", x, h)
    rh = n.path("rh", n.mul(n.sigmoid(r), h))
    candidate = n.affine("n", x, rh)
    h = n.lerp(n.sigmoid(z), h, n.tanh(candidate))
    return h
