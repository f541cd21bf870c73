from ..program.tracer import cell


@cell(layout={"weight": "y.x", "bias": "y"})
def linear(n, x):
    """A linear layer, as in torch: a cell without states."""
    return n.affine("y", x, size="O")
