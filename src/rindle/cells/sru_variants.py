"""The SRU's variants, from one equation: a highway of its own matrix or of a second input, a projection before the products, a
rescaled highway.
"""

from ..program.tracer import Cell, cell


def _variant(highway: bool, projection: bool, rescale: bool, beside: bool = False) -> Cell:
    """The cell ``sru[_beside][_highway][_projection][_rescale]``."""
    gates = ["u", "wf", "wr", "wx"] if highway else ["u", "wf", "wr"]

    def equation(n, x, s, c):
        source = n.affine("p", x, bias=False, size="P") if projection else x
        u, wf, wr, *wx = n.affine(" ".join(gates), source, bias="wf wr")
        f = n.path("f", n.add(wf, n.mul(n.vector("v_f"), c)))
        r = n.path("r", n.add(wr, n.mul(n.vector("v_r"), c)))
        c_next = n.lerp(n.sigmoid(f), c, u)
        skip = n.path("skip", n.mul(s, n.vector("alpha"))) if rescale else s
        h = n.path("h", n.lerp(n.sigmoid(r), c_next, wx[0] if highway else skip))
        return h, c_next

    def sru(n, x, c):
        return equation(n, x, x, c)

    if beside:
        sru = equation
    parts = {"beside": beside, "highway": highway, "projection": projection, "rescale": rescale}
    sru.__name__ = "_".join(["sru", *(name for name, there in parts.items() if there)])
    notes = [
        "The highway is (1 − r) ⊙ wx by a matrix, the sru package's fourth, for an input of any width." * highway,
        "The highway is (1 − r) ⊙ s, of a second input as wide as the state." * beside,
        f"The highway is (1 − r) ⊙ α {'s' if beside else 'x'}; equation (10) has α² = 1 + 2 exp(bias of r)." * rescale,
        "The products read p = P x (the package's projection_size)." * projection,
    ]
    start = f"SRU, gates {', '.join(gates)}; v_f and v_r peep at c. Lei et al. 2018 (arXiv 1709.02755v5), equations (1) to (4)."
    sru.__doc__ = " ".join([start, *filter(None, notes)])
    return cell(states=("c",), width="I" if highway or beside else "H", sizes={"s": "H"} if beside else None)(sru)


sru_highway = _variant(True, False, False)
sru_projection = _variant(False, True, False)
sru_rescale = _variant(False, False, True)
sru_highway_projection = _variant(True, True, False)
sru_projection_rescale = _variant(False, True, True)
# Of two inputs, x for the products and s for the highway: the halves of a bidirectional layer's x, one per direction.
sru_beside = _variant(False, False, False, beside=True)
sru_beside_rescale = _variant(False, False, True, beside=True)
