"""Thresholds under a budget: laws of the search on made-up landscapes, and on a model."""

import itertools
import json
import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import quantized, sequences

import rindle
from rindle import RindleError
from rindle.file.dataset import dataset
from rindle.measure.evaluate import score
from rindle.search.choose_thresholds import choose_thresholds, parse_threshold, set_thresholds
from rindle.search.thresholds import Evaluation, Point, ladder, pareto, search


def landscape(seed: int, inputs: int = 3, limit: int = 126, noise: float = 0.3):
    """A network in the large: each input has a plateau, a share of the operations and a slope of its error. Error is
    noisy, drift is not.
    """
    rng = np.random.default_rng(seed)
    names = [f"l{k}/h" for k in range(inputs)]
    share = rng.dirichlet(np.ones(inputs))
    knee, slope, power = rng.uniform(2, 40, inputs), rng.uniform(0.2, 4, inputs), rng.uniform(1, 2, inputs)
    calls = []

    def evaluate(thetas):
        calls.append(dict(thetas))
        theta = np.array([thetas[name] for name in names], float)
        eliminated = float(share @ (1 - np.exp(-((theta / knee) ** 2))))
        drift = float((slope * (theta / 30) ** power).sum())
        jitter = np.random.default_rng([seed, *map(int, theta)]).normal() * noise if theta.any() else 0.0
        return Evaluation(max(drift + jitter * drift**0.5, -1.0), drift, eliminated, {"theta": float(theta.sum())})

    return evaluate, dict.fromkeys(names, limit), calls


@given(st.integers(0, 10**6), st.floats(0, 8), st.floats(0, 8))
def test_the_budget_is_respected_and_a_finer_one_never_eliminates_more(seed, one, other):
    found = {}
    for budget in (one, other, 0.0, math.inf):
        evaluate, limits, calls = landscape(seed)
        found[budget] = search(evaluate, limits, budget)
        chosen = found[budget].chosen
        assert chosen.evaluation == evaluate(chosen.thetas) and chosen.evaluation.error <= budget
        best = max(p.evaluation.eliminated for p in found[budget].points if p.evaluation.error <= budget)
        assert chosen.evaluation.eliminated == best
        assert len(calls) - 1 == len(found[budget].points), "no candidate is evaluated twice"
    for a, b in itertools.pairwise(sorted(found)):
        assert found[a].chosen.evaluation.eliminated <= found[b].chosen.evaluation.eliminated
        assert set(map(key, found[a].points)) <= set(map(key, found[b].points))


def key(point: Point) -> str:
    return json.dumps(point.thetas, sort_keys=True)


@given(st.integers(0, 10**6))
def test_nothing_skipped_is_always_admissible_where_it_costs_nothing(seed):
    evaluate, limits, _ = landscape(seed)

    def dear(thetas):
        one = evaluate(thetas)
        return one if not any(thetas.values()) else Evaluation(100.0, one.drift, one.eliminated, {})

    found = search(dear, limits, 0.0)
    assert not any(found.chosen.thetas.values()) and found.walk[0] == found.chosen


def test_a_walk_rises_one_input_at_a_time_and_ends_beyond_the_budget():
    evaluate, limits, _ = landscape(3)
    found = search(evaluate, limits, 1.0)
    assert not any(found.walk[0].thetas.values())
    for a, b in itertools.pairwise(found.walk):
        raised = [name for name in limits if a.thetas[name] != b.thetas[name]]
        assert len(raised) == 1 and a.thetas[raised[0]] < b.thetas[raised[0]]
    assert all(point.evaluation.error > 1.0 for point in found.walk[-3:])
    assert not any(
        all(point.evaluation.error > 1.0 for point in found.walk[k : k + 3]) for k in range(len(found.walk) - 3)
    )


def test_without_a_limit_to_the_error_the_walk_ends_at_the_top():
    evaluate, limits, _ = landscape(0)
    assert search(evaluate, limits, math.inf).walk[-1].thetas == limits


def test_the_front_is_what_no_other_point_beats():
    evaluate, limits, _ = landscape(5)
    found = search(evaluate, limits, 2.0)

    def beaten(p, q):
        a, b = p.evaluation, q.evaluation
        return (b.error <= a.error and b.eliminated > a.eliminated) or (
            b.error < a.error and b.eliminated >= a.eliminated
        )

    wanted = {key(p) for p in found.points if not any(beaten(p, q) for q in found.points)}
    assert {key(p) for p in found.front} == wanted
    assert list(found.front) == sorted(found.front, key=lambda p: p.evaluation.error)
    assert key(found.chosen) in wanted


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 7, 20])
@pytest.mark.parametrize("torn", [b"", b'{"key": "k", "thetas": {"l0'])
def test_a_killed_search_goes_on_where_it_was(tmp_path, after, torn):
    log = tmp_path / "log.jsonl"
    evaluate, limits, _ = landscape(11)
    whole = search(evaluate, limits, 2.0, key="k")
    assert len(whole.points) > 20
    evaluate, limits, calls = landscape(11)

    def killed(thetas):
        if len(calls) == after:
            raise Killed
        return evaluate(thetas)

    with pytest.raises(Killed):
        search(killed, limits, 2.0, log=log, key="k")
    with log.open("ab") as file:
        file.write(torn)
    again = search(evaluate, limits, 2.0, log=log, key="k")
    assert again == whole
    assert len(calls) == len(whole.points), "what was evaluated before the kill is not evaluated again"
    third = search(lambda thetas: pytest.fail("evaluated again"), limits, 1.0, log=log, key="k")
    assert third.chosen.evaluation.error <= 1.0


def test_evaluations_of_another_model_are_left_alone(tmp_path):
    log = tmp_path / "log.jsonl"
    evaluate, limits, _ = landscape(1)
    search(evaluate, limits, 1.0, log=log, key="one")
    before = log.read_text()
    other, limits, calls = landscape(2)
    found = search(other, limits, 1.0, log=log, key="two")
    assert len(calls) == len(found.points) and found == search(other, limits, 1.0)
    assert log.read_text().startswith(before)


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"key": "k"}', '{"key": "k", "thetas": {}, "evaluation": {"x": 1}}']
)
def test_a_log_that_is_none_is_named(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(line + "\n")
    evaluate, limits, _ = landscape(1)
    with pytest.raises(RindleError, match=r"line 1 of .*log\.jsonl"):
        search(evaluate, limits, 1.0, log=tmp_path / "log.jsonl", key="k")


@pytest.mark.parametrize("limit", [1, 2, 7, 126, 32766])
@pytest.mark.parametrize("per_octave", [1, 2, 4])
def test_a_ladder_rises_from_0_to_its_limit(limit, per_octave):
    rungs = ladder(limit, per_octave)
    assert rungs[0] == 0 and rungs[-1] == limit and rungs[1] == 1
    assert all(a < b <= max(a + 1, math.ceil(a * (1 + 1 / per_octave))) for a, b in itertools.pairwise(rungs))


def test_a_search_without_inputs_or_with_a_bad_budget_is_refused():
    evaluate, limits, _ = landscape(1)
    with pytest.raises(RindleError, match="no recurrent layer"):
        search(evaluate, {}, 1.0)
    for budget in (-0.1, math.nan):
        with pytest.raises(RindleError, match="0 or more"):
            search(evaluate, limits, budget)
    with pytest.raises(RindleError, match="θ = 0"):
        search(lambda thetas: Evaluation(5.0, 0.0, 0.0, {}), limits, 1.0)


def test_the_front_is_near_the_true_one():
    """Within a budget, the greedy walk eliminates what the best of the whole grid does, less 1 point in the mean over
    landscapes and budgets, and less 7 at most.
    """
    gaps = []
    for seed in range(30):
        evaluate, limits, _ = landscape(seed, inputs=2, limit=64, noise=0.0)
        rungs = ladder(64)
        grid = [evaluate(dict(zip(limits, pair))) for pair in itertools.product(rungs, repeat=2)]
        for budget in (0.3, 1.0, 3.0):
            best = max(one.eliminated for one in grid if one.error <= budget)
            gaps.append(best - search(evaluate, limits, budget).chosen.evaluation.eliminated)
    assert min(gaps) >= 0, "nothing beats the whole grid"
    assert np.mean(gaps) < 0.01 and max(gaps) < 0.07, (np.mean(gaps), max(gaps))


# ------------------------------------------------------------------------------------------------------- on a model


@lru_cache(maxsize=1)
def validation():
    model = quantized("gru", "int8", "last")
    x = sequences(24, 15, seed=5)
    lengths = np.random.default_rng(0).integers(3, 16, 24)
    labels = model.run(x, lengths).argmax(1)
    labels[:5] = (labels[:5] + 1) % 3  # a model that is sometimes wrong
    return model, dataset(x, lengths, labels)


@lru_cache(maxsize=8)
def chosen(budget: float):
    model, data = validation()
    return choose_thresholds(model, data, budget, per_octave=1)


@pytest.mark.fast(1)
@pytest.mark.parametrize("budget", [0.0, 1.0, 8.0])
def test_a_model_keeps_the_budget_that_it_was_given(budget):
    model, data = validation()
    found = chosen(budget)
    dense, now = (score(one.run(data.x, data.lengths), data) for one in (model, found.model))
    mean, error = now.soft_lost(dense)
    assert now.lost(dense) <= budget and mean + error <= budget + 1e-9
    seen = found.model.measure(data.x, data.lengths)
    assert seen.eliminated() == found.found.chosen.evaluation.eliminated
    thetas = {name: value for name, value in found.model.thresholds.items() if value is not None}
    assert thetas == found.found.chosen.thetas and set(thetas) == {one.name for one in seen.inputs}
    assert not any(found.found.walk[0].thetas.values()) and found.found.walk[0].evaluation.error == 0.0


def test_the_error_of_a_candidate_has_the_statistical_limit_in_it():
    points = [point.evaluation for point in chosen(8.0).found.points]
    for one in points:
        assert one.error == max(one.more["lost"], one.more["soft_lost"] + one.more["soft_error"])
    assert any(one.error > one.more["lost"] for one in points), "a candidate that loses no answer, and is not free"


def test_a_larger_budget_eliminates_at_least_as_much_on_a_model():
    shares = [chosen(budget).found.chosen.evaluation.eliminated for budget in (0.0, 1.0, 8.0)]
    assert shares == sorted(shares) and shares[0] < shares[-1]


def test_the_file_carries_the_front_it_was_chosen_from(tmp_path):
    found = chosen(8.0)
    rindle.save(found.model, tmp_path / "m.rindle")
    story = rindle.load(tmp_path / "m.rindle").artifact.provenance["delta"]
    assert story["budget"] == 8.0 and story["metric"] == "accuracy" and story["data"]["rows"] == 24
    assert story["chosen"] in story["front"] and len(story["front"]) <= 14
    assert dict(zip(story["inputs"], story["chosen"][0])) == found.found.chosen.thetas
    assert "delta" not in set_thresholds(found.model, {}).artifact.provenance


def test_thresholds_that_are_there_already_do_not_matter():
    _, data = validation()
    again = choose_thresholds(chosen(8.0).model, data, 1.0, per_octave=1)
    assert again.found == chosen(1.0).found and again.model.id == chosen(1.0).model.id


def test_without_labels_the_dense_decisions_stand_for_them():
    model, data = validation()
    found = choose_thresholds(model, dataset(data.x, data.lengths), 5.0, per_octave=1)
    assert found.dense.metric == "agreement" and found.dense.value == 1.0
    same = found.model.run(data.x, data.lengths).argmax(1) == model.run(data.x, data.lengths).argmax(1)
    assert same.mean() >= 0.95


def test_a_budget_of_targets_is_relative_to_the_error_of_the_dense_model():
    model = quantized("gru", "int8")
    x = sequences(6, 12, seed=5)
    y = model.run(x) + np.random.default_rng(0).normal(size=(6, 12, 3)).astype(np.float32) * 0.05
    found = choose_thresholds(model, dataset(x, None, y), 10.0, per_octave=1)
    before, after = (np.square(one.run(x).astype(float) - y).mean() for one in (model, found.model))
    assert (
        after <= 1.1 * before and found.found.chosen.evaluation.eliminated > found.found.walk[0].evaluation.eliminated
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("rnn.l0/h=8", ("rnn.l0/h", 8)), ("a=b/x=0", ("a=b/x", 0)), ("rnn.l0/h=none", ("rnn.l0/h", None))],
)
def test_a_threshold_by_hand(text, wanted):
    assert parse_threshold(text) == wanted


@pytest.mark.parametrize("text", ["rnn.l0/h", "rnn.l0/h=", "rnn.l0/h=1.5", ""])
def test_a_threshold_that_cannot_be_read(text):
    with pytest.raises(RindleError, match="node/input=8"):
        parse_threshold(text)


def test_the_front_of_points():
    points = tuple(
        Point({"a": k}, Evaluation(e, 0.0, g, {})) for k, (e, g) in enumerate([(0, 0.1), (1, 0.1), (1, 0.5), (2, 0.4)])
    )
    assert [p.thetas["a"] for p in pareto(points)] == [0, 2]


def test_both_directions_of_a_layer_get_one_threshold_and_all_layers_count_by_the_published_formula():
    torch = pytest.importorskip("torch")
    from rindle.measure.rezk import executed_of

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = rindle.Recurrent(rindle.CELLS["lstm"], 5, 6, bidirectional=True, shared=True)
            self.output = torch.nn.Linear(12, 3)

        def forward(self, x):
            return self.output(self.rnn(x)[0])

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(6, 20, 5)).astype(np.float32).cumsum(1) / 4
    model = rindle.quantize(Tagger().eval(), "int8", [x.swapaxes(0, 1)])
    data = dataset(x, None, model.run(x).argmax(-1))
    found = choose_thresholds(model, data, 10.0, per_octave=1, formula="rezk", together=True)
    names = {"rnn.l0/x", "rnn.l0/h", "output/x"}
    assert all(set(point.thetas) == names for point in found.found.points)
    thetas = found.model.thresholds
    assert set(thetas) == names | {"rnn.l0_reverse/x", "rnn.l0_reverse/h"}
    assert thetas["rnn.l0/h"] == thetas["rnn.l0_reverse/h"] and thetas["rnn.l0/x"] == thetas["rnn.l0_reverse/x"]
    assert any(thetas.values()) and any(point.thetas["output/x"] for point in found.found.points)
    seen = found.model.measure(x)
    assert found.found.chosen.evaluation.eliminated == 1 - executed_of(found.model.artifact, seen, elementwise=True)
    with pytest.raises(RindleError, match="unknown formula 'rezek'"):
        choose_thresholds(model, data, 1.0, formula="rezek")


def detector(seed=0):
    """One output behind a sigmoid, as of a voice activity detector, and its decisions at a half."""
    torch.manual_seed(seed)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = torch.nn.LSTM(4, 8, batch_first=True), torch.nn.Linear(8, 1)

        def forward(self, x):
            return torch.sigmoid(self.fc(self.rnn(x)[0]))

    net, x = Net().eval(), torch.randn(12, 20, 4)
    with torch.no_grad():
        middle = net(x).median()
        net.fc.bias -= torch.log(middle / (1 - middle))
        y = (net(x)[..., 0] > 0.5).numpy().astype(np.int64)
    return rindle.quantize(net, "int8", x), x.numpy(), y


@pytest.mark.parametrize("labelled", [True, False])
def test_one_output_keeps_its_decisions(labelled):
    model, x, y = detector()
    before = ((model.run(x)[..., 0] > 0.5) == y).mean()
    found = choose_thresholds(model, dataset(x, None, y if labelled else None), 2.0, per_octave=1)
    after = found.model.run(x)[..., 0]
    assert found.found.chosen.evaluation.eliminated > 0.02, "something is skipped"
    assert before > 0.95 and ((after > 0.5) == y).mean() >= before - 0.04 and np.ptp(after) > 0
    if labelled:
        assert found.dense.value == before and found.judge.trivial.value == max(y.mean(), 1 - y.mean())
        assert found.model.artifact.provenance["delta"]["decision"] == "half"


def test_no_budget_buys_a_model_that_stands_still():
    model, x, y = detector()
    x, y = (
        x / 2,
        np.zeros_like(y),
    )  # no input changes by the largest θ: there the model runs in from its biases, and stays
    y[0, :3] = 1  # a rare event: to say never costs 1.25 points
    for data in (dataset(x, None, y), dataset(x)):
        found = choose_thresholds(model, data, 1e9, per_octave=1)
        output = found.model.run(x)
        assert np.ptp(output[:, 10:], axis=1).any() and np.ptp(output, axis=0).any() and 0 < (output > 0.5).mean() < 1
        refused = [point for point in found.found.points if point.evaluation.still]
        assert refused, "the walk went where outputs stand still"
        assert not set(map(id, refused)) & set(map(id, found.found.front))
