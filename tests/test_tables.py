"""Rules of tables: what each form is, how well it stands for its function, and that all engines compute it alike."""

from itertools import pairwise

import naive
import numpy as np
import pytest
import torch
from support import Only, TorchModel, assert_agree, sequences

import rindle
from rindle import RindleError, fixed
from rindle.file.container import loads
from rindle.numbers.codes import evaluate_table
from rindle.numbers.tables import DEFAULT, FUNCTIONS, PIECES, TableRule, build, parse_table

CODES = np.arange(-32768, 32768)
FORMS = ["linear 16", "linear 256", "linear 64 range(4)", "direct 64", "direct 256 range(6)", *PIECES]
CURVES = {  # each form as its authors write it, for x >= 0
    ("plan", "sigmoid"): lambda x: np.select(
        [x < 1, x < 2.375, x < 5], [x / 4 + 0.5, x / 8 + 0.625, x / 32 + 0.84375], 1.0
    ),
    ("plan", "tanh"): lambda x: 2 * CURVES["plan", "sigmoid"](2 * x) - 1,
    ("hard", "sigmoid"): lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    ("hard", "tanh"): lambda x: np.clip(x, -1, 1),
    ("hard(4)", "sigmoid"): lambda x: np.clip(x / 4 + 0.5, 0, 1),
    ("hard(8)", "sigmoid"): lambda x: np.clip(x / 8 + 0.5, 0, 1),
}


@pytest.mark.parametrize(
    "text, rule",
    [
        ("linear 64", TableRule("linear", 64)),
        ("linear", DEFAULT),
        (" linear  128   range( 6 ) ", TableRule("linear", 128, 6.0)),
        ("direct 256", TableRule("direct", 256)),
        ("direct", TableRule("direct", 256)),
        ("direct 2 range(2.5)", TableRule("direct", 2, 2.5)),
        ("plan", TableRule("plan", None)),
        ("hard(4)", TableRule("hard(4)", None)),
    ],
)
def test_rules(text, rule):
    assert parse_table(text) == parse_table(str(rule)) == rule


@pytest.mark.parametrize(
    "text, words",
    [
        ("linear 100", "a power of two of 2..256"),
        ("linear 512", "a power of two of 2..256"),
        ("direct 1", "a power of two of 2..256"),
        ("linear 64 range(0)", "a range is"),
        ("linear 64 range(1000)", "a range is"),
        ("linear 64 range(-4)", "a table is one of"),
        ("plan 64", "a table is one of"),
        ("plan range(4)", "a table is one of"),
        ("hard(3)", "a table is one of"),
        ("cubic 64", "a table is one of"),
        (64, "is 64; a table is one of"),
    ],
)
def test_what_is_not_a_rule(text, words):
    with pytest.raises(RindleError, match=words):
        parse_table(text, "the rule")


def of(function):
    return [form for form in FORMS if form not in PIECES or function in PIECES[form]]


@pytest.mark.parametrize("function, form", [(f, form) for f in FUNCTIONS for form in of(f)])
@pytest.mark.parametrize(
    "x, y", [(fixed(16, 12), fixed(16, 15)), (fixed(16, 8), fixed(8, 7)), (fixed(8, 5), fixed(5, 3))]
)
def test_the_error_is_measured_over_all_codes_and_the_meaning_is_that_of_the_numerics(function, form, x, y):
    table = build(function, x, y, parse_table(form))
    codes = CODES[(CODES >= x.lo) & (CODES <= x.hi)]
    found = evaluate_table(table, codes, y)
    exact = FUNCTIONS[function].values(codes * x.scale)
    assert table.max_error == np.abs(found * y.scale - exact).max()
    assert ((found >= y.lo) & (found <= y.hi)).all()
    entry = {part: getattr(table, part) for part in ("flag", "degree", "x0", "p", "q")}
    entry |= {"base": table.base.tolist(), "slope": None if table.slope is None else table.slope.tolist()}
    for k in range(0, len(codes), 37):
        assert found[k] == naive.table(entry, int(codes[k]), y.lo, y.hi, y.frac)


@pytest.mark.parametrize("form, function", CURVES)
@pytest.mark.parametrize("frac", [-1, 0, 1, 3, 4, 9, 12, 15])
def test_given_lines_are_those_of_their_authors_to_one_code(form, function, frac):
    """Of every code; and where slopes are powers of two, 16-bit results have nothing but the rounding to codes."""
    x, y = fixed(16, frac), fixed(16, 14)
    codes = CODES[CODES >= 0]
    exact = CURVES[form, function](codes * x.scale) / y.scale
    found = evaluate_table(build(function, x, y, parse_table(form)), codes, y)
    assert np.abs(found - exact).max() <= (0.5 if (form, function) != ("hard", "sigmoid") else 1.0)


@pytest.mark.parametrize(
    "form, function, error",
    [
        ("plan", "sigmoid", 0.0189),
        ("hard", "sigmoid", 0.0758),
        ("hard(4)", "sigmoid", 0.1192),
        ("hard", "tanh", 0.2384),
        ("direct 256", "sigmoid", 0.0039),
    ],
)
def test_known_errors_are_found(form, function, error):
    """PLAN's 1.89 % is Amin's own figure; hard forms err at their corners 2.5, 2 and 1. A look-up errs by half of what a
    segment climbs: 2^-5 / 4, of 256 up to 8.
    """
    assert build(function, fixed(16, 12), fixed(16, 15), parse_table(form)).max_error == pytest.approx(error, abs=6e-5)


@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
@pytest.mark.parametrize("form", ["linear", "direct"])
@pytest.mark.parametrize("y", [fixed(16, 15), fixed(8, 7)])
def test_more_segments_are_no_worse(function, form, y):
    errors = [build(function, fixed(16, 12), y, TableRule(form, 2**k)).max_error for k in range(1, 9)]
    assert all(more <= fewer + y.scale for fewer, more in pairwise(errors))
    assert errors[-1] < errors[0] / 8 or errors[-1] <= y.scale


@pytest.mark.parametrize("form", ["linear 128", "direct 256"])
@pytest.mark.parametrize("reach", [2, 3, 6])
def test_beyond_its_range_a_table_is_flat(form, reach):
    x, y = fixed(16, 12), fixed(16, 15)
    table = build("sigmoid", x, y, parse_table(f"{form} range({reach})"))
    found = evaluate_table(table, CODES, y) * y.scale
    beyond = found[CODES * x.scale >= reach]
    assert len(set(beyond)) == 1 and beyond[0] == pytest.approx(1 / (1 + np.exp(-reach)), abs=0.01)
    assert build("sigmoid", x, y, parse_table(form)).max_error <= table.max_error  # a coarse look-up has the same


def test_a_look_up_with_an_entry_for_every_code_is_exact():
    x, y = fixed(8, 5), fixed(12, 11)
    table = build("tanh", x, y, parse_table("direct 128"))
    codes = np.arange(-127, 128)
    assert (
        evaluate_table(table, codes, y) == np.sign(codes) * np.floor(np.tanh(np.abs(codes) / 32) * 2048 + 0.5)
    ).all()
    assert table.slope is None and table.p == 0


def test_zero_stays_zero():
    for form in of("tanh"):
        assert (
            evaluate_table(
                build("tanh", fixed(16, 12), fixed(16, 15), parse_table(form)), np.zeros(1, int), fixed(16, 15)
            )
            == 0
        )


# ------------------------------------------------------------------------------------- through the whole conversion


def lstm(overrides=None, scale=1.0, scheme="fixed(8,8)"):
    torch.manual_seed(0)
    model = TorchModel("lstm").eval()
    with torch.no_grad():
        for value in model.rnn.parameters():
            value *= scale
    return rindle.quantize(model, scheme, sequences(), overrides)


@pytest.mark.fast(1)
@pytest.mark.parametrize("form", ["linear 4", "direct 64 range(4)", "plan", "hard"])
def test_engines_agree(form):
    model = lstm({"table.*": form, "rnn.l1/table.i.sigmoid": "hard(8)"}, scale=8.0)
    rows = sequences(rows=3, time=6, seed=1)
    assert_agree(model.artifact, 20 * rows, np.array([4, 6, 1]))
    table = model.artifact.graph.node("rnn.l0").layer.constants["i.sigmoid"]
    assert table.max_error > 0.005 > lstm().artifact.graph.node("rnn.l0").layer.constants["i.sigmoid"].max_error
    assert model.artifact.graph.node("rnn.l1").layer.constants["i.sigmoid"].max_error == pytest.approx(0.133, abs=2e-3)
    assert loads(model.data).graph.node("rnn.l0").layer.constants["i.sigmoid"].max_error == table.max_error


def test_the_range_of_a_table_and_the_format_that_it_reads_are_one_choice():
    """Beyond 8.5 a sigmoid is flat, which takes 16; with range(4), 4 do. What else reads a path keeps its range."""
    usual = lstm(scale=30.0).artifact.graph.node("rnn.l0").layer.formats
    narrow = lstm({"table.*": "linear 128 range(4)"}, scale=30.0).artifact.graph.node("rnn.l0").layer.formats
    assert (usual["i"].frac, narrow["i"].frac, usual["g"].frac) == (11, 13, 12)
    assert usual["c"] == narrow["c"]
    one = lstm({"table.o.sigmoid": "plan"}, scale=30.0).artifact.graph.node("rnn.l0").layer.formats
    assert (one["o"].frac, one["i"].frac) == (12, 11)


def test_the_standard_table_is_the_default_and_patterns_of_formats_mean_no_tables():
    ids = {
        lstm(overrides).id
        for overrides in (
            None,
            {"table.*": "linear 128"},
            {"*": "fixed16 max(1.25)", "weight.*": "fixed8 mmse", "code.*": "fixed8 mmse"},
        )
    }
    assert len(ids) == 1
    assert lstm({"table.*": "linear 64"}).id not in ids


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"table.*": "hard(4)"}, r"rnn.l0/g.tanh: 'hard\(4\)' is a form of sigmoid, not of tanh"),
        ({"table.i.tanh": "hard"}, r"no path fits 'table.i.tanh'; did you mean '.*table"),
        ({"table.*": "fixed16"}, "a table is one of"),
        ({"i": "linear 64"}, "write for example"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(overrides, words):
    with pytest.raises(RindleError, match=words):
        lstm(overrides)


def test_a_form_that_a_function_does_not_have_is_named_with_the_path():
    class Gelu(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = torch.nn.GRU(5, 4, batch_first=True), torch.nn.Linear(4, 4)

        def forward(self, x):
            return torch.nn.functional.gelu(self.fc(self.rnn(x)[0]))

    torch.manual_seed(0)
    with pytest.raises(RindleError, match="'plan' is a form of sigmoid and tanh, not of normal_cdf"):
        rindle.quantize(Gelu().eval(), "fixed(8,8)", sequences(), {"table.*": "plan"})


def test_training_and_conversion_keep_the_rule():
    torch.manual_seed(0)
    net = Only(torch.nn.GRU(5, 6, batch_first=True))
    ready = rindle.prepare(
        net, "fixed(8,8)", torch.from_numpy(sequences()), {"table.*": "plan", "accumulator.*": "24 bits"}
    )
    layer = rindle.convert(ready).artifact.graph.node("rnn.l0").layer
    assert layer.constants["z.sigmoid"].max_error == pytest.approx(0.0189, abs=1e-4)
