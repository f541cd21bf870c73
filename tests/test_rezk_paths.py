"""experiments/rezk-2022/paths.py and mohaq.py: which paths are the named ones, what is tested, what a budget chooses."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
for name in ("lightning_fabric", "rapidfuzz", "altair", "vl_convert"):
    pytest.importorskip(name, reason=f"the extras `tasks` and `report` are not installed: there is no {name}")
sys.path[:0] = [str(ROOT), str(ROOT / "experiments/rezk-2022")]

import mohaq  # noqa: E402
import paths  # noqa: E402

pytestmark = pytest.mark.fast(1)  # experiments

NAMED = {"lstm": "lstm g.h", "gru": "gru_reset_before n.rh", "ligru": "ligru a.h"}


@pytest.mark.fast(0)
@pytest.mark.filterwarnings("ignore::rindle.RindleWarning")  # 2 by 8 bits beside 16 by 16
def test_the_named_paths_are_the_papers_and_sparing_one_costs_its_bytes(tmp_path, capsys):
    found = paths.main(["--quick", "--output", str(tmp_path)])
    assert {kind: [row["path"] for row in one["paths"] if row["named"]] for kind, one in found.items()} == {
        **{kind: [path] for kind, path in NAMED.items()},
        "sru": [],
    }
    for kind, one in found.items():
        tested, measured = {row["kept"]: row for row in one["test"]}, {row["path"]: row for row in one["paths"]}
        assert len(measured) == len(one["paths"]) and all(row["alone"] >= 0 for row in one["paths"])
        whole = tested["nothing"]["bytes"]
        assert tested["nothing"]["paths"] == []
        for kept in {"the named path", "the best path here"} & set(tested):
            (path,) = tested[kept]["paths"]
            assert tested[kept]["bytes"] - whole == pytest.approx(
                measured[path]["bytes"], abs=64
            )  # the overrides' text
        assert ("the named path" in tested) == (kind != "sru")
    text = (tmp_path / "paths.md").read_text()
    assert text == paths.markdown(found) and text in capsys.readouterr().out
    assert (tmp_path / "paths.svg").read_text().count("named by the paper") >= 1


@pytest.mark.parametrize(
    "direction, points, number", [("minimize", 1, 2), ("minimize", 3, 3), ("maximize", 3, 1), ("minimize", 0.1, None)]
)
def test_a_budget_chooses_the_best_of_the_front_in_the_second_objective(direction, points, number):
    def record(number, error, value):
        return {"number": number, "values": {"error": error, "it": value}, "more": {"error": error}}

    found = {
        "float": {"value": 0.7},
        "objectives": [{"name": "error", "direction": "minimize"}, {"name": "it", "direction": direction}],
        "records": [record(0, 30.0, 1), record(1, 30.5, 9), record(2, 30.9, 6), record(3, 32.9, 5)],
        "front": [1, 2, 3],  # not 0, however good
    }
    best = mohaq.best_of(found, points)
    assert (best and best["number"]) == number
