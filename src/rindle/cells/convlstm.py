"""LSTMs whose products are convolutions: states are images, channel first."""

from ..program.tracer import Cell, cell


def _variant(peephole: bool) -> Cell:
    """The cell ``convlstm[_peephole]``. The gates that peep see c before they act, o the new one."""
    gates = "i f g o".split()
    blocks = [f"w{gate}" if peephole and gate != "g" else gate for gate in gates]
    layout = {
        "weight_ih": " ".join(f"{block}.x" for block in blocks),
        "weight_hh": " ".join(f"{block}.h" for block in blocks),
        "bias": " ".join(blocks),
    }

    def convlstm(n, x, h, c):
        paths = dict(zip(gates, n.conv(" ".join(blocks), x, h)))

        def gate(name, c):
            """σ of the gate, with its look at c."""
            w = paths[name]
            return n.sigmoid(n.path(name, n.add(w, n.mul(n.vector(f"p_{name}"), c))) if peephole else w)

        c = n.sum_of_products(gate("f", c), c, gate("i", c), n.tanh(paths["g"]))
        return n.mul(gate("o", c), n.tanh(c)), c

    convlstm.__name__ = "convlstm" + "_peephole" * peephole
    convlstm.__doc__ = (
        "ConvLSTM with the gates i, f, g, o: W * x + W * h, the images' size unchanged by an odd kernel, one bias per channel. "
        f"Shi et al. 2015 (arXiv 1506.04214), equation (3){', peepholes p ⊙ c included' if peephole else ' without peepholes'}."
    )
    peeps = {f"weight_{name}": name for name in ("p_i", "p_f", "p_o")} if peephole else {}
    return cell(states=("h", "c"), layout=layout | peeps)(convlstm)


convlstm = _variant(False)
convlstm_peephole = _variant(True)
