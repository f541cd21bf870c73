"""The sweep and the search on small models: what is judged is what the overrides make, and what is left says so."""

import json
import pickle
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from support import BothDirections, TorchModel, sequences

import rindle
from rindle import RindleError, RindleWarning, cli
from rindle.file.dataset import dataset, load_data
from rindle.measure.evaluate import judge_of
from rindle.nn.quantize import calibrated
from rindle.nn.variants.candidates import Candidates, candidates_of
from rindle.search.objectives import MEASURES, Evaluation, Mixed, Region, Run, Swept, directions, thetas_of
from rindle.search.precision import space_of, uniform
from rindle.search.workers import Outcome

NETS = """
import torch
from support import TorchModel

def net():
    torch.manual_seed(0)
    return TorchModel("gru", "last").eval()

def retrain(overrides):
    with open("retrained.txt", "a") as file:
        file.write(repr(sorted(overrides)) + chr(10))
    return {name: 0.99 * values for name, values in net().state_dict().items()}
"""
SCHEMES = [
    ("int8", {}),
    ("w4a8", {}),
    ("fixed8", {}),
    (
        {"*": "fixed16 max(1.25)", "weight.*": "int3 mmse", "code.*": "int5 mmse"},
        {"rnn.l0/code.*.h": "fixed16 max(1.25)"},
    ),
]


def net():
    torch.manual_seed(0)
    return TorchModel("gru", "last").eval()


@pytest.fixture(scope="module")
def first():
    return calibrated(net(), "int8", sequences())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model and data: labels are the float model's own, for all but some rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "studied", raising=False)
    (tmp_path / "studied.py").write_text(NETS)
    for name, seed in (("calibration", 1), ("validation", 2)):
        x = sequences(24, 12, seed)
        with torch.no_grad():
            labels = net()(torch.from_numpy(x)).argmax(1).numpy()
        labels[:2] = (labels[:2] + 1) % 3
        dataset(x, None, labels).save(tmp_path / f"{name}.npz")
    return tmp_path


@pytest.fixture
def call(folder, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rindle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


COMMON = ("studied:net", "--calibration", "calibration.npz", "--data", "validation.npz")


@pytest.mark.fast(2)
@pytest.mark.parametrize("scheme, overrides", SCHEMES)
def test_a_plan_from_what_was_seen_is_that_of_calibrating_anew(first, scheme, overrides):
    anew = rindle.quantize(net(), scheme, sequences(), overrides)
    made = Candidates(first, None)(scheme, overrides)
    assert made.data == anew.data
    assert first.model().data == rindle.quantize(net(), "int8", sequences()).data  # nothing of the first is changed


def test_a_scheme_that_does_not_fit_is_refused(first):
    with pytest.raises(RindleError, match=r"no path fits 'weight\.q\.h'"):
        Candidates(first, None)("int8", {"weight.q.h": "int4 max"})


def record_tables(record):
    return {rule for path, rule in record["overrides"].items() if path.startswith("table.")}


def test_a_sweep_leaves_what_makes_its_candidates_again(call, folder):
    asked = (*COMMON, "-o", "out", "--weight-bits", "2,8", "--activation-bits", "3,8", "--family", "fixed")
    asked += ("--table-size", "16,128")
    code, out, err = call("sweep", *asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert json.loads((folder / "out/sweep.json").read_text())["records"] == found["records"]
    records = {one["number"]: one for one in found["records"]}
    assert len(records) == 8 and found["front"] and set(found["front"]) <= set(records)
    validation = load_data("validation.npz")
    assert found["float"] == {"metric": "accuracy", "value": pytest.approx(22 / 24)}
    for one in records.values():
        bits = one["candidate"]
        scheme = one["scheme"]
        assert record_tables(one) == {f"linear {bits['table']}"}
        assert scheme["weight.*"].startswith(f"{bits['family']}{bits['weights']} ")
        assert scheme["code.*"].startswith(f"{bits['family']}{bits['activations']} ")
    for number in found["front"]:
        rules = json.loads((folder / f"out/front/{number}.json").read_text())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RindleWarning)
            made = rindle.quantize(net(), "int8", load_data("calibration.npz"), rules)
        more = records[number]["more"]
        assert made.id == more["id"]
        wrong = 100 * float((made.run(validation.x).argmax(1) != validation.y).mean())
        assert records[number]["values"]["error"] == more["error"] == pytest.approx(wrong)
    page = (folder / "out/sweep.html").read_text()
    for name in ("heat-0", "heat-1", "front-0"):
        assert f'<figure id="{name}">' in page
        assert (folder / f"out/{name}.svg").read_text().startswith("<svg")
    again = call("sweep", *asked)
    assert again[0] == 0 and "8 candidates are known already" in again[2]
    assert json.loads((folder / "out/sweep.json").read_text())["records"] == found["records"]
    code, _, err = call("sweep", *COMMON, "-o", "out", "--weight-bits", "2,4", "--activation-bits", "3,8")
    assert code == 2 and "made of something else" in err


@pytest.mark.fast(0)
def test_a_search_with_limits_thresholds_and_beacons(call, folder):
    """Two processes of their own, as --workers makes them; the region is everywhere, so all but near neighbours are retrained."""
    code, out, err = call(
        *(
            "search",
            *COMMON,
            "-o",
            "out",
            "--budget",
            "6",
            "--weight-bits",
            "2,8",
            "--activation-bits",
            "4,8",
            "--grain",
            "layer",
        ),
        *(
            "--theta",
            "0,0.25",
            "--objective",
            "error",
            "--objective",
            "operations",
            "--limit",
            "error=40",
            "--workers",
            "2",
        ),
        *("--retrain", "studied:retrain", "--region", "-1,101", "--json"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert len(found["records"]) == 6
    assert [one["candidate"]["first/weight.*"] for one in found["records"][:2]] == [8, 2]
    lit = sorted((folder / "out/beacons").glob("beacon-*.safetensors"))
    trained = (folder / "retrained.txt").read_text().splitlines()
    assert len(trained) >= len(lit) >= 1
    for one in found["records"]:
        assert one["more"]["beacon"] in {path.name for path in lit}
        assert one["values"]["error"] == min(one["more"]["after training"], one["more"]["with beacon"])
        assert one["feasible"] == (one["more"]["error"] <= 40)
        assert set(one["thresholds"].values()) <= {0, 0.25}
    held = {one["values"]["operations"] for one in found["records"] if 0.25 in one["thresholds"].values()}
    free = {one["values"]["operations"] for one in found["records"][:2]}
    assert held and min(held) < max(free) <= 1


def test_candidates_go_into_other_processes(folder):
    made = candidates_of("studied:net", None, load_data("calibration.npz"))
    there = pickle.loads(pickle.dumps(Mixed(made)))
    candidate = uniform(space_of({"rnn.l0": ["weight.r.x"]}))[1]
    assert there(candidate).data == Mixed(made)(candidate).data


def test_a_model_without_a_stream_is_timed_on_its_longest_row():
    """And the time is that of a frame, not of the row."""
    model = rindle.quantize(BothDirections(), "int8", sequences())
    x = np.tile(sequences(), (1, 8, 1))
    lengths = np.full(len(x), x.shape[1], np.int32)
    lengths[1:] = 3
    data = dataset(x, lengths, None)
    found = MEASURES["time"].value(Run(model, None, None, data))
    calls = []

    class Counted:
        artifact = model.artifact

        def run(self, row):
            calls.append(len(row))
            return model.run(row)

    assert MEASURES["time"].value(Run(Counted(), None, None, data)) < 5 * found
    assert set(calls) == {x.shape[1]}
    start = time.perf_counter()
    for _ in range(20):
        model.run(x[0])
    per_frame = (time.perf_counter() - start) / 20 / x.shape[1] * 1e6
    assert per_frame / 10 < found < per_frame * 10


def test_every_measure_against_the_model(folder):
    made = candidates_of("studied:net", None, load_data("calibration.npz"))
    data = load_data("validation.npz")
    judge = judge_of(data, made("int8").run(data.x))
    evaluate = Evaluation(Swept(made), data, judge, tuple(MEASURES), {"bytes": 1000.0, "silago speedup": 1.0})
    found = evaluate({"scheme": "int8"})
    model = rindle.quantize(net(), "int8", load_data("calibration.npz"))
    assert found.values["bytes"] == len(model.data)
    assert found.values["error"] == pytest.approx(100 * float((model.run(data.x).argmax(1) != data.y).mean()))
    assert found.values["operations"] == 1 and found.values["time"] > 0
    assert 1 < found.values["silago speedup"] < 2 < found.values["bitfusion speedup"] < 4
    assert found.constraints["bytes"] == pytest.approx(len(model.data) / 1000 - 1)
    assert found.constraints["silago speedup"] == pytest.approx(1 - found.values["silago speedup"])
    assert directions(("error", "silago speedup")) == {"error": "minimize", "silago speedup": "maximize"}
    with pytest.raises(RindleError, match="unknown objective 'speed'; there are error, bytes"):
        directions(("speed",))


def test_shares_are_thresholds_of_every_code_of_a_source():
    overrides = {"rnn.l0/code.r.h": "int4 mmse", "rnn.l1/code.*.x": "fixed16 max(1.25)"}
    model = rindle.quantize(net(), "int8", sequences(), overrides)
    found = thetas_of(model.artifact, {"rnn.l0/h": 0.125, "rnn.l1/x": 0.25, "rnn.l1/h": 0.0})
    by_source = sorted(theta for name, theta in found.items() if name.startswith("rnn.l0/"))
    assert by_source == [1, 16]  # 1/8 of 8 and of 128 codes
    assert found["rnn.l1/x"] == 2**15 // 4 and found["rnn.l1/h"] == 0 and len(found) == 4
    assert np.all([model.with_thresholds(found).thresholds[name] == theta for name, theta in found.items()])


def test_a_beacons_region():
    region = Region(19, 30)

    def outcome(error, constraints=None):
        return Outcome({"error": error}, constraints or {}, {"error": error})

    assert region(outcome(20.0)) and region(outcome(20.0, {"error": 0.5, "bytes": -0.1}))
    assert not region(outcome(19.0)) and not region(outcome(31.0)) and not region(outcome(20.0, {"bytes": 0.1}))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("sweep", *COMMON, "-o", "out", "--weight-bits", "two"), "--weight-bits is 'two'"),
        (("sweep", *COMMON, "-o", "out", "--objective", "speed"), "unknown objective 'speed'"),
        (("search", *COMMON, "-o", "out", "--budget", "3", "--limit", "bytes"), "the limit 'bytes' cannot be read"),
        (("search", *COMMON, "-o", "out", "--budget", "3", "--region", "1,2"), "give --retrain with it"),
        (("search", *COMMON, "-o", "out", "--budget", "3", "--retrain", "a:b", "--region", "1"), "--region is '1'"),
    ],
)
def test_faults_of_the_verbs(call, arguments, message):
    code, _, err = call(*arguments)
    assert code == 2 and message in err
