"""The grid and the path skipping of Rezk et al. 2022 as plain rules."""

import json

import pytest
import torch
from shapes import chain, resolved
from support import FEATURES, HIDDEN, OUTPUTS, Only, TorchModel, recurrent, sequences

import rindle
from rindle import CELLS, RindleError
from rindle.scheme import rezk as presets

# cell -> what a layer of it skips, and how many first layers that is with skip=first
PUBLISHED = {
    "lstm": ("g.h", 2),
    "lstm_peephole": ("g.h", 2),
    "gru": ("nh.h", 3),
    "gru_reset_before": ("n.rh", 3),
    "ligru": ("a.h", 3),
    "sru": (None, 0),
    "sru_projection": (None, 0),
}


@pytest.mark.parametrize("cell", PUBLISHED)
@pytest.mark.parametrize("mode", ["none", "all", "first"])
def test_the_skipped_paths_are_the_published_ones(cell, mode):
    product, first = PUBLISHED[cell]
    layers = {"none": 0, "all": 5, "first": first}[mode] if product else 0
    wanted = {f"rnn.l{k}/{kind}.{product}" for k in range(layers) for kind in ("weight", "code")}
    found = presets.skip(chain(cell, 5), mode)
    assert set(found) == wanted
    assert all(text.startswith("fixed16") for text in found.values())


def bits_of(scheme: str, graph) -> dict[str, tuple]:
    rules = resolved(scheme, graph)
    return {f"{layer}/{path}": (rule.kind, rule.bits) for (layer, path), rule in rules.items() if "." in path}


# row: Wx, Wh, Ax, Ah of layers 0 | 1.., weights and codes behind them: the published grid, written out once more
GRID = {
    "rezk-uniform8": "8 8 8 8 | 8 8 8 8 | 8 8",
    "rezk-uniform4": "4 4 4 4 | 4 4 4 4 | 4 4",
    "rezk-8-4": "8 4 8 4 | 4 4 4 4 | 4 4",
    "rezk-m1": "8 2 8 8 | 2 2 8 8 | 8 8",
    "rezk-m2": "8 2 8 8 | 2 2 8 8 | 4 4",
    "rezk-m3": "8 2 8 8 | 2 2 8 8 | 2 8",
    "rezk-m4": "2 2 8 8 | 2 2 8 8 | 2 8",
    "rezk-m5": "2 2 2 2 | 2 2 2 2 | 2 4",
    "rezk-m6": "8 2 8 4 | 2 2 4 4 | 4 4",
    "rezk-m7": "8 2 8 4 | 2 2 4 4 | 2 4",
    "rezk-m8": "4 4 4 4 | 2 2 4 4 | 2 4",
}


def test_a_linear_below_a_recurrent_layer_is_its_projection():
    """As SRU has it in a module of its own; only what stands behind all recurrent layers is the read-out."""

    class Projected(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (torch.nn.GRU(i, 6, batch_first=True) for i in (FEATURES, 4))
            self.project, self.fc = torch.nn.Linear(6, 4), torch.nn.Linear(6, OUTPUTS)

        def forward(self, x):
            return self.fc(self.second(self.project(self.first(x)[0]))[0])

    torch.manual_seed(0)
    rules = rindle.scheme_rules(Projected().eval(), "rezk-m1", sequences())
    weights = {key.split("/")[0]: rule for key, rule in rules.items() if "/weight." in key}
    assert weights["project"] == "int2 mmse" and rules["project/code.y.x"] == "int8 mmse median"
    assert weights["fc"] == "int8 mmse" and rules["fc/code.y.x"] == "int8 max(0.8) median"


@pytest.mark.parametrize("row", GRID)
@pytest.mark.parametrize("cell, x, h", [("gru_reset_before", "z.x", "z.h"), ("sru_projection", "wf.p", "p.x")])
def test_the_rows_have_the_published_bits(row, cell, x, h):
    """Of an SRU the projection takes the place of the products on the state."""
    assert set(GRID) == set(presets.REZK)
    first, later, fc = ([("int", int(b)) for b in part.split()] for part in GRID[row].split("|"))
    found = bits_of(row, chain(cell, 4))
    for layer, bits in (("rnn.l0", first), ("rnn.l1", later), ("rnn.l3", later)):
        assert [found[f"{layer}/{kind}.{name}"] for kind in ("weight", "code") for name in (x, h)] == bits
    assert [found["fc/weight.y.x"], found["fc/code.y.x"]] == fc


def test_the_reset_state_is_a_state():
    """r ⊙ h and the LSTM's projection depend on the state, an SRU's projection does not."""
    assert CELLS["gru_reset_before"].program.hidden >= {"h", "rh"}
    assert "m" in CELLS["lstm_projection"].program.hidden
    assert CELLS["sru_projection"].program.hidden.isdisjoint({"x", "p"})
    assert not any("x" in one.program.hidden for one in CELLS.values())


def net(cell="lstm", layers=3):
    torch.manual_seed(0)
    return TorchModel(cell, layers=layers).eval()


@pytest.mark.filterwarnings("ignore:.*its steps grow:rindle.errors.RindleWarning")  # of the skipped path
def test_a_preset_by_its_name_is_its_plain_rules():
    x = sequences()
    named = rindle.quantize(net(), "rezk-m6 skip=first", x)
    rules = rindle.scheme_rules(net(), "rezk-m6 skip=first", x)
    assert json.loads(json.dumps(rules)) == rules
    assert rindle.quantize(net(), rules, x).id == named.id
    assert rindle.quantize(net(), "rezk-m6", x).id != named.id
    assert named.artifact.provenance["scheme"] == "rezk-m6 skip=first"
    layers = [named.artifact.graph.node(f"rnn.l{k}").layer for k in range(3)]
    bits = [
        {
            gate: p.format.bits
            for t, p in zip(op.terms, layer.constants["i"].products)
            if t.source == "h"
            for gate in t.gates
        }
        for layer in layers
        for op in layer.program.affines
    ]
    assert bits == [{"i": 2, "f": 2, "g": 16, "o": 2}] * 2 + [{"i": 2, "f": 2, "g": 2, "o": 2}]
    for engine in ("reference", "runtime"):
        assert (named.run(x, engine=engine) == named.run(x)).all()


def test_layers_count_by_what_stands_before_them_not_by_their_names():
    """Both directions of the first layer are first; a Linear before the recurrent layers is not one behind them."""
    torch.manual_seed(0)
    both = Only(recurrent("ligru", FEATURES, HIDDEN, 2, batch_first=True, bidirectional=True))
    rules = rindle.scheme_rules(both, "rezk-m1 skip=all", sequences())
    for direction in ("", "_reverse"):
        assert rules[f"rnn.l0{direction}/weight.z.x"] == "int8 mmse"
        assert rules[f"rnn.l1{direction}/weight.z.x"] == "int2 mmse"
        assert rules[f"rnn.l1{direction}/weight.a.h"] == "fixed16 max(4)"
    rules = rindle.scheme_rules(net(), "rezk-m2", sequences())
    assert rules["first/weight.y.x"] == "fixed16 max(4)"
    assert rules["last/weight.y.x"] == "int4 mmse" and rules["last/code.y.x"] == "int4 max(0.8) median"


def test_any_scheme_may_skip():
    rules = rindle.scheme_rules(net("gru"), "int8 skip=all", sequences())
    assert rules == rindle.SCHEMES["int8"] | {
        f"rnn.l{k}/{key}": text
        for k in range(3)
        for key, text in (("weight.nh.h", "fixed16 max(4)"), ("code.nh.h", "fixed16 max(1.25)"))
    }


def test_overrides_come_after_a_preset():
    model = rindle.quantize(net(), "rezk-m1 skip=all", sequences(), {"rnn.l1/weight.i.h": "int3 max"})
    (op,) = model.artifact.graph.node("rnn.l1").layer.program.affines
    products = model.artifact.graph.node("rnn.l1").layer.constants["i"].products
    assert {t.gates: p.format.bits for t, p in zip(op.terms, products)}["i",] == 3


@pytest.mark.parametrize(
    "scheme, words",
    [
        ("rezk-m9", "unknown scheme 'rezk-m9'; did you mean 'rezk-m"),
        ("int9 skip=all", "unknown scheme 'int9'; did you mean 'int8'"),
        ("int8 skip=some", "skip is 'some'; there are none, all, first"),
        ("int8 all", "unknown scheme"),
    ],
)
def test_what_is_not_a_preset(scheme, words):
    with pytest.raises(RindleError, match=words):
        rindle.quantize(net(), scheme, sequences())


def test_a_cell_of_which_nothing_is_published_is_not_skipped_in_silence():
    with pytest.raises(RindleError, match=r"rnn.l0: no path of the cell 'rnn_tanh' is published .*rindle sensitivity"):
        rindle.quantize(net("rnn_tanh"), "int8 skip=all", sequences())
    assert rindle.quantize(net("rnn_tanh"), "rezk-m1", sequences()).run(sequences()).shape == (8, 20, OUTPUTS)


def test_prepare_takes_a_preset_as_rules():
    x = sequences()
    with pytest.raises(RindleError, match=r"depends on the model's layers together.*scheme_rules"):
        rindle.prepare(net(), "rezk-m1", torch.from_numpy(x))
    model = Only(torch.nn.GRU(FEATURES, HIDDEN, batch_first=True)).eval()
    rules = rindle.scheme_rules(model, "rezk-m1 skip=all", x)
    made = rindle.convert(rindle.prepare(model, rules, torch.from_numpy(x)))
    bits = {
        (gate, t.source): p.format.bits
        for op in made.artifact.graph.node("rnn.l0").layer.program.affines
        for t, p in zip(op.terms, made.artifact.graph.node("rnn.l0").layer.constants[op.out[0]].products)
        for gate in t.gates
    }
    assert bits["nh", "h"] == 16 and bits["r", "h"] == 2 and bits["r", "x"] == 8
