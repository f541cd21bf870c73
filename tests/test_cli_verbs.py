"""The verbs that make, thin out, evaluate and compare: what they write, what they say, and how they end."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
from support import FEATURES, TorchModel, quantized, sequences

import rindle
from rindle import cli
from rindle.cli.app import console
from rindle.file.dataset import dataset
from rindle.measure.analysis import analyse
from rindle.nn.capture.source import float_parameters, source_of
from rindle.nn.conversion.rounding import Rounding
from rindle.nn.quantize import calibrated

FACTORY = """
import torch, rindle
from support import TorchModel

def net():
    torch.manual_seed(0)
    return TorchModel("gru", "last").eval()

def takes(n): ...
def number(): return 7
class TimeFirst(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.GRU(5, 6)
    def forward(self, x):
        return self.rnn(x)[0]
def time_first():
    torch.manual_seed(0)
    return TimeFirst()
"""
LENGTHS = np.random.default_rng(1).integers(4, 16, 20)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs the command in a folder of its own; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["rindle.cli.app"].console, "width", 200)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(console, "width", 200)  # no cell of a table is broken

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rindle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def answers(call, *arguments, code=0):
    """The JSON that a verb prints, and that it prints nothing else."""
    found, out, err = call(*arguments, "--json")
    assert found == code, out + err
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.fixture
def model(tmp_path):
    made = quantized("gru", "int8", "last")
    rindle.save(made, tmp_path / "m.rindle")
    return made


@pytest.fixture
def data(tmp_path, model):
    x = sequences(20, 15, seed=5)
    labels = model.run(x, LENGTHS).argmax(1)
    labels[:3] = (labels[:3] + 1) % 3
    dataset(x, LENGTHS, labels).save(tmp_path / "d.npz")
    return dataset(x, LENGTHS, labels)


@pytest.fixture
def factory(tmp_path, request):
    """A module in the current directory, under a name that no other test has imported."""
    name = f"nets_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    yield name
    sys.modules.pop(name, None)


def exported(module, path, shape, dynamic=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export, about its own modules
        torch.export.save(torch.export.export(module, (torch.zeros(shape),), dynamic_shapes=dynamic), path)


# ---------------------------------------------------------------------------------------------------------- quantize


def test_quantize_a_factory_is_the_one_call(call, factory, tmp_path, data):
    found = answers(call, "quantize", f"{factory}:net", "-o", "q.rindle", "--calibration", "d.npz")
    torch.manual_seed(0)
    net = TorchModel("gru", "last").eval()
    made = rindle.load(tmp_path / "q.rindle")
    assert made.id == rindle.quantize(net, "int8", data).id == found["id"]
    with torch.no_grad():
        scores = np.stack([net(torch.from_numpy(x[None, :n]))[0].numpy() for x, n in zip(data.x, data.lengths)])
    assert found["float"]["value"] == (scores.argmax(1) == data.y).mean()
    assert found["quantized"]["value"] == (made.run(data.x, data.lengths).argmax(1) == data.y).mean()
    assert found["bytes"] == len(made.data) == (tmp_path / "q.rindle").stat().st_size
    assert made.artifact.provenance["model"]["class"] == "TorchModel"


def test_quantize_takes_weights_overrides_and_a_scheme(call, factory, tmp_path, data):
    torch.manual_seed(9)
    other = TorchModel("gru", "last").eval()
    from safetensors.torch import save_file

    save_file(other.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "o.toml").write_text('"rnn.l0/weight.nh.h" = "int4 mmse"\n')
    arguments = ["quantize", f"{factory}:net", "-o", "q.rindle", "--calibration", "d.npz", "--weights", "w.safetensors"]
    code, out, err = call(*arguments, "--scheme", "fixed16", "--overrides", "o.toml")
    assert code == 0, err
    wanted = rindle.quantize(other, "fixed16", data, {"rnn.l0/weight.nh.h": "int4 mmse"})
    assert rindle.load(tmp_path / "q.rindle").id == wanted.id
    assert "accuracy" in out and "float" in out and "fixed16" in out


@pytest.mark.fast(0)
def test_quantize_rounds_by_words_and_shows_the_error_along_the_sequence(call, factory, tmp_path, data):
    (tmp_path / "o.toml").write_text('"weight.*" = "int3 mmse learned"\n')
    arguments = ["quantize", f"{factory}:net", "--calibration", "d.npz", "--overrides", "o.toml", "--steps", "4"]
    found = answers(call, *arguments, "-o", "q.rindle", "--seed", "1")
    torch.manual_seed(0)
    net = TorchModel("gru", "last").eval()
    planned = calibrated(net, "int8", data, {"weight.*": "int3 mmse learned"}, rounding=Rounding(4, 1))
    made = planned.model()
    assert found["id"] == made.id and found["rounding"] == made.artifact.provenance["rounding"]
    assert found["rounding"]["rnn.l0"]["learned"]["seed"] == 1
    paths = {one["path"]: one for one in found["over_time"]["paths"]}
    assert list(paths) == ["rnn.l0/h.next", "rnn.l1/h.next", "last/y"]
    wanted = analyse(made.artifact, data, float_parameters(planned.plan.graph))
    for one in wanted.paths:
        if one.name in paths:
            assert paths[one.name]["sqnr"] == one.sqnr
            assert paths[one.name]["growth"] == (one.growth and list(one.growth))
    code, out, err = call(*arguments, "-o", "r.rindle")
    assert code == 0, err
    assert "SQNR in dB along the sequence" in out and "rnn.l1/h.next" in out and "100%" in out


@pytest.mark.fast(1)
@pytest.mark.parametrize(
    ("shape", "dynamic"), [((1, 6, FEATURES), None), ((3, 30, FEATURES), None), ((2, 6, FEATURES), ({0: "batch"},))]
)
def test_quantize_an_exported_file_is_quantizing_the_module(call, tmp_path, data, shape, dynamic):
    torch.manual_seed(0)
    net = TorchModel("lstm", "last").eval()
    dims = dynamic and ({0: torch.export.Dim("batch")},)
    exported(net, tmp_path / "net.pt2", shape, dims)
    found = answers(call, "quantize", "net.pt2", "-o", "q.rindle", "--calibration", "d.npz")
    assert found["id"] == rindle.quantize(net, "int8", data).id
    assert rindle.load(tmp_path / "q.rindle").artifact.provenance["model"]["class"] == "TorchModel"


def test_quantize_an_exported_sru(call, tmp_path, data):
    torch.manual_seed(0)
    net = TorchModel("sru", "last").eval()
    exported(net, tmp_path / "net.pt2", (1, 6, FEATURES))
    assert (
        answers(call, "quantize", "net.pt2", "-o", "q.rindle", "--calibration", "d.npz")["id"]
        == rindle.quantize(net, "int8", data).id
    )


def test_quantize_a_model_that_is_time_first(call, factory, tmp_path):
    x = sequences(6, 9)
    np.save(tmp_path / "x.npy", x)
    found = answers(call, "quantize", f"{factory}:time_first", "-o", "q.rindle", "--calibration", "x.npy")
    assert found["metric"] == "MSE to reference" and found["float"] is None, "a state is no score"
    assert found["quantized"]["NMSE dB"] < -20 and "relative to their variance" in found["judged"]
    net = sys.modules[factory].time_first()
    assert found["id"] == rindle.quantize(net, "int8", x.transpose(1, 0, 2)).id


def test_a_cell_of_ones_own_comes_as_a_factory_not_as_an_exported_file(call, tmp_path, data):
    @rindle.cell(states=("h",))
    def leaky(n, x, h):
        return n.tanh(n.affine("g", x, h))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = rindle.Recurrent(leaky, FEATURES, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0][:, -1]

    exported(Net().eval(), tmp_path / "net.pt2", (1, 6, FEATURES))
    code, _, err = call("quantize", "net.pt2", "-o", "q.rindle", "--calibration", "d.npz")
    assert code == 2 and "'leaky'" in err and "package.module:factory" in err


@pytest.mark.parametrize(
    ("model_text", "words"),
    [
        ("nets", "package.module:factory"),
        ("not_there:net", "no module 'not_there'"),
        ("{factory}:nothing", "has no 'nothing'"),
        ("{factory}:takes", "callable without arguments"),
        ("{factory}:number", "returns a int"),
        ("gone.pt2", "no such file"),
        ("d.npz.pt2", "torch.export.save"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_line(call, factory, tmp_path, data, model_text, words):
    (tmp_path / "d.npz.pt2").write_bytes((tmp_path / "d.npz").read_bytes())
    code, out, err = call("quantize", model_text.format(factory=factory), "-o", "q.rindle", "--calibration", "d.npz")
    assert code == 2 and words in err and "Traceback" not in err and not out
    assert not (tmp_path / "q.rindle").exists()


def test_quantize_overwrites_only_when_forced_and_a_failure_leaves_no_file(call, factory, tmp_path, data):
    (tmp_path / "q.rindle").write_bytes(b"precious")
    arguments = ["quantize", f"{factory}:net", "-o", "q.rindle", "--calibration", "d.npz"]
    code, _, err = call(*arguments)
    assert code == 2 and "--force" in err and (tmp_path / "q.rindle").read_bytes() == b"precious"
    wrong = dataset(data.x, data.lengths, np.full(20, 3))
    wrong.save(tmp_path / "d.npz")
    code, _, err = call(*arguments, "--force")
    assert code == 2 and "the label 3" in err and (tmp_path / "q.rindle").read_bytes() == b"precious"
    code, _, err = call("quantize", f"{factory}:net", "-o", "gone/q.rindle", "--calibration", "d.npz")
    assert code == 2 and "no folder" in err


def test_the_help_of_quantize_says_that_it_executes_code(call):
    code, out, _ = call("quantize", "--help")
    assert code == 0 and "EXECUTES CODE" in " ".join(out.split()) and "Example" in out


# ------------------------------------------------------------------------------------------------------------- delta


def test_delta_writes_what_it_chose(call, tmp_path, model, data):
    found = answers(call, "delta", "m.rindle", "--data", "d.npz", "--budget", "5", "-o", "s.rindle")
    made = rindle.load(tmp_path / "s.rindle")
    assert made.id == found["id"] != model.id
    assert {k: v for k, v in made.thresholds.items() if v is not None} == found["thresholds"]
    assert found["chosen"]["error"] <= 5 and found["chosen"] in found["front"]
    lines = (tmp_path / "s.rindle.search.jsonl").read_text().splitlines()
    assert len(lines) == found["evaluations"] and found["walk"][0]["eliminated"] > 0
    assert found["chosen"]["eliminated"] == made.measure(data.x, data.lengths).eliminated()
    again = answers(call, "delta", "m.rindle", "--data", "d.npz", "--budget", "5", "-o", "s.rindle", "--force")
    assert again == found, "from the evaluations that were kept"
    assert (tmp_path / "s.rindle.search.jsonl").read_text().splitlines() == lines


@pytest.mark.fast(0)
def test_delta_shows_the_front(call, tmp_path, model, data):
    code, out, err = call("delta", "m.rindle", "--data", "d.npz", "--budget", "5")
    assert code == 0 and (tmp_path / "m-delta.rindle").exists()
    assert "chosen" in out and "θ rnn.l0/h" in out and "accuracy" in out and "search.jsonl" in err


def test_delta_by_hand_and_back(call, tmp_path, model):
    found = answers(call, "delta", "m.rindle", "--theta", "rnn.l0/h=8", "--theta", "rnn.l1/x=3", "-o", "s.rindle")
    wanted = model.with_thresholds({"rnn.l0/h": 8, "rnn.l1/x": 3})
    assert found["id"] == wanted.id == rindle.load(tmp_path / "s.rindle").id
    found = answers(call, "delta", "s.rindle", "--clear", "-o", "c.rindle")
    assert found["id"] == model.id and set(found["thresholds"].values()) == {None}
    found = answers(call, "delta", "s.rindle", "--clear", "--theta", "rnn.l1/x=1", "-o", "c.rindle", "--force")
    assert found["id"] == model.with_thresholds({"rnn.l1/x": 1}).id


def test_delta_takes_and_shows_thresholds_in_units_of_the_value(call, tmp_path, model):
    wanted = model.with_thresholds({"rnn.l0/h": 0.05}, unit="value")
    given = ("delta", "m.rindle", "--theta", "rnn.l0/h=0.05", "--unit", "value", "--force")
    found = answers(call, *given)
    assert found["id"] == wanted.id and found["thresholds"] == wanted.thresholds
    assert found["values"] == wanted.threshold_values and 0.04 < found["values"]["rnn.l0/h"] <= 0.05
    code, out, _ = call(*given)
    assert code == 0 and f"{wanted.threshold_values['rnn.l0/h']:.4g}" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--data and --budget"),
        (["--data", "d.npz"], "--data and --budget"),
        (["--theta", "rnn.l0/h=8", "--budget", "1"], "one or the other"),
        (["--theta", "rnn.l0/q=8"], "did you mean 'rnn.l0/"),
        (["--theta", "rnn.l0/h=127"], "0..126"),
        (["--data", "d.npz", "--budget", "-1"], "0 or more"),
        (["--data", "gone.npz", "--budget", "1"], "gone.npz"),
        (["--theta", "rnn.l0/h=8", "-o", "m.rindle"], "--force"),
        (["--theta", "rnn.l0/h=0.5"], "write node/input=8"),
        (["--theta", "rnn.l0/h=half", "--unit", "value"], "write node/input=0.05"),
        (["--theta", "rnn.l0/h=2", "--unit", "value"], "must be below"),
        (["--clear", "--unit", "value"], "there is none"),
    ],
)
def test_delta_names_what_is_wrong_and_writes_nothing(call, tmp_path, model, data, options, words):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, out, err = call("delta", "m.rindle", *options)
    assert code == 2 and words in err and not out
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# -------------------------------------------------------------------------------------------------------------- eval


def test_eval_says_what_was_measured_in_every_engine(call, tmp_path, model, data):
    sparse = model.with_thresholds({"rnn.l0/h": 9, "rnn.l0/x": 2})
    rindle.save(sparse, tmp_path / "s.rindle")
    found = {
        e: answers(call, "eval", "m.rindle", "s.rindle", "--data", "d.npz", "--engine", e)["files"]
        for e in ("runtime", "reference", "simulation")
    }
    assert found["runtime"] == found["reference"] == found["simulation"]
    for one, made in zip(found["runtime"], (model, sparse)):
        seen = made.measure(data.x, data.lengths)
        assert one["value"] == (seen.output.argmax(1) == data.y).mean()
        assert one["eliminated"] == {
            "input": seen.eliminated(False),
            "hidden": seen.eliminated(True),
            "both": seen.eliminated(),
        }
        assert [i["density"] for i in one["inputs"]] == [i.density for i in seen.inputs]
    dense, thin = found["runtime"]
    assert dense["eliminated"]["both"] == 0 < dense["eliminated_at_theta_0"]["both"] < thin["eliminated"]["both"]
    assert dense["eliminated_at_theta_0"] == thin["eliminated_at_theta_0"]


def test_eval_of_targets_and_of_agreement(call, tmp_path, data):
    model = quantized("gru", "int8")
    rindle.save(model, tmp_path / "t.rindle")
    y = model.run(data.x, data.lengths) + 0.1
    dataset(data.x, data.lengths, y.astype(np.float32)).save(tmp_path / "t.npz")
    (found,) = answers(call, "eval", "t.rindle", "--data", "t.npz")["files"]
    assert found["metric"] == "MSE" and found["value"] == pytest.approx(0.01, rel=1e-3)
    np.save(tmp_path / "x.npy", data.x)
    code, _, err = call("eval", "t.rindle", "--data", "x.npy")
    assert code == 2 and "--reference" in err
    (found,) = answers(call, "eval", "t.rindle", "--data", "x.npy", "--reference", "t.rindle")["files"]
    assert (found["metric"], found["value"]) == ("agreement", 1.0)
    (found,) = answers(call, "eval", "t.rindle", "--data", "x.npy", "--reference", "t.rindle", "--task", "targets")[
        "files"
    ]
    assert found["value"] == 0.0 and found["NMSE dB"] is None, "minus infinity is null in JSON"


def test_eval_can_require_a_result(call, model, data):
    assert call("eval", "m.rindle", "--data", "d.npz", "--require", "85")[0] == 0
    assert call("eval", "m.rindle", "--data", "d.npz", "--require", "85.1")[0] == 1


def test_eval_shows_a_comparing_table(call, tmp_path, model, data):
    rindle.save(model.with_thresholds({"rnn.l0/h": 9}), tmp_path / "s.rindle")
    code, out, _ = call("eval", "m.rindle", "s.rindle", "--data", "d.npz")
    assert code == 0 and "85.00%" in out and "m.rindle" in out and "s.rindle" in out and "rnn.l1/x" in out


# ----------------------------------------------------------------------------------------------------------- inspect


def test_inspect_as_json(call, model):
    found = answers(call, "inspect", "m.rindle")
    assert found["id"] == model.id and sum(found["sizes"].values()) == found["bytes"] == len(model.data)
    assert {"path": "rnn.l0/h", "size": 17, "format": "fixed(16,15)", "made_by": "", "max_error": None} in found[
        "paths"
    ]


def test_inspect_finds_what_differs(call, tmp_path, model):
    rindle.save(model.with_thresholds({"rnn.l0/h": 9}), tmp_path / "s.rindle")
    found = answers(call, "inspect", "m.rindle", "--diff", "s.rindle", code=1)
    assert [(d["where"], d["what"], d["a"], d["b"]) for d in found["differences"]] == [
        ("rnn.l0/h.code", "θ", "dense", "9")
    ]
    assert not found["same_integers"]
    found = answers(call, "inspect", "m.rindle", "--diff", "m.rindle")
    assert found["same_integers"] and found["differences"] == []
    code, out, _ = call("inspect", "m.rindle", "--diff", "s.rindle")
    assert code == 1 and "rnn.l0/h.code" in out and "different integers" in out


def test_inspect_with_data_reports_noise(call, factory, model, data):
    own = answers(call, "inspect", "m.rindle", "--data", "d.npz")
    original = answers(call, "inspect", "m.rindle", "--data", "d.npz", "--model", f"{factory}:net", "--rows", "20")
    assert (own["weights"], original["weights"]) == ("dequantized", "original")
    (a,), (b,) = ([p for p in found["paths"] if (p["node"], p["path"]) == ("last", "y")] for found in (own, original))
    graph, _ = source_of(sys.modules[factory].net()).capture(data.x[:1])
    for found, given in ((a, None), (b, float_parameters(graph))):
        assert found["sqnr"] == analyse(model.artifact, data, given).paths[-1].sqnr
    assert a["sqnr"] != b["sqnr"] and a["format"].startswith("fixed(16,") and a["growth"] is None
    code, out, err = call("inspect", "m.rindle", "--data", "d.npz", "--rows", "3")
    assert code == 0 and "SQNR" in out and "rnn.l1/h.next" in out and "first 3 of 20" in err


@pytest.mark.parametrize("options", [["--diff", "m.rindle", "--data", "d.npz"], ["--rows", "3"], ["--model", "a:b"]])
def test_inspect_options_that_do_not_go_together(call, model, data, options):
    code, out, err = call("inspect", "m.rindle", *options)
    assert code == 2 and err.startswith("error: ") and not out


# --------------------------------------------------------------------------------------------------- run and verify


def test_run_and_verify_as_json(call, tmp_path, model):
    np.save(tmp_path / "x.npy", sequences(2, 6))
    assert answers(call, "run", "m.rindle", "--input", "x.npy", "--output", "y.npy")["shape"] == [2, 3]
    found = answers(call, "verify", "m.rindle")
    assert found["equal"] and len(found["differ"]) == 4 and not any(found["differ"].values())


@pytest.mark.parametrize("verb", ["quantize", "delta", "eval", "inspect", "run", "verify"])
def test_every_verb_has_help_with_an_example(call, verb):
    code, out, _ = call(verb, "--help")
    assert code == 0 and "Example" in out and f"rindle {verb} " in out and "--json" in out
