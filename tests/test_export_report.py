"""What ``rindle export --report`` says: that of the objects, of the replays, and of the reference's own counters."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from exported import tool
from support import quantized, quantized_graph
from test_export_targets import held, whole_layer

import rindle
from rindle import RindleError, cli
from rindle.engines.golden import with_thresholds
from rindle.export import REPORTS, to_c
from rindle.export.c import machines
from rindle.export.c import report as module
from rindle.export.c.machines import MACHINES, DoesNotFit
from rindle.export.c.report import Steps
from rindle.file.dataset import dataset

pytestmark = pytest.mark.fast(0)  # in emulators of other machines

report = REPORTS["c"]
COUNTING = [name for name in MACHINES if name != "wasm"]


def with_tools(*names):
    for name in names:
        for each in MACHINES[name].tools:
            tool(each, machines.PACKAGES.get(each, each))
    return list(names)


def test_sizes_are_those_of_the_export_on_every_machine(tmp_path):
    artifact = held(quantized("lstm", "w4a8").artifact)
    found = report(artifact, machines=with_tools(*COUNTING))
    assert [target.machine for target in found.targets] == COUNTING
    dense = with_thresholds(artifact, dict.fromkeys(artifact.held_codes()))
    made = {"dense": to_c(dense, tmp_path / "dense"), "held": to_c(artifact, tmp_path / "held")}
    for target in found.targets:
        assert [form.form for form in target.forms] == ["dense", "held"]
        for form in target.forms:
            padding = 512 if target.machine == "host" else 64  # of arrays; and what a compiler knows by heart
            assert abs(form.flash["constants"] - sum(made[form.form].flash.values())) < padding, target.machine
            assert form.state == made[form.form].ram, target.machine
            assert form.flash["code"] > 500
            assert (form.stack is None) == (target.machine == "host")
            assert form.stack is None or 32 <= form.stack < 2000  # of 16 sums, registers and calls


@pytest.mark.parametrize("machine", ["cortex-m4", "rv32imc"])
def test_instructions_and_density_fall_together(machine):
    """And a model that holds everything back has no multiply-accumulate to do."""
    artifact = whole_layer("GRU", "int8", 16, 24)
    largest = {
        name: artifact.graph.node(node).layer.formats[code].hi - 1
        for name, (node, code) in artifact.held_codes().items()
    }
    (target,) = report(with_thresholds(artifact, dict.fromkeys(largest, 2)), machines=with_tools(machine)).targets
    dense, steps = target.forms[0].steps[0], target.forms[1].steps
    assert dense.density == 1 and len(steps) == 4
    ordered = sorted(steps, key=lambda one: one.density)
    assert ordered[0].density < 0.2 and ordered[-1].frames == "random codes" and ordered[-1].density > 0.8
    counts = [one.instructions for one in ordered]
    assert counts == sorted(counts)
    (still,) = report(with_thresholds(artifact, largest), machines=[machine]).targets
    quiet = still.forms[1].steps[0]
    assert quiet.density == 0 and quiet.instructions < min(counts)
    assert dense.instructions > 16 * 72 + 24 * 72  # no core here does all of them in fewer


@pytest.mark.fast(1)
def test_density_is_the_share_of_columns_that_the_reference_counts():
    artifact = held(whole_layer("LSTM", "int8", 6, 8))
    x = np.cumsum(np.random.default_rng(1).normal(0, 0.1, (2, 9, artifact.graph.input_size)), 1).astype(np.float32)
    data = dataset(x, lengths=[9, 4], name="walks.npz")
    (target,) = report(artifact, data, machines=with_tools("host")).targets
    (step,) = target.forms[1].steps
    assert step.frames == "the first 13 frames of walks.npz"
    frames = np.concatenate([x[0], x[1, :4]])[None]
    model = rindle.Model(artifact)
    counts = [{one.name: one for one in model.measure(part).inputs} for part in (frames, frames[:, :1])]
    changed = whole = 0
    for name, one in counts[0].items():
        first = counts[1][name]
        rows = one.macs // one.size
        changed += rows * (one.density * one.size * one.frames - first.density * first.size)
        whole += one.macs * 12
    assert step.density == pytest.approx(changed / whole, abs=1e-12)
    assert 0 < step.density < 1


@pytest.mark.fast(1)
def test_break_even_is_where_the_lines_cross():
    def at(*points):
        return tuple(Steps("", density, count) for density, count in points)

    assert module._break_even(50.0, at((0.5, 60.0), (0.1, 20.0), (0.0, 10.0))) == pytest.approx(0.4)
    assert module._break_even(50.0, at((0.5, 49.0), (0.1, 20.0))) is None
    assert module._break_even(5.0, at((0.5, 49.0), (0.1, 20.0))) is None
    assert module._break_even(None, at((0.5, None), (0.1, None))) is None


def test_a_model_that_does_not_fit_is_named(tmp_path):
    with_tools("cortex-m4")
    to_c(quantized("lstm", "int8").artifact, tmp_path, "net")
    small = replace(MACHINES["cortex-m4"], flash_size=0x1000)
    small.build(tmp_path, "net")
    with pytest.raises(DoesNotFit, match="larger than the machine's flash"):
        small.replay(tmp_path, "net")


def test_other_integers_are_an_error(monkeypatch):
    artifact = quantized("gru", "int8").artifact
    with_tools("host")

    def wrong(model, *rest, **options):
        outputs = model.golden.outputs.copy()
        outputs[0, -1] ^= 1
        return to_c(replace(model, golden=replace(model.golden, outputs=outputs)), *rest, **options)

    monkeypatch.setattr("rindle.export.c.to_c", wrong)
    with pytest.raises(RindleError, match="other integers"):
        report(artifact, machines=["host"])


def test_ids_and_heads_are_measured_too():
    artifact = quantized_graph("words, last", "int8").artifact
    (target,) = report(held(artifact), machines=with_tools("rv32imc")).targets
    assert len(target.forms[1].steps) == 4 and all(one.instructions > 1000 for one in target.forms[1].steps)


def test_the_verb_names_what_is_missing(tmp_path, monkeypatch, capsys):
    with_tools("host")
    rindle.save(rindle.Model(held(quantized("gru", "int8").artifact)), tmp_path / "m.rindle")
    x = np.random.default_rng(0).normal(size=(1, 6, quantized("gru", "int8").artifact.graph.input_size))
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32))

    def call(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(
            "sys.argv", ["rindle", "export", str(tmp_path / "m.rindle"), "--to", "c", *map(str, arguments)]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, " ".join("".join(capsys.readouterr()).split())

    which = shutil.which
    monkeypatch.setattr(
        machines.shutil, "which", lambda name: which(name) if name in ("cc", "size", "valgrind") else None
    )
    code, said = call("-o", tmp_path / "c", "--report", "--data", tmp_path / "x.npz")
    assert code == 0
    assert "cortex-m4 was not measured; not installed: arm-none-eabi-gcc (apt-get install gcc-arm-none-eabi)" in said
    assert "held" in said and "not cycles" in said
    code, said = call("-o", tmp_path / "d", "--report", "--json")
    targets = {one["machine"]: one for one in json.loads(said)["report"]["targets"]}
    assert code == 0 and list(targets) == COUNTING
    assert targets["cortex-m55 clang"]["missing"]["clang"] == "clang"
    assert targets["host"]["missing"] == {} and len(targets["host"]["forms"][1]["steps"]) == 4
    code, said = call("-o", tmp_path / "f", "--report", "--json", "--data", tmp_path / "x.npz")
    (step,) = json.loads(said)["report"]["targets"][-1]["forms"][1]["steps"]
    assert step["frames"] == f"the first 6 frames of {tmp_path / 'x.npz'}" and step["instructions"] > 1000
    code, said = call("-o", tmp_path / "e", "--data", tmp_path / "x.npz")
    assert code == 2 and "--report" in said and not (tmp_path / "e").exists()
