"""The LSTM's variants, from one equation: every combination of peepholes, coupled gates and a projection."""

from ..program.tracer import Cell, cell


def _variant(peephole: bool, coupled: bool, projection: bool) -> Cell:
    """The cell ``lstm[_peephole][_cifg][_projection]``. The gates that peep see c before they act, o the new one."""
    gates = ["i", "g", "o"] if coupled else ["i", "f", "g", "o"]
    blocks = [f"w{gate}" if peephole and gate != "g" else gate for gate in gates]
    layout = {
        "weight_ih": [f"{block}.x" for block in blocks],
        "weight_hh": [f"{block}.h" for block in blocks],
        "bias_ih": blocks,
        "bias_hh": blocks,
        "weight_peephole": [f"p_{gate}" for gate in ("i", "o", "f") if gate in gates] * peephole,  # ONNX's order
        "weight_hr": ["r.m"] * projection,
    }

    def lstm(n, x, h, c):
        paths = dict(zip(gates, n.affine(" ".join(blocks), x, h)))

        def gate(name, c):
            """σ of the gate, with its look at c."""
            w = paths[name]
            return n.sigmoid(n.path(name, n.add(w, n.mul(n.vector(f"p_{name}"), c))) if peephole else w)

        if coupled:
            c = n.lerp(gate("i", c), n.tanh(paths["g"]), c)
        else:
            c = n.sum_of_products(gate("f", c), c, gate("i", c), n.tanh(paths["g"]))
        h = n.mul(gate("o", c), n.tanh(c))
        if projection:
            h = n.affine("r", n.path("m", h), bias=False, size="P")
        return h, c

    parts = {"peephole": peephole, "cifg": coupled, "projection": projection}
    lstm.__name__ = "_".join(["lstm", *(name for name, there in parts.items() if there)])
    notes = [
        "Peepholes p ⊙ c: i and f see the old c, o the new one (Gers & Schmidhuber 2000)." * peephole,
        "The forget gate is 1 − i: coupled, CIFG (Greff et al. 2017, arXiv 1503.04069)." * coupled,
        "The output is projected to P features, h = r = W_hr m, m = σ(o) ⊙ tanh(c) (Sak et al. 2014, arXiv 1402.1128)."
        * projection,
    ]
    lstm.__doc__ = " ".join([f"LSTM with the gates {', '.join(gates)}, else as in torch.", *filter(None, notes)])
    return cell(
        states=("h", "c"),
        layout={name: " ".join(rows) for name, rows in layout.items() if rows},
        sizes={"h": "P"} if projection else None,
    )(lstm)


lstm_peephole = _variant(True, False, False)
lstm_cifg = _variant(False, True, False)
lstm_projection = _variant(False, False, True)
lstm_peephole_cifg = _variant(True, True, False)
lstm_peephole_projection = _variant(True, False, True)
lstm_cifg_projection = _variant(False, True, True)
lstm_peephole_cifg_projection = _variant(True, True, True)
