"""The SRU's variants, from one equation: a highway of its own matrix, a projection before the products, a rescaled x."""

from ..tracer import Cell, cell


def _variant(highway: bool, projection: bool, rescale: bool) -> Cell:
    """The cell ``sru[_highway][_projection][_rescale]``."""
    gates = ["u", "wf", "wr", "wx"] if highway else ["u", "wf", "wr"]

    def sru(n, x, c):
        source = n.affine("p", x, bias=False, size="P") if projection else x
        u, wf, wr, *wx = n.affine(" ".join(gates), source, bias="wf wr")
        f = n.path("f", n.add(wf, n.mul(n.vector("v_f"), c)))
        r = n.path("r", n.add(wr, n.mul(n.vector("v_r"), c)))
        c_next = n.lerp(n.sigmoid(f), c, u)
        skip = n.path("skip", n.mul(x, n.vector("alpha"))) if rescale else x
        h = n.path("h", n.lerp(n.sigmoid(r), c_next, wx[0] if highway else skip))
        return h, c_next

    parts = {"highway": highway, "projection": projection, "rescale": rescale}
    sru.__name__ = "_".join(["sru", *(name for name, there in parts.items() if there)])
    notes = [
        "The highway is (1 − r) ⊙ wx by a matrix, the sru package's fourth, for an input of any width." * highway,
        "The highway is (1 − r) ⊙ α x; equation (10) has α² = 1 + 2 exp(bias of r)." * rescale,
        "The products read p = P x (the package's projection_size)." * projection,
    ]
    start = f"SRU, gates {', '.join(gates)}; v_f and v_r peep at c. Lei et al. 2018 (arXiv 1709.02755v5), equations (1) to (4)."
    sru.__doc__ = " ".join([start, *filter(None, notes)])
    return cell(states=("c",), width="I" if highway else "H")(sru)


sru_highway = _variant(True, False, False)
sru_projection = _variant(False, True, False)
sru_rescale = _variant(False, False, True)
sru_highway_projection = _variant(True, True, False)
sru_projection_rescale = _variant(False, True, True)
