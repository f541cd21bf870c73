"""Which paths cannot bear few bits: the search on made-up models, and the measurement on real ones."""

import itertools
import json
import sys
import tomllib

import numpy as np
import pytest
import torch
from support import FEATURES, HIDDEN, TorchModel, sequences

import rindle
from rindle import RindleError, cli
from rindle.cli.app import console
from rindle.file.dataset import dataset
from rindle.nn.quantize import calibrated
from rindle.nn.variants.paths import Variants
from rindle.search.choose_paths import kept_rules, measure, overrides_of, paths_of, toml
from rindle.search.sensitivity import Outcome, Path, search

# --------------------------------------------------------------------------------------------- made-up models


def made_up(costs: dict[str, tuple[float, int]], interaction=0.0):
    """Drift is the sum over low parts, (drift, bytes) each, plus what they do together; error is 10 x drift."""
    asked = []

    def evaluate(kept):
        asked.append(kept)
        low = [costs[part][0] for part in costs if part not in kept]
        drift = sum(low) + interaction * max(len(low) - 1, 0)
        return Outcome(10 * drift, drift, 1000 + sum(costs[part][1] for part in kept), {})

    return evaluate, asked


def paths(names: str) -> dict[str, Path]:
    return {name: Path(frozenset({f"w.{name}"}), frozenset({f"c.{name}"})) for name in names}


COSTS = {"w.a": (0.5, 100), "c.a": (0.1, 0), "w.b": (0.3, 10), "c.b": (0.0, 0), "w.c": (0.01, 400), "c.c": (0.2, 0)}


def test_each_path_is_measured_alone_and_spared():
    evaluate, _ = made_up(COSTS)
    found = search(evaluate, paths("abc"), 100.0)
    assert found.low.drift == pytest.approx(1.11) and found.high.drift == 0 and found.kept == ()
    by = {(one.path, one.kind): one for one in found.contributions}
    assert len(by) == 9
    for (path, kind), one in by.items():
        parts = {"both": "wc", "weights": "w", "codes": "c"}[kind]
        drift, size = (sum(COSTS[f"{part}.{path}"][k] for part in parts) for k in (0, 1))
        assert one.alone.drift == pytest.approx(drift) and one.bought == pytest.approx(drift)
        assert one.bytes == size
    assert [one.bought for one in found.contributions] == sorted((one.bought for one in by.values()), reverse=True)


@pytest.mark.parametrize(
    "budget, kept",
    [
        (12.0, ()),  # nothing is needed
        (8.2, ("b",)),  # most drift per byte
        (5.9, ("a",)),  # b is taken first, a makes it superfluous
        (2.2, ("b", "a")),
        (0.0, ("b", "a", "c")),
    ],
)
def test_what_buys_most_per_byte_is_kept_and_no_more_than_the_budget_asks(budget, kept):
    evaluate, _ = made_up(COSTS)
    found = search(evaluate, paths("abc"), budget, kinds=("both",))
    assert found.kept == kept
    assert found.chosen.error <= budget + 1e-9
    assert found.chosen.bytes == 1000 + sum(COSTS[f"{part}.{name}"][1] for name in kept for part in "wc")


@pytest.mark.parametrize("seed", range(30))
def test_the_proposal_is_within_the_budget_none_of_it_is_superfluous_and_nothing_is_asked_twice(seed):
    rng = np.random.default_rng(seed)
    costs = {f"{part}.{name}": (float(rng.gamma(0.5)), int(rng.integers(0, 300))) for name in "abcdef" for part in "wc"}
    evaluate, asked = made_up(costs, rng.choice([0.0, 0.05]))
    budget = float(rng.uniform(0, 20))
    found = search(evaluate, paths("abcdef"), budget, kinds=("both",))
    assert len(asked) == len(set(asked)) == found.evaluations
    assert found.chosen.error <= budget
    for name in found.kept:
        fewer = frozenset(f"{part}.{one}" for one in found.kept if one != name for part in "wc")
        assert evaluate(fewer).error > budget


def test_the_proposal_is_nearly_the_cheapest_of_all():
    """Against every subset, where drifts add up."""
    ratios = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        costs = {f"{part}.{n}": (float(rng.gamma(0.5)), int(rng.integers(1, 300))) for n in "abcdef" for part in "wc"}
        evaluate, _ = made_up(costs)
        budget = 0.3 * evaluate(frozenset()).error
        found = search(evaluate, paths("abcdef"), budget, kinds=("both",))
        subsets = itertools.chain.from_iterable(itertools.combinations("abcdef", k) for k in range(7))
        every = (evaluate(frozenset(f"{part}.{n}" for n in names for part in "wc")) for names in subsets)
        cheapest = min(one.bytes for one in every if one.error <= budget)
        ratios.append((found.chosen.bytes - 1000) / (cheapest - 1000))
    assert min(ratios) >= 1 and np.mean(ratios) < 1.15


def test_a_killed_search_goes_on_and_asks_for_nothing_twice(tmp_path):
    whole, asked = made_up(COSTS, 0.05)
    exact, log = search(whole, paths("abc"), 2.2), tmp_path / "log"
    total = len(asked)
    evaluate, asked = made_up(COSTS, 0.05)

    def dies(kept):
        if len(asked) == 7:
            raise KeyboardInterrupt
        return evaluate(kept)

    with pytest.raises(KeyboardInterrupt):
        search(dies, paths("abc"), 2.2, log=log, key="one")
    with log.open("a") as file:
        file.write('{"key": "one", "ke')  # killed while it wrote
    assert search(evaluate, paths("abc"), 2.2, log=log, key="one") == exact
    assert len(asked) == total == exact.evaluations
    search(evaluate, paths("abc"), 2.2, log=log, key="another")  # other data: all is asked again
    assert len(asked) == 2 * total


def test_errors_of_the_search():
    evaluate, _ = made_up(COSTS)
    with pytest.raises(RindleError, match="no path to measure"):
        search(evaluate, {}, 1.0)
    with pytest.raises(RindleError, match="the budget is -1"):
        search(evaluate, paths("a"), -1)
    with pytest.raises(RindleError, match="kinds is"):
        search(evaluate, paths("a"), 1, kinds=("weights",))


# ------------------------------------------------------------------------------------------------- real models


def net(name="lstm"):
    torch.manual_seed(0)
    return TorchModel(name, "last").eval()


SCHEME = {"*": "fixed16 max(1.25)", "weight.*": "int4 mmse", "code.*": "int6 mmse median"}


@pytest.mark.fast(1)
@pytest.mark.parametrize("scheme", [SCHEME, "rezk-m1"])
def test_a_variant_is_what_quantize_makes_with_the_overrides(scheme):
    """Weights, codes, or both at 16 bits; asked again, after others."""
    make = Variants(calibrated(net(), scheme, sequences()))
    parts = [
        frozenset(),
        frozenset({"rnn.l0/weight.g.h"}),
        frozenset({"rnn.l0/weight.g.h", "rnn.l0/code.g.h", "last/weight.y.x"}),
        frozenset({"rnn.l1/code.i.x"}),
        frozenset(),
    ]
    ids = []
    for kept in parts:
        wanted = rindle.quantize(net(), scheme, sequences(), overrides_of(kept))
        ids.append(make(overrides_of(kept)).id)
        assert ids[-1] == wanted.id
    assert len(set(ids)) == 4


def test_paths_are_the_products_of_less_than_16_bits():
    graph, rules = (lambda plan: (plan.graph, plan.rules))(calibrated(net("gru"), "rezk-m2 skip=all", sequences()).plan)
    found = paths_of(graph, rules)
    assert set(found) == {
        *(f"rnn.l{k}/{product}" for k in (0, 1) for product in ("r.x", "z.x", "nx.x", "r.h", "z.h")),
        "last/y.x",
    }
    assert found["rnn.l1/z.h"] == Path(frozenset({"rnn.l1/weight.z.h"}), frozenset({"rnn.l1/code.z.h"}))
    by_cell = paths_of(graph, rules, "cell")
    assert by_cell["gru z.h"].weights == {"rnn.l0/weight.z.h", "rnn.l1/weight.z.h"}


def test_both_directions_are_one_path():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.GRU(FEATURES, HIDDEN, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.rnn(x)[0]

    plan = calibrated(Both().eval(), "int8", sequences()).plan
    assert paths_of(plan.graph, plan.rules)["rnn.l0/r.h"].weights == {
        "rnn.l0/weight.r.h",
        "rnn.l0_reverse/weight.r.h",
    }


def labelled(model, rows=24):
    x = sequences(rows, 15, seed=5)
    with torch.no_grad():
        return dataset(x, None, model(torch.from_numpy(x)).argmax(1).numpy())


@pytest.mark.fast(0)
@pytest.mark.filterwarnings("ignore::rindle.RindleWarning")  # 2 bits beside 12 want other steps, numerics (8c)
def test_the_path_that_was_broken_is_found_and_proposed():
    """One product has 2 bits where all others have 12: it must hurt most, and be kept."""
    scheme = {"*": "fixed16 max(1.25)", "weight.*": "int12 max", "code.*": "int12 max"}
    model = net()
    with torch.no_grad():
        model.rnn.weight_hh_l1.mul_(4)
    first = calibrated(model, scheme, sequences(), {"rnn.l1/weight.g.h": "int2 max", "rnn.l1/code.g.h": "int8 max"})
    paths = paths_of(first.plan.graph, first.plan.rules)
    found = measure(Variants(first), paths, labelled(model), 0.05)
    whole = found.of_kind("both")
    assert whole[0].path == "rnn.l1/g.h" and whole[0].bought > 5 * whole[1].bought
    assert max(whole, key=lambda one: one.alone.drift).path == "rnn.l1/g.h"
    assert found.kept[0] == "rnn.l1/g.h"
    assert found.chosen.error <= 0.05 < found.low.error and found.high.error == 0
    made = rindle.quantize(model, scheme, sequences(), kept_rules(found, paths) | {})
    assert len(Variants(first)(kept_rules(found, paths)).data) == found.chosen.bytes
    assert made.artifact.graph.node("rnn.l1").layer.formats["h.code.g"].bits == 16


# --------------------------------------------------------------------------------------------------- the verb


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(console, "width", 200)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rindle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


FACTORY = """
import torch
from support import TorchModel

def net():
    torch.manual_seed(0)
    return TorchModel("lstm", "last").eval()
"""


@pytest.fixture
def command(call, tmp_path, request):
    name = f"nets_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    data = labelled(net())
    data.save(tmp_path / "v.npz")
    np.save(tmp_path / "c.npy", sequences())
    yield lambda *more: call("sensitivity", f"{name}:net", "--data", "v.npz", "--calibration", "c.npy", *more)
    sys.modules.pop(name, None)


@pytest.mark.fast(0)
@pytest.mark.filterwarnings("ignore::rindle.RindleWarning")  # 2 by 2 bits beside 16 by 16
def test_the_verb_writes_overrides_that_quantize_takes(command, call, tmp_path):
    arguments = "--scheme", "rezk-m5", "--budget", "1", "--by", "cell"
    code, out, err = command(*arguments, "-o", "o.toml", "--plot", "p.svg", "--parts", "--json")
    assert code == 0, err
    found = json.loads(out)
    rules = tomllib.loads((tmp_path / "o.toml").read_text())
    assert rules == found["overrides"] and found["kept"]
    made = rindle.quantize(net(), "rezk-m5", sequences(), tmp_path / "o.toml")
    # the file of the proposal, but for what the provenance says of it
    assert made.artifact.graph.node("rnn.l0").layer.program.cell == "lstm"
    assert abs(len(made.data) - found["chosen"]["bytes"]) < 64
    assert found["chosen"]["error"] <= 1 < found["low"]["error"]
    assert {one["kind"] for one in found["contributions"]} == {"both", "weights", "codes"}
    svg = (tmp_path / "p.svg").read_text()
    assert svg.startswith("<svg") and found["contributions"][0]["path"] in svg
    kept = (tmp_path / "o.toml.paths.jsonl").read_text()
    assert len(kept.splitlines()) == found["evaluations"]
    code, out, err = command(*arguments, "-o", "o.toml")
    assert code == 2 and "o.toml exists" in err
    code, out, err = command(*arguments, "-o", "o.toml", "--parts", "--force", "--json")
    assert code == 0 and json.loads(out) == found and (tmp_path / "o.toml.paths.jsonl").read_text() == kept
    code, out, err = command(*arguments, "-o", "o.json", "--plot", "p.html")
    assert code == 0 and "proposal, budget 1" in out and found["kept"][0] in out
    assert json.loads((tmp_path / "o.json").read_text()) == rules
    assert "<html" in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize(
    "more, words",
    [
        (("--budget", "1", "--by", "gate"), "--by is 'gate'; there are layer, cell"),
        (("--budget", "1", "-o", "o.yaml"), "ends in .yaml; give a name that ends in .toml, .json"),
        (("--budget", "1", "--plot", "o.pdf"), "ends in .svg, .png, .html"),
        (("--budget", "-1"), "the budget is -1.0; it must be 0 or more"),
        (("--budget", "1", "--scheme", "fixed16"), "the scheme leaves every product at 16 bits"),
    ],
)
def test_what_the_verb_refuses(command, tmp_path, more, words):
    code, out, err = command(*more)
    assert code == 2 and words in err and not out
    assert not list(tmp_path.glob("o.*"))


def test_toml_holds_any_name():
    rules = {"rnn.l0/weight.g.h": "fixed16 max(4)", 'odd "name"\\/x': "int8 max"}
    assert tomllib.loads(toml(rules)) == rules
