from ..program.tracer import cell


@cell(states=("h",))
def ligru(n, x, h):
    """Li-GRU: no reset gate, a ReLU candidate; gates z, a. Ravanelli et al. 2018 (arXiv 1803.10225), equations (5) to (7),
    their batch norm folded into W and the bias.
    """
    z, a = n.affine("z a", x, h)
    h = n.lerp(n.sigmoid(z), h, n.relu(a))
    return h
