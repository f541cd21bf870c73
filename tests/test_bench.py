"""The benchmark: rivals compute the same function and are what they say, parts add up, and nothing stays pinned."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from support import CELLS, FEATURES, TorchModel, quantized, sequences

import rindle
from rindle import RindleError, cli
from rindle.engines.real import dequantized
from rindle.measure.bench import DENSE, OURS, bench, noise, probe_artifact
from rindle.measure.timing import Contender, in_turns, one_core, read_loops
from rindle.nn.back.dequantize import NoTorchForm, Whole, stages
from rindle.nn.back.rivals import DYNAMIC, FLOAT, Rivals, dynamic

QUICK = {"frames": 5, "batch": 2, "slices": 3, "seconds": 1e-4}
SHAPES = [(name, head) for name in ("lstm", "gru") for head in ("all", "last", "mean")]


@pytest.fixture(params=SHAPES, ids="-".join)
def torch_like(request):
    return request.param


# ----------------------------------------------------------------------------------------------------- torch's side


def test_every_torch_form_computes_what_the_model_does(torch_like):
    model = quantized(torch_like[0], "fixed16", head=torch_like[1])
    x = sequences(3, 12)
    ours = model.run(x)
    found = Rivals(model.artifact).outputs(x)
    kinds = {kind for kind, _ in found}
    assert kinds == {FLOAT, DYNAMIC}
    for (kind, name), y in found.items():
        y = y if y.shape == ours.shape else y[:, -1]
        # 16 bits against float; dynamic int8 has its own 8-bit weights and activations
        np.testing.assert_allclose(y, ours, atol=3e-3 if kind == FLOAT else 6e-2, err_msg=f"{kind} {name}")


def test_the_weights_are_the_files_to_half_a_step(torch_like):
    """At 16 bits the dequantized parameters are the trained ones, biases that torch keeps twice in their sum."""
    name, head = torch_like
    torch.manual_seed(0)
    trained = TorchModel(name, head).eval()
    state, built = trained.state_dict(), Whole(stages(quantized(name, "fixed16", head=head).artifact)).state_dict()
    renamed = {k.replace("first", "layers.0").replace("rnn", "layers.1"): v for k, v in state.items()}
    last = next(k for k in reversed(built) if k.endswith("weight")).removesuffix(".weight")
    renamed = {k.replace("last", last): v for k, v in renamed.items()}
    assert renamed.keys() == built.keys()
    for key, value in renamed.items():
        if "bias_ih" in key or "bias_hh" in key:
            continue
        torch.testing.assert_close(built[key], value, atol=3e-5, rtol=0)
    sums = [[s[f"layers.1.bias_ih_l{k}"] + s[f"layers.1.bias_hh_l{k}"] for k in (0, 1)] for s in (built, renamed)]
    for ours, wanted in zip(*sums):
        torch.testing.assert_close(ours, wanted, atol=6e-5, rtol=0)


def test_weights_are_codes_times_the_scale_of_their_row():
    artifact = quantized("gru", "int8").artifact
    layer = artifact.graph.recurrent[0].layer
    (product,) = layer.constants["nh"].products
    wanted = product.weight * product.row_scales.astype(np.float64)[:, None]
    np.testing.assert_array_equal(dequantized(layer)["nh.h"], wanted)


def test_per_gate_formats_are_put_together_again():
    torch.manual_seed(0)
    overrides = {"rnn.l0/weight.nh.h": "int4 mmse", "rnn.l0/code.r.x": "fixed16 max"}
    model = rindle.quantize(TorchModel("gru").eval(), "int8", sequences(), overrides)
    x = sequences(2, 9)
    for (kind, _), y in Rivals(model.artifact).outputs(x).items():
        if kind == FLOAT:
            np.testing.assert_allclose(y, model.run(x), atol=0.03)


def test_dynamic_is_dynamic():
    forms = Rivals(quantized("lstm", "int8").artifact).forms
    made = [module for kind, _, module in forms if kind == DYNAMIC]
    assert made
    for module in made:
        text = repr(module)
        assert "Dynamic" in text
        kinds = {type(one) for one in module.modules()}
        assert not kinds & {torch.nn.LSTM, torch.nn.LSTMCell, torch.nn.Linear}, text


def test_a_root_module_that_quantize_dynamic_leaves_in_float_is_refused():
    with pytest.raises(RindleError, match="left LSTM in float"):
        dynamic(torch.nn.LSTM(3, 4), torch.backends.quantized.engine)


def test_what_torch_lacks_is_named():
    with pytest.raises(NoTorchForm, match=r"rnn\.l0 .*'sru'"):
        Rivals(quantized("sru", "int8").artifact)


def test_another_cell_of_the_same_name_is_not_torchs():
    @rindle.cell(states=("h",))
    def gru(n, x, h):
        return n.tanh(n.affine("a", x, h))

    torch.manual_seed(0)

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = rindle.Recurrent(gru, FEATURES, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    model = rindle.quantize(Own().eval(), "int8", sequences())
    with pytest.raises(NoTorchForm, match="gru"):
        stages(model.artifact)


# -------------------------------------------------------------------------------------------------------- the clock


def test_contenders_are_timed_in_turns_within_their_context():
    events = []

    class Around:
        def __enter__(self):
            events.append("in")

        def __exit__(self, *_):
            events.append("out")

    def slow(n):
        events.append(n)
        time.sleep(2e-3 * n)

    def fast(n):
        events.append("fast")
        sum(range(100 * n))

    timings = in_turns([Contender("a", "slow", slow, Around), Contender("a", "fast", fast)], slices=4, seconds=1e-3)
    assert timings[0].median >= timings[0].best >= 2000 > timings[1].best
    # one call fills a slice; the last four slices alternate
    assert events[-16:] == ["in", 1, "out", "fast"] * 4


def test_the_pin_and_the_threads_are_given_back():
    before = os.sched_getaffinity(0), torch.get_num_threads()
    torch.set_num_threads(2)
    rivals = Rivals(quantized("gru", "int8").artifact)
    with one_core() as core, rivals.environment():
        assert os.sched_getaffinity(0) == {core} and torch.get_num_threads() == 1 and torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == 2 and os.sched_getaffinity(0) == before[0]
    torch.set_num_threads(before[1])


@pytest.mark.parametrize("form", range(3))
def test_a_read_loop_reads_the_whole_buffer(form):
    small, large = in_turns([read_loops(size)[form] for size in (1 << 14, 1 << 22)], slices=9)
    assert large.best > 5 * small.best, (small, large)  # 256 times the bytes, less what a call costs


# ----------------------------------------------------------------------------------------------------- the benchmark


def test_a_bench_has_times_ratios_and_parts_that_add_up(torch_like):
    name, head = torch_like
    model = quantized(name, "int8", head=head)
    found = bench(model, Rivals(model.artifact), **QUICK)
    assert [(race.batch, race.frames) for race in found.sequences] == [(1, 5), (2, 5)]
    assert (found.step is None) == (head == "mean") == (found.bound is None)
    for race in filter(None, (found.step, *found.sequences)):
        assert {row.kind for row in race.rows} == {OURS, FLOAT, DYNAMIC}
        for row in race.rows:
            assert 0 < row.best <= row.median
        for kind in (FLOAT, DYNAMIC):
            fastest = min(row.median for row in race.rows if row.kind == kind)
            assert race.best(kind).median == fastest and race.speedup(kind) == fastest / race.rows[0].median
    if found.step:
        assert {row.form for row in found.step.rows if row.kind == FLOAT} == {"cells", "layers", "layers, no oneDNN"}
        bound = found.bound
        assert bound.call + bound.elementwise + bound.products == pytest.approx(bound.step)
        assert min(bound.call, bound.elementwise, bound.products) >= 0 < bound.bytes_floor
        weights = [p for n in model.artifact.graph.programs for c in _affines(n) for p in c.products]
        assert bound.macs == sum(p.weight.size for p in weights) == bound.bytes == bound.bytes_asked == bound.macs_asked
        assert bound.by in ("overhead", "element-wise", "bytes", "operations")
    assert json.loads(json.dumps(found.document()))["model"] == model.id
    assert max(found.deviation.values()) < 0.2


def _affines(node):
    return [node.layer.constants[op.out[0]] for op in node.layer.program.affines]


def test_a_delta_model_runs_beside_itself_without_thresholds_and_reads_less():
    model = quantized("gru", "int8").with_thresholds({"rnn.l0/h": 40, "rnn.l1/x": 0})
    frames = np.repeat(sequences(1, 30)[0], 4, axis=0)  # every frame stands four times: little changes
    found = bench(model, None, frames, "repeated frames", missing="not asked", **QUICK)
    kinds = [row.kind for row in found.step.rows]
    assert kinds == [OURS, DENSE] and found.step.speedup(FLOAT) is None and found.missing == "not asked"
    assert 0 < found.density["rnn.l0/h"] < 0.5 and found.density["rnn.l0/x"] == 1.0
    bound = found.bound
    assert 0 < bound.bytes_asked < bound.bytes and bound.macs_asked == bound.bytes_asked
    sizes = {key: 0 for key in model.thresholds}
    for name, (node, code) in model.artifact.held_codes().items():
        layer = model.artifact.graph.node(node).layer
        for op in layer.program.affines:
            for term, product in zip(op.terms, layer.constants[op.out[0]].products):
                sizes[name] += product.weight.size * (term.code == code)
    assert bound.macs_asked == pytest.approx(sum(sizes[key] * found.density[key] for key in sizes))


@pytest.mark.fast(4)
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_can_be_timed_without_torch(name):
    found = bench(quantized(name, "int8"), **QUICK)
    assert [row.kind for row in found.step.rows] == [OURS]


def test_a_convolution_multiplies_its_weights_at_every_pixel():
    model = quantized("convlstm", "int8")
    pixels = {term.conv.pixels for node in model.artifact.graph.recurrent for term in node.layer.program.terms}
    assert min(pixels) > 1
    bound = bench(model, **QUICK).bound
    assert bound.macs == bound.macs_asked > bound.bytes == bound.bytes_asked


def test_noise_changes_everything_and_hardly_saturates():
    model = quantized("lstm", "int8")
    x = noise(model, 500)
    assert (np.diff(x, axis=0) != 0).all()
    clipped = model.measure(x).saturations["first", "x.code"]
    assert clipped < 0.02 * x.size


def test_the_probe_is_a_valid_model():
    model = rindle.Model(probe_artifact(17, 5))
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(model.run(x), model.run(x, engine="reference"))
    assert np.abs(model.run(x)).min() < np.abs(model.run(x)).max()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"inputs": np.zeros((4, FEATURES + 1), np.float32)}, f"[N, {FEATURES}]"),
        ({"inputs": np.zeros((4, FEATURES))}, "float64"),
        ({"inputs": np.zeros((0, FEATURES), np.float32)}, "[0, "),
        ({"frames": 0}, "frames is 0"),
        ({"slices": 0}, "slices is 0"),
    ],
)
def test_what_cannot_be_timed_is_refused(given, words):
    with pytest.raises(RindleError) as error:
        bench(quantized("gru", "int8"), **(QUICK | given))
    assert words in str(error.value)


# ------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["rindle", "bench", *map(str, arguments), "--slices", "2", "--frames", "4"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture
def file(tmp_path):
    rindle.save(quantized("lstm", "int8", head="last"), tmp_path / "m.rindle")
    return tmp_path / "m.rindle"


def test_the_command_prints_data(call, file):
    code, out, _ = call(file, "--json", "--batch", "3")
    found = json.loads(out)
    assert code == 0 and found["file"] == str(file) and found["inputs"] == "noise"
    assert found["step"]["speedup"][FLOAT] > 0 < found["step"]["speedup"][DYNAMIC]
    assert [race["batch"] for race in found["sequences"]] == [1, 3]
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["cpu"]


def test_the_command_prints_tables(call, file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    code, out, _ = call(file, "--no-torch")
    assert code == 0
    for words in ("one frame, batch 1", "sequences of 4 frames, batch 16", "element-wise", "torch was not asked for"):
        assert words in out, words


def test_the_command_steps_through_real_frames_only(call, file, tmp_path):
    x, lengths = sequences(3, 6), np.array([6, 2, 1])
    x[1, 2:] = x[2, 1:] = np.nan
    np.savez(tmp_path / "d.npz", x=x, lengths=lengths)
    code, out, err = call(file, "--json", "--no-torch", "--data", tmp_path / "d.npz")
    assert code == 0, err
    assert json.loads(out)["inputs"] == str(tmp_path / "d.npz")
    np.save(tmp_path / "x.npy", np.zeros((2, 3, FEATURES + 1), np.float32))
    code, _, err = call(file, "--data", tmp_path / "x.npy")
    assert code == 2 and f"[N, T, {FEATURES}]" in err


WITHOUT_TORCH = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name="torch")
sys.meta_path.insert(0, Hidden())
from rindle import cli
cli.main()
"""


def test_without_torch_ours_is_timed_and_it_is_said(file):
    command = [sys.executable, "-c", WITHOUT_TORCH, "bench", file, "--json", "--slices", "2", "--frames", "4"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and 'pip install -e ".[torch]"' in found["missing"], done.stderr
    assert [row["kind"] for row in found["step"]["rows"]] == [OURS] and "torch" not in found["machine"]
