"""What inspect --hardware says of a file: that it is exact, that its reasons are true, and that the page of docs/ is of today."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from support import ROOT, Only, TorchModel, quantized, quantized_graph, sequences

import rindle
from rindle import cli
from rindle.file.dataset import dataset
from rindle.measure.cost import sizes
from rindle.measure.widths import UNKNOWN, hardware
from rindle.report.hardware import markdown

EXAMPLE = ROOT / "docs" / "digits-lstm.rindle"


def choices(model) -> dict:
    return {one.name: one for one in hardware(model.artifact).choices}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = TorchModel("lstm").eval()
    with torch.no_grad():
        for value in net.rnn.parameters():
            value *= 30
    overrides = {"rnn.l1/c": "fixed(16,10)", "table.*": "linear 64 range(4)", "rnn.l0/i": "fixed16 mmse"}
    return rindle.quantize(net, "fixed(8,5)", sequences(), overrides)


def test_every_reason_is_the_one_that_calibration_had(model):
    found = choices(model)
    reasons = {name: one.reason for name, one in found.items()}
    assert reasons["rnn.l1/c"] == "given" and found["rnn.l1/c"].reach == pytest.approx(32, rel=1e-3)
    assert reasons["rnn.l0/i.sigmoid"] == reasons["rnn.l0/h"] == "bound known: |v| ≤ 1"
    assert reasons["rnn.l0/f"] == "only tables read it, flat beyond 4"
    assert reasons["rnn.l0/i"] == "mmse over what was observed"
    assert reasons["rnn.l0/x"] == "that of first, which it reads"
    assert reasons["first/y"].startswith("covers observed with 1.25 x headroom, in (")
    assert UNKNOWN not in reasons.values()


def test_what_a_format_covers_is_what_was_observed(model):
    """The power of two below would not have held it, headroom included."""
    torch.manual_seed(0)
    net = TorchModel("lstm").eval()
    largest = 1.25 * float(net.first(torch.from_numpy(sequences())).detach().abs().max())
    reach = choices(model)["first/y"].reach
    assert reach / 2 < largest <= reach * (1 + 2**-15)
    assert choices(model)["first/y"].reason.endswith(f"in ({round(reach) / 2:g}, {round(reach):g}]")


def test_accumulators_are_reached_and_never_passed(model):
    """The input that a worst row asks for gives its sum; the bits hold it, one fewer would not."""
    needs = {one.name: one for one in hardware(model.artifact).products}
    for node in model.artifact.graph.programs:
        for op in node.layer.program.affines:
            for term, product in zip(op.terms, node.layer.constants[op.out[0]].products):
                one, hi = needs.pop(f"{node.name}/{term.key}"), node.layer.formats[term.code].hi
                sums = [sum(abs(int(w)) * hi for w in row) for row in product.weight]
                assert (one.reach, one.row) == (max(sums), sums.index(max(sums)))
                assert 2 ** (one.accumulator - 2) <= one.reach <= 2 ** (one.accumulator - 1) - 1
                assert one.multiplier == 0
    assert not needs


def test_sums_are_the_bound_that_the_numerics_ask_for(model):
    needs = {one.name: one for one in hardware(model.artifact).sums}
    layer = model.artifact.graph.node("rnn.l0").layer
    (op,) = layer.program.affines
    constant, worst = layer.constants["i"], 0
    for row in range(len(constant.bias)):
        total = abs(int(constant.bias[row])) + (2 ** (constant.shift - 1) if constant.shift else 0)
        for term, product in zip(op.terms, constant.products):
            assert term.gates == op.out
            total += (
                sum(abs(int(w)) for w in product.weight[row])
                * layer.formats[term.code].hi
                * int(product.multiplier[row])
            )
        worst = max(worst, total)
    assert needs["rnn.l0/i f g o"].bits == worst.bit_length() + 1


def test_multipliers_and_memory_are_those_of_the_file(model):
    found, other = hardware(model.artifact), hardware(quantized("gru", "int8").artifact)
    assert found.shifts_only and found.memory["multipliers"] == 0
    assert not other.shifts_only and 15 < max(one.multiplier for one in other.products) <= 22
    for one, needs in ((model, found), (quantized("gru", "int8"), other)):
        held = sizes(one.artifact)
        assert needs.memory["weights"] <= 8 * held["weights"] < needs.memory["weights"] + 8 * 17 * 60
        assert needs.memory["tables"] == 8 * held["tables"]
    assert found.memory["states"] == 4 * 17 * 16
    thin = quantized("gru", "int8").with_thresholds({"rnn.l0/h": 3}).artifact
    assert hardware(thin).memory["held inputs"] == 17 * 8


def test_tables_are_listed_once_with_their_users(model):
    found = hardware(model.artifact).tables
    assert {(t.function, t.form, t.segments) for t in found} == {("sigmoid", "linear", 64), ("tanh", "linear", 64)}
    users = [user for table in found for user in table.used_by]
    assert sorted(users) == sorted(set(users)) and len(users) == 10
    assert all(table.reach <= 8 and table.bits == 2048 for table in found)


def test_a_file_that_does_not_say_how_it_was_made_says_so(model):
    for provenance in ({}, {"scheme": "a later one"}, {"scheme": "int8", "overrides": {"nothing.here": "int8"}}):
        found = hardware(replace(model.artifact, provenance=provenance))
        assert {one.reason for one in found.choices if one.name.startswith("rnn.l0/i")} == {UNKNOWN}
        assert [one.format for one in found.choices] == [one.format for one in hardware(model.artifact).choices]
        assert UNKNOWN in markdown(found, "x")


def test_learned_steps_embeddings_and_joins_have_their_own_reasons():
    torch.manual_seed(0)
    ready = rindle.prepare(Only(torch.nn.GRU(5, 6, batch_first=True)), "int8", torch.from_numpy(sequences()))
    assert choices(rindle.convert(ready))["rnn.l0/h.code"].reason.startswith("learned in training")
    found = choices(quantized_graph("words", "int8"))
    assert found["embedding"].reason.startswith("narrow") and "input" not in found
    joined = choices(quantized_graph("mixed", "int8"))
    assert any(one.reason.startswith("16 bits: its readers") for one in joined.values())


@pytest.mark.parametrize("kind", ["bidirectional lstm", "mixed", "words, both directions"])
def test_every_graph_has_a_page(kind):
    text = markdown(hardware(quantized_graph(kind, "int8").artifact), "x")
    assert text.count("\n## ") == 5 and "| **total** |" in text
    for line in text.splitlines():
        assert not line.startswith("|") or line.count("|") - line.count("\\|") in (4, 6, 7, 8, 10), line


def test_the_example_of_the_documentation_is_what_the_command_prints_today():
    page = (ROOT / "docs" / "hardware.md").read_text()
    text = markdown(hardware(rindle.load(EXAMPLE).artifact), f"Hardware needs of {EXAMPLE.name}")
    assert text in page
    assert rindle.load(EXAMPLE).replay().tolist() == rindle.load(EXAMPLE).artifact.golden.outputs.tolist()


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the command in a folder of its own; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rindle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def test_the_command_prints_the_page_writes_it_whole_and_has_it_as_json(call, tmp_path):
    code, out, _ = call("inspect", EXAMPLE, "--hardware")
    assert (code, out) == (0, markdown(hardware(rindle.load(EXAMPLE).artifact), f"Hardware needs of {EXAMPLE.name}"))
    assert call("inspect", EXAMPLE, "--hardware", "-o", "needs.md")[0] == 0
    assert (tmp_path / "needs.md").read_text() == out
    code, _, err = call("inspect", EXAMPLE, "--hardware", "-o", "needs.md")
    assert code == 2 and "give --force" in err
    code, out, _ = call("inspect", EXAMPLE, "--hardware", "--json")
    found = json.loads(out)
    assert found["shifts_only"] is True and found["products"][0]["accumulator"] <= 24
    assert found["choices"][0]["name"] == "input"
    for wrong in (("--hardware", "--data", "x.npz"), ("-o", "needs.md")):
        code, _, err = call("inspect", EXAMPLE, *wrong)
        assert code == 2 and "--hardware" in err
    code, out, _ = call("inspect", EXAMPLE)
    assert ", linear 64" in out and "┃ accumulator ┃" in out and "│ 18 bits     │" in out


NETS = """
import torch
from support import TorchModel

def net():
    torch.manual_seed(0)
    return TorchModel("gru", layers=1).eval()
"""


def test_quantize_takes_widths_a_limit_and_a_search(call, tmp_path):
    (tmp_path / "hardware_nets.py").write_text(NETS)
    dataset(sequences(rows=3, time=6)).save(tmp_path / "c.npz")
    (tmp_path / "bad.json").write_text('{"code.*.h": "fixed(4,0)"}')
    common = (
        "quantize",
        "hardware_nets:net",
        "--calibration",
        "c.npz",
        "--overrides",
        "bad.json",
        "--scheme",
        "fixed-5-4",
        "--json",
    )
    code, out, _ = call(*common, "-o", "a.rindle", "--accumulator", 24, "--search-formats", "c.npz")
    assert code == 0
    found = json.loads(out)["searched"]
    assert found["drift"][1] < found["drift"][0] and all(
        rule.startswith("fixed(") for rule in found["overrides"].values()
    )
    made = rindle.load(tmp_path / "a.rindle").artifact
    assert made.provenance["scheme"] == "fixed-5-4"
    assert made.provenance["overrides"] == {"accumulator.*": "24", "code.*.h": "fixed(4,0)"} | found["overrides"]
    assert len((tmp_path / "a.rindle.formats.jsonl").read_text().splitlines()) == found["evaluations"]
    rules = {one.rule for one in choices(rindle.load(tmp_path / "a.rindle")).values()}
    assert {rule for rule in found["overrides"].values()} & rules
    code, _, err = call(*common, "-o", "b.rindle", "--accumulator", 8)
    assert code == 2 and "needs an accumulator of" in err and not (tmp_path / "b.rindle").exists()
    code, _, err = call(*common[:-2], "fixed(1,4)", "-o", "b.rindle")
    assert code == 2 and "write fixed(w,a)" in err
