from ..program.tracer import cell


@cell(states=("c",), width="H")
def sru(n, x, c):
    """SRU: no recurrent matrix; the recurrence is element-wise, and x feeds both the product and the highway, so the
    input is as wide as the state. Gates u (candidate), f (forget), r (reset); v_f and v_r peep at c. Lei et al. 2018
    (arXiv 1709.02755v5), equations (1) to (4), without the highway's rescaling.
    """
    u, wf, wr = n.affine("u wf wr", x, bias="wf wr")
    f = n.path("f", n.add(wf, n.mul(n.vector("v_f"), c)))
    r = n.path("r", n.add(wr, n.mul(n.vector("v_r"), c)))
    c_next = n.lerp(n.sigmoid(f), c, u)
    h = n.path("h", n.lerp(n.sigmoid(r), c_next, x))
    return h, c_next
