"""The command line: what it does, its exit codes, and that it leaves nothing half written."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from support import FEATURES, quantized, sequences

import rindle
from rindle import cli


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.rindle"
    rindle.save(quantized("gru", "int8", head="last"), path)
    return path


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the command; returns (exit code, what it printed on both streams)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rindle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out + err

    return run


@pytest.fixture
def x(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, sequences(3, 9))
    return path


@pytest.mark.parametrize("engine", ["runtime", "reference"])
def test_run_writes_what_the_model_computes(file, call, x, tmp_path, engine):
    code, said = call("run", file, "--input", x, "--output", tmp_path / "y.npy", "--engine", engine)
    assert code == 0, said
    wanted = rindle.load(file).run(np.load(x))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), wanted)


def test_run_honours_lengths(file, call, x, tmp_path):
    np.save(tmp_path / "n.npy", [9, 4, 1])
    code, said = call("run", file, "--input", x, "--output", tmp_path / "y.npy", "--lengths", tmp_path / "n.npy")
    assert code == 0, said
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), rindle.load(file).run(np.load(x), [9, 4, 1]))


def test_run_overwrites_only_when_forced(file, call, x, tmp_path):
    output = tmp_path / "y.npy"
    output.write_bytes(b"precious")
    code, said = call("run", file, "--input", x, "--output", output)
    assert code == 2 and "--force" in said and output.read_bytes() == b"precious"
    code, said = call("run", file, "--input", x, "--output", output, "--force")
    assert code == 0, said
    assert np.load(output).shape == (3, 3)


def test_a_failed_run_leaves_no_file(file, call, tmp_path):
    bad = sequences(3, 9)
    bad[1, 2, 3] = np.nan
    np.save(tmp_path / "x.npy", bad)
    before = sorted(tmp_path.iterdir())
    code, said = call("run", file, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert code == 2 and "row 1, frame 2, feature 3 is nan" in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 9, FEATURES + 1), np.float32), f"[T, {FEATURES}]"),
        (np.zeros((3, 9, FEATURES)), "float32"),
        (np.zeros((3, 0, FEATURES), np.float32), "at least one frame"),
    ],
)
def test_run_names_what_is_wrong_with_the_input(file, call, tmp_path, array, words):
    np.save(tmp_path / "x.npy", array)
    code, said = call("run", file, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert code == 2 and words in said.replace("\n", " "), said


def test_run_refuses_an_unknown_engine_and_an_unreadable_input(file, call, x, tmp_path):
    code, said = call("run", file, "--input", x, "--output", tmp_path / "y.npy", "--engine", "gpu")
    assert code == 2 and "gpu" in said and "reference" in said
    code, said = call("run", file, "--input", file, "--output", tmp_path / "y.npy")
    assert code == 2 and ".npy" in said
    assert not (tmp_path / "y.npy").exists()


def test_verify_agrees_in_every_engine(file, call):
    code, said = call("verify", file)
    assert code == 0 and said.count("equal") == 4, said


def test_verify_fails_when_an_engine_differs(file, call):
    model = rindle.load(file)
    outputs = model.artifact.golden.outputs
    outputs.setflags(write=True)
    outputs[0, 0] += 1
    rindle.save(rindle.Model(model.artifact), file)
    code, said = call("verify", file)
    assert code == 1 and said.count("differ") == 4, said


def test_inspect_shows_formats_thresholds_and_bytes(file, call):
    rindle.save(rindle.load(file).with_thresholds({"rnn.l0/h": 7}), file)
    code, said = call("inspect", file)
    assert code == 0
    for word in ("rnn.l1/r.sigmoid", "fixed(16,15)", "rnn.l0/nh.h", "multiply-accumulates", "weights", "int8"):
        assert word in said, word


def test_a_broken_file_is_one_line_and_exit_code_2(file, call):
    file.write_bytes(file.read_bytes()[:-10])
    code, said = call("inspect", file)
    assert code == 2 and "truncated" in said and "Traceback" not in said and str(file) in said.replace("\n", "")


def test_an_unknown_kernel_is_named_with_the_known_ones(file, call, monkeypatch):
    monkeypatch.setenv("RINDLE_KERNEL", "abacus")
    code, said = call("verify", file)
    assert code == 2 and "abacus" in said and "portable" in said


def test_brackets_in_names_are_shown_as_they_are(call, tmp_path):
    model = quantized("gru", "int8", head="last")
    odd = rindle.Model(replace(model.artifact, provenance={"note": "[/b] and [rows]"}))
    rindle.save(odd, tmp_path / "[bold]m.rindle")
    code, said = call("inspect", tmp_path / "[bold]m.rindle")
    assert code == 0 and "[/b] and [rows]" in said and "[bold]m.rindle" in said.replace("\n", "")
