"""The training loop: it goes on after a kill, and two processes take the steps of one."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("lightning_fabric", reason="the extra `tasks` is not installed: the training loop needs Fabric")

from rindle.tasks.train import Settings, Share, shuffled, train

SCRIPT = """
import sys, time
import torch
from torch import nn
from rindle.tasks.train import Settings, processes, seed_everything, shuffled, train

torch.set_num_threads(1)
folder, out, pause, dropout = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
seed_everything(5)
x = torch.randn(7, 60, 3)  # time, rows, features
y = x.cumsum(0).tanh().sum(-1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out, self.dropout = nn.GRU(3, 8), nn.Linear(8, 1), nn.Dropout(dropout)

    def forward(self, x, state=None):
        h, state = self.rnn(x, state)
        return self.out(self.dropout(h)).squeeze(-1), state


class Task:
    def plan(self, epoch):
        return [rows for rows in shuffled(60, 13, 0, epoch) if len(rows) == 13] + [range(3)]

    def loss(self, model, rows, share, carry):
        time.sleep(pause)
        rows = list(share(rows))
        if carry is not None and carry.shape[1] != len(rows):
            carry = None
        found, state = model(x[:, rows], carry)
        return (found - y[:, rows]).square().sum(), found.numel(), state.detach()

    def score(self, model):
        return {"error": (model(x)[0] - y).square().mean().item()}


model = Model()
settings = Settings(epochs=4, lr=0.02, schedule="cosine", warmup=0.2, seed=3, save_every=0.0)
curve = train(model, Task(), settings, folder, processes(accelerator="cpu"))
torch.save({"model": model.state_dict(), "curve": [(c["loss"], c["error"]) for c in curve]}, out)
"""


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "toy.py"
    file.write_text(SCRIPT)

    def start(folder, out, pause=0.0, dropout=0.0, processes=1):
        command = [sys.executable]
        if processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
        command += [str(file), str(tmp_path / folder), str(tmp_path / out), str(pause), str(dropout)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


def finish(process):
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


@pytest.mark.fast(0)
def test_a_killed_run_ends_where_an_unbroken_one_does(script, tmp_path):
    """Bit for bit: weights, learning curve, and the dropout drawn on the way."""
    finish(script("whole", "whole.pt", dropout=0.3))
    kills = 0
    for _ in range(2):
        before = (tmp_path / "broken/state.pt").stat().st_mtime_ns if (tmp_path / "broken/state.pt").exists() else 0
        process = script("broken", "broken.pt", pause=0.05, dropout=0.3)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            file = tmp_path / "broken/state.pt"
            if file.exists() and file.stat().st_mtime_ns != before:
                time.sleep(0.1 + 0.07 * kills)  # somewhere inside: a step, a save, a validation
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills == 2 and not (tmp_path / "broken.pt").exists()
    assert "going on from" in finish(script("broken", "broken.pt", dropout=0.3))
    whole, broken = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "broken"))
    assert whole["curve"] == broken["curve"] and len(whole["curve"]) == 4
    assert all(torch.equal(value, broken["model"][name]) for name, value in whole["model"].items())


@pytest.mark.fast(0)
@pytest.mark.skipif(os.name == "nt", reason="gloo over torchrun is tested on POSIX systems")
def test_two_processes_take_the_steps_of_one(script, tmp_path):
    """Shares of unequal size included: 13 rows are 7 and 6, 3 are 2 and 1."""
    one, two = script("one", "one.pt"), script("two", "two.pt", processes=2)
    finish(one), finish(two)
    states = [torch.load(tmp_path / name / "state.pt", weights_only=False) for name in ("one", "two")]
    assert [len(state["processes"]) for state in states] == [1, 2]
    one, two = (torch.load(tmp_path / f"{name}.pt") for name in ("one", "two"))
    assert np.allclose(one["curve"], two["curve"], rtol=1e-4)
    for name, value in one["model"].items():
        assert torch.allclose(value, two["model"][name], atol=1e-5), name


class Line:
    """Fit a constant; the validation scores are given."""

    def __init__(self, scores=()):
        self.scores, self.rates, self.model = iter(scores), [], None

    def plan(self, epoch):
        return range(5)

    def loss(self, model, batch, share, carry):
        self.carried = [*getattr(self, "carried", []), carry]
        return (model(torch.ones(2, 1)) - 3).square().sum(), 2, batch

    def score(self, model):
        return {"score_of_mine": next(self.scores, 0.0)}


def constant():
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def test_early_stopping_keeps_the_best(tmp_path):
    model, seen = constant(), []

    class Watched(Line):
        def score(self, wrapped):
            seen.append({k: v.clone() for k, v in model.state_dict().items()})
            return super().score(wrapped)

    task = Watched([3.0, 1.0, 2.0, 1.0, 0.5])
    curve = train(model, task, Settings(epochs=9, lr=0.1, patience=2), tmp_path)
    assert [line["score_of_mine"] for line in curve] == [3.0, 1.0, 2.0, 1.0]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in seen[1].items())
    assert not model.training


def test_what_is_carried_ends_with_the_epoch(tmp_path):
    task = Line()
    train(constant(), task, Settings(epochs=2, lr=0.1), tmp_path)
    assert task.carried == [None, 0, 1, 2, 3] * 2


@pytest.mark.parametrize("schedule, end", [("constant", 1.0), ("linear", 0.1), ("bent", 0.13), ("cosine", 0.0245)])
def test_the_learning_rate_rises_then_follows_its_schedule(tmp_path, schedule, end):
    rates = []
    real = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return real(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train(constant(), Line(), Settings(epochs=4, lr=0.5, schedule=schedule, warmup=0.5), tmp_path)
    assert np.allclose(rates[:11], np.linspace(0, 0.5, 11))
    assert len(rates) == 20 and np.isclose(rates[-1], 0.5 * end, atol=1e-3)


@pytest.mark.parametrize("optimizer, kind", [("rmsprop", torch.optim.RMSprop), ("adam", torch.optim.Adam)])
def test_the_rate_is_halved_where_the_score_hardly_improves(tmp_path, optimizer, kind):
    """And goes on so after a kill: in the fifth epoch, whose score is never taken the first time."""
    rates, real = [], kind.step
    chosen = Settings(epochs=6, lr=0.4, optimizer=optimizer, schedule="constant", halving=0.01)

    def step(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return real(self, *args, **kwargs)

    class Killed(Line):
        def score(self, model):
            if len(rates) == 25:
                raise KeyboardInterrupt
            return super().score(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(constant(), Killed([10.0, 5.0, 4.99, 4.0]), chosen, tmp_path)
        del rates[20:]
        curve = train(constant(), Line([4.1, 3.0]), chosen, tmp_path)
    # 5.0 → 4.99 is 0.2 %, 4.0 → 4.1 is a loss
    assert rates[::5] == [0.4, 0.4, 0.4, 0.2, 0.2, 0.1] and len(rates) == 30
    assert [line["score"] for line in curve] == [10.0, 5.0, 4.99, 4.0, 4.1, 3.0]


def test_a_run_with_other_settings_is_not_continued(tmp_path):
    train(constant(), Line(), Settings(epochs=1, lr=0.1), tmp_path)
    with pytest.raises(ValueError, match=r"is of a run with another settings: .*'lr': 0\.1.*'lr': 0\.2"):
        train(constant(), Line(), Settings(epochs=1, lr=0.2), tmp_path)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, again = constant(), constant()
    curve = train(first, Line(), Settings(epochs=2, lr=0.1), tmp_path)
    assert train(again, None, Settings(epochs=2, lr=0.1), tmp_path) == curve
    assert torch.equal(first.weight, again.weight)


def test_a_score_that_is_not_a_number_is_an_error(tmp_path):
    with pytest.raises(FloatingPointError, match="score of epoch 1"):
        train(constant(), Line([float("nan")]), Settings(epochs=1, lr=0.1), tmp_path)


@pytest.mark.parametrize("lengths", [None, np.arange(103) % 17])
def test_every_row_once_per_epoch_in_an_order_of_its_own(lengths):
    epochs = [shuffled(103, 10, 7, epoch, lengths) for epoch in (0, 1)]
    for batches in epochs:
        assert sorted(np.concatenate(batches).tolist()) == list(range(103))
        assert all(len(rows) <= 10 for rows in batches)
        if lengths is not None:
            assert sum(np.ptp(lengths[rows]) for rows in batches) < 30
    assert any(a.tolist() != b.tolist() for a, b in zip(*epochs))
    assert all(a.tolist() == b.tolist() for a, b in zip(epochs[0], shuffled(103, 10, 7, 0, lengths)))


def test_shares_are_disjoint_and_whole():
    rows = np.arange(13)
    assert sorted(np.concatenate([Share(rank, 4)(rows) for rank in range(4)]).tolist()) == rows.tolist()
    with pytest.raises(ValueError, match="a batch of 13 cannot be shared by 14 processes"):
        Share(0, 14)(rows)
