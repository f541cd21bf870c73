"""Studies: each candidate evaluated once, whoever dies; what was interrupted ends where it would have ended."""

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from itertools import product
from pathlib import Path

import optuna
import pytest
from toy_search import Toy

from rindle import RindleError
from rindle.search.study import Record, Sampling, Study, hypervolume, pareto
from rindle.search.workers import Outcome

GOALS = {"error": "minimize", "bytes": "minimize"}
SPACE = {"w": (2, 3, 4, 8), "a": (2, 4, 8), "layer": ("one", "two")}


def whole(space=SPACE):
    return {json.dumps(dict(zip(space, one)), sort_keys=True) for one in product(*space.values())}


def study(folder, **how):
    return Study(folder / "study.db", "test", SPACE, GOALS, **how)


@pytest.mark.fast(1)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_grid_evaluates_every_candidate_once(tmp_path, workers):
    toy, one = Toy(tmp_path / "log"), study(tmp_path)
    numbers = []
    one.grid(toy, workers=workers, seen=lambda record, n: numbers.append(n))
    assert toy.evaluations == Counter(whole())
    assert sorted(numbers) == list(range(1, 25))
    records = study(tmp_path).records()
    assert {json.dumps(r.candidate, sort_keys=True) for r in records} == whole()
    refused = [r for r in records if r.refused]
    assert {r.candidate["w"] for r in refused} == {3} and len(refused) == 6
    assert refused[0].refused == "no kernel has 3 bits" and not refused[0].values
    for r in records:
        if not r.refused:
            assert r.values["bytes"] == r.candidate["w"] + r.candidate["a"]
            assert r.feasible == (r.values["error"] <= 0.4) == (r.constraints["error"] <= 0)
    study(tmp_path).grid(toy)
    assert sum(toy.evaluations.values()) == 24


def test_the_front_is_that_of_all_pairs(tmp_path):
    one = study(tmp_path)
    one.grid(Toy(tmp_path / "log"))
    feasible = [r for r in one.records() if r.feasible]
    beaten = [
        r
        for r in feasible
        if any(o.values != r.values and all(o.values[k] <= r.values[k] for k in GOALS) for o in feasible)
    ]
    assert {r.number for r in one.front()} == {r.number for r in feasible} - {r.number for r in beaten}
    assert len(one.front()) >= 3 and beaten
    assert any(not r.feasible and not r.refused for r in one.records())


@pytest.mark.fast(1)
@pytest.mark.parametrize("sampling", [Sampling(6, 4), Sampling(6, 4, mohaq=True)], ids=["default", "mohaq"])
def test_an_exploration_interrupted_anywhere_ends_where_it_would_have_ended(tmp_path, sampling):
    space = {f"b{k}": (2, 4, 8, 16) for k in range(3)}

    def evaluate(candidate):
        bits = list(candidate.values())
        return Outcome({"error": sum((k + 1) * 2.0**-b for k, b in enumerate(bits)), "bytes": sum(bits)})

    def make(name):
        return Study(tmp_path / f"{name}.db", "test", space, GOALS)

    first = [dict.fromkeys(space, 16)]
    make("whole").explore(evaluate, 18, sampling, seed=3, first=first)
    stops = [3, 11]

    def interrupt(record, number):
        if number in stops:
            stops.remove(number)
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            make("cut").explore(evaluate, 18, sampling, seed=3, first=first, seen=interrupt)
    make("cut").explore(evaluate, 18, sampling, seed=3, first=first)
    found = {name: [r.candidate for r in make(name).records()] for name in ("whole", "cut")}
    assert found["cut"] == found["whole"]
    assert len(found["whole"]) == 18 == len({tuple(c.values()) for c in found["whole"]})
    assert found["whole"][0] == first[0]


class InMemory(optuna.storages.InMemoryStorage):
    """For what a database would only make slow. One process, so no sign of life is asked for."""

    def record_heartbeat(self, trial_id):
        pass


@pytest.mark.fast(0)
def test_nsga2_finds_a_better_front_than_chance(monkeypatch):
    """Of 4^8 candidates 60: selection must be worth something, in hypervolume."""
    monkeypatch.setattr("rindle.search.study._open", lambda *_: InMemory())
    space = {f"b{k}": (2, 4, 8, 16) for k in range(8)}

    def evaluate(candidate):
        bits = list(candidate.values())
        return Outcome({"error": sum(2.0**k * 2.0**-b for k, b in enumerate(bits)), "bytes": sum(bits)})

    def volume(sampling, seed):
        one = Study("", "test", space, GOALS)
        one.explore(evaluate, 60, sampling, seed)
        attributes = one.backend.get_study_system_attrs(one.study._study_id)
        survivors = [len(ids) for name, ids in attributes.items() if ":parent:" in name]
        assert max(survivors, default=12) == 12 and (len(survivors) > 5 or sampling != "default")
        return hypervolume(one.front(), GOALS, {"error": 70, "bytes": 129})

    chance = sum(volume(Sampling(60, 60), seed) for seed in range(4))  # a first generation of all
    assert sum(volume("default", seed) for seed in range(4)) > 1.02 * chance


@pytest.mark.fast(0)
def test_what_a_worker_that_is_killed_was_doing_is_done_by_another(tmp_path):
    deadly = {"w": 4, "a": 4, "layer": "one"}
    toy = Toy(tmp_path / "log", 0.02, deadly, tmp_path / "mercy")
    one = study(tmp_path)
    one.grid(toy, workers=2)
    records = one.records()
    assert len(records) == 24 and not [r for r in records if r.refused and r.candidate["w"] != 3]
    counts = toy.evaluations
    name = json.dumps(deadly, sort_keys=True)
    assert counts[name] == 2
    # of the others only what ran beside it was evaluated again
    assert set(counts) == whole() and sum(counts.values()) <= 24 + 2


@pytest.mark.fast(0)
def test_a_candidate_that_kills_every_worker_is_set_aside(tmp_path):
    deadly = {"w": 4, "a": 4, "layer": "one"}
    one = study(tmp_path)
    one.grid(Toy(tmp_path / "log", 0.02, deadly), workers=2)
    refused = [r for r in one.records() if r.refused and r.candidate["w"] != 3]
    assert [r.candidate for r in refused] == [deadly] and "died" in refused[0].refused
    assert len(one.records()) == 24


ALONE = """
import sys
from pathlib import Path
from test_study import study
from toy_search import Toy
study(Path(sys.argv[1]), heartbeat=1, grace=3).grid(Toy(Path(sys.argv[1]) / "log", float(sys.argv[2])))
"""


def searcher(folder, seconds):
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", ALONE, str(folder), str(seconds)], env=os.environ | {"PYTHONPATH": path}
    )


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.mark.fast(0)
def test_two_processes_share_a_study_and_one_is_killed(tmp_path):
    """Each candidate is evaluated once but the one that died with its process, which is evaluated again."""
    toy = Toy(tmp_path / "log")
    study(tmp_path, heartbeat=1, grace=3)
    first = searcher(tmp_path, 0.3)
    until(lambda: len(toy.evaluations) >= 3)
    second = searcher(tmp_path, 0.3)
    until(lambda: len(toy.evaluations) >= 8)
    first.kill()
    first.wait()
    assert second.wait(120) == 0
    assert toy.evaluations.keys() == whole()
    assert sum(toy.evaluations.values()) <= 24 + 1
    records = study(tmp_path).records()
    assert len(records) == 24
    assert not [one for one in study(tmp_path).study.get_trials() if not one.state.is_finished()]


def test_a_study_of_something_else_is_refused(tmp_path):
    study(tmp_path, key={"model": "a"})
    with pytest.raises(RindleError, match=r"made of something else.*'model': 'a'.*'model': 'b'"):
        study(tmp_path, key={"model": "b"})
    with pytest.raises(RindleError, match="made of something else"):
        Study(tmp_path / "study.db", "test", SPACE | {"a": (2, 4)}, GOALS, {"model": "a"})


def test_faults_name_what_is_wrong(tmp_path):
    with pytest.raises(RindleError, match=r"storage .*nowhere.* cannot be opened"):
        Study(tmp_path / "nowhere" / "study.db", "test", SPACE, GOALS)
    with pytest.raises(RindleError, match="nothing to choose"):
        Study(tmp_path / "study.db", "test", {"w": ()}, GOALS)
    one = study(tmp_path)
    with pytest.raises(RindleError, match="unknown sampling 'nsga3'; there are default, mohaq"):
        one.explore(len, 3, "nsga3")
    with pytest.raises(RindleError, match="budget is 0"):
        one.explore(len, 0)
    with pytest.raises(RindleError, match="workers is 0"):
        one.grid(len, workers=0)
    with pytest.raises(RindleError, match="not in the space"):
        one.queue([{"w": 5, "a": 2, "layer": "one"}])


def test_what_else_goes_wrong_ends_the_search_and_leaves_the_candidate(tmp_path):
    def broken(candidate):
        raise ZeroDivisionError("a fault of the code")

    one = study(tmp_path)
    with pytest.raises(ZeroDivisionError):
        one.grid(broken)
    toy = Toy(tmp_path / "log")
    study(tmp_path).grid(toy)
    assert toy.evaluations == Counter(whole())


def test_a_value_that_is_no_number_is_refused(tmp_path):
    one = study(tmp_path)
    one.grid(lambda candidate: Outcome({"error": math.nan, "bytes": 1}))
    assert {r.refused for r in one.records()} == {"error is nan, not a number"}


def test_hypervolume_of_two_points_by_hand():
    goals = {"error": "minimize", "speed": "maximize"}
    records = [
        Record(k, {}, {"error": e, "speed": s}, {}, {}, 0.0) for k, (e, s) in enumerate([(1, 3), (2, 5), (2, 4)])
    ]
    # 4 x 3 and, above it, 3 x 2
    assert hypervolume(records, goals, {"error": 5, "speed": 0}) == 4 * 3 + 3 * 2
    assert [r.number for r in pareto(records, goals)] == [0, 1]
    assert hypervolume(records, goals, {"error": 1, "speed": 0}) == 0


@pytest.mark.fast(0)
def test_trials_are_tasks_of_a_local_ray(tmp_path, monkeypatch):
    if not os.environ.get("CI"):
        pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    space = {"w": (2, 4, 8), "a": (2, 4), "layer": ("one",)}
    deadly = {"w": 8, "a": 2, "layer": "one"}
    one = Study(tmp_path / "study.db", "test", space, GOALS)
    toy = Toy(tmp_path / "log", 0.0, deadly, tmp_path / "mercy")
    one.grid(toy, workers=2, ray="local")
    records = one.records()
    assert {json.dumps(r.candidate, sort_keys=True) for r in records} == whole(space)
    assert not any(r.refused for r in records)
    assert os.getpid() not in {r.more["pid"] for r in records}
    assert toy.evaluations == Counter(whole(space)) + Counter([json.dumps(deadly, sort_keys=True)])
