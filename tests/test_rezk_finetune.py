"""experiments/rezk-2022/finetune.py: what counts as equal error, what the training does, and that all of it runs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
for name in ("lightning_fabric", "rapidfuzz"):
    pytest.importorskip(name, reason=f"the extra `tasks` is not installed: there is no {name}")
sys.path[:0] = [str(ROOT), str(ROOT / "experiments/rezk-2022")]

import finetune  # noqa: E402
import models  # noqa: E402

from rindle.search.thresholds import Evaluation, Point  # noqa: E402

pytestmark = pytest.mark.fast(0)  # experiments


def points(*pairs: tuple[float, float]) -> list[Point]:
    """Of (accuracy, eliminated). Their own errors, which are counted from elsewhere, do not matter."""
    return [Point({"l/h": k}, Evaluation(7.0, 0.0, share, {"value": value})) for k, (value, share) in enumerate(pairs)]


def test_errors_count_from_the_accuracy_that_is_given_and_fronts_are_read_between_their_points():
    found = points((0.70, 0.2), (0.69, 0.5), (0.695, 0.1), (0.68, 0.4), (0.67, 0.9))
    front = finetune.rebased(found, 0.70)
    assert [point.thetas["l/h"] for *_, point in front] == [0, 1, 4]  # 2 and 3 are beaten
    np.testing.assert_allclose([pair[:2] for pair in front], [(0, 0.2), (1, 0.5), (3, 0.9)], atol=1e-9)
    assert finetune.at(front, 0.5) == pytest.approx(0.35) and finetune.at(front, 2.0) == pytest.approx(0.7)
    assert finetune.at(front, 9.0) == 0.9  # no more than the best that was found
    assert finetune.within(front, 2.9).thetas == {"l/h": 1}
    # a model that is half a point better than the baseline has half a point more to spend
    better = finetune.rebased(found, 0.695)
    assert finetune.at(better, 0.5) == pytest.approx(0.5) and finetune.at(better, -0.5) == pytest.approx(0.2)
    worse = finetune.rebased(found, 0.71)
    assert finetune.at(worse, 0.5) is None and finetune.within(worse, 0.5) is None
    assert finetune.at(worse, 1.0) == pytest.approx(0.2)


def movement(network, task, settings) -> float:
    """Σ|Δ| of what is held, of a model's own quantized form."""
    prepared = finetune.rindle.prepare(network, "int8", finetune.calibration(task, settings))
    finetune.rindle.nn.hold(prepared, {"layers.1.l0/x": 2, "layers.1.l0_reverse/h": 2})
    prepared(finetune.draw(task, np.random.default_rng(9), settings)[0])
    return float(finetune.rindle.nn.activity(prepared).penalty.detach())


def test_the_penalty_trains_inputs_that_move_less_and_the_same_call_gives_the_same():
    task, settings = finetune.stand_in(), finetune.Settings(20, 4, 12, 1e-2, calibration=2)
    network = models.deploy(finetune.tiny("gru", "small"))
    thetas, moved, states = {"layers.1.l0/x": 2, "layers.1.l0_reverse/h": 2}, {}, {}
    for beta in (0.0, 2.0):
        states[beta] = finetune.tune(network, task, thetas, beta, settings, lambda line: None)
        assert set(states[beta]) == set(network.state_dict())
        other = models.deploy(finetune.tiny("gru", "small"))
        other.load_state_dict(states[beta])
        moved[beta] = movement(other, task, settings)
    assert moved[2.0] < 0.8 * moved[0.0]
    again = finetune.tune(network, task, thetas, 2.0, settings, lambda line: None)
    assert all(torch.equal(value, states[2.0][name]) for name, value in again.items())


def test_tuned_weights_are_kept_until_they_are_about_something_else(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"weight": torch.full((2, 2), 1 / 3)}

    for about, calls in (({"steps": 1}, 1), ({"steps": 1}, 1), ({"steps": 2}, 2)):
        state = finetune.kept(tmp_path / "one.safetensors", about, make)
        assert len(made) == calls and torch.equal(state["weight"], torch.full((2, 2), 1 / 3).half())


def test_the_quick_comparison_of_sru_runs(tmp_path, capsys):
    path = tmp_path / "found.json"
    found = finetune.main(["--quick", "small-sru", "--betas", "0.5", "--output", str(path)])
    assert json.loads(path.read_text())["models"] == json.loads(json.dumps(found))
    forms = found["small-sru"]["forms"]
    assert list(forms) == ["untuned", "plain", "held", "held, β = 0.5"]
    assert forms["untuned"]["dense, points below untuned"] == 0
    assert forms["untuned"]["test dense"]["increase over untuned dense"] == [0, 0, 0]
    assert set(found["small-sru"]["held"]) == {f"layers.{k}.l0{way}/x" for k in (0,) for way in ("", "_reverse")} | {
        f"layers.1.rnn.l0{way}/x" for way in ("", "_reverse")
    }
    for row in forms.values():
        assert row["chosen"] is None or 0 < row["chosen"]["test"]["eliminated"] <= 1
        shares = [share for share in row["eliminated at"].values() if share is not None]
        assert shares == sorted(shares)
    assert "| small-sru | held, β = 0.5 |" in capsys.readouterr().out
