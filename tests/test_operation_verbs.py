"""The command line on models with windows and float outputs: nothing that counts frames or codes may trip over them."""

import json
import sys

import numpy as np
import pytest
import torch
from operations import Model
from support import FEATURES, sequences
from torch import nn

import rindle
from rindle.cli import main
from rindle.engines.model import Model as Runtime
from rindle.file.dataset import load_data
from rindle.report.collect import activity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """strided.rindle: every other frame, a mean, softmax; data.npz."""
    path = tmp_path_factory.mktemp("operations")
    torch.manual_seed(0)
    model = Model(
        lambda m, x: m.fc(m.rnn(m.conv(x.transpose(1, 2)).transpose(1, 2))[0].mean(1)).softmax(-1),
        conv=nn.Conv1d(FEATURES, 6, 3, stride=2), rnn=nn.GRU(6, 5, batch_first=True), fc=nn.Linear(5, 3),
    ).eval()  # fmt: skip
    x = sequences(12, 30)
    rindle.save(rindle.quantize(model, "int8", x), path / "strided.rindle")
    lengths = np.array([30, 21, 4, 30, 17, 9, 30, 3, 12, 30, 26, 5])
    np.savez(path / "data.npz", x=x, y=np.arange(12) % 3, lengths=lengths)
    return path


@pytest.fixture
def call(folder, monkeypatch, capsys):
    """Runs a verb in the folder; returns (exit code, stdout)."""
    monkeypatch.chdir(folder)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["rindle", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, capsys.readouterr().out

    return run


def test_verify_replays_floats_in_every_engine(call):
    code, out = call("verify", "strided.rindle", "--json")
    found = json.loads(out)
    assert code == 0 and found["equal"]
    assert len(found["differ"]) == 3 and set(found["differ"].values()) == {0}


def test_verify_sees_a_float_that_differs(call, monkeypatch):
    exact = Runtime.run
    monkeypatch.setattr(Runtime, "run", lambda *args, **options: exact(*args, **options) + 1e-4)
    code, out = call("verify", "strided.rindle")
    assert code == 1 and "values differ" in out


@pytest.mark.parametrize(
    "verb", [["eval", "--data"], ["inspect", "--data"], ["inspect"]], ids=["eval", "inspect with data", "inspect"]
)
def test_a_verb_reads_it(call, verb):
    data = ["data.npz"] if verb[-1] == "--data" else []
    code, out = call(verb[0], "strided.rindle", *verb[1:], *data, "--json")
    assert code == 0 and json.loads(out)


def test_activity_along_strided_frames(folder):
    spans = activity(rindle.load(folder / "strided.rindle"), load_data(folder / "data.npz"))
    assert spans and all(0 <= one["density"] <= 1 and one["frames"] > 0 for one in spans)
    lengths = np.load(folder / "data.npz")["lengths"]
    of_one = [one["frames"] for one in spans if one["input"] == spans[0]["input"]]
    assert sum(of_one) == ((lengths - 3) // 2 + 1).sum()
