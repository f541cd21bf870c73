"""The page "my model" runs as it stands, and training under quantization recovers what few bits cost."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rindle

ROOT = Path(__file__).parents[1]


def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/my-model.md").read_text(), re.S)
    assert len(blocks) == 5
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    left = runpy.run_path(str(script))
    assert isinstance(left["model"], rindle.Model) and left["y"].shape == (32, 20, 3)
    assert rindle.load(tmp_path / "rnn.rindle").data


@pytest.mark.fast(0)
def test_training_recovers_what_two_bits_cost():
    """A small form of experiments/qat: which of four tones a noisy sequence carries; weights of 2 bits, as they come and trained on.
    The error is the converted model's, in the runtime.
    """
    torch.manual_seed(0)
    time = torch.arange(24)[None, :, None]

    def tones(rows: int):
        labels = torch.arange(rows) % 4
        phase = 6.28 * torch.rand(rows, 1, 1)
        x = torch.sin(time * (0.5 + 0.15 * labels[:, None, None]) + phase) + 0.3 * torch.randn(rows, 24, 1)
        return x, labels

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(1, 12, batch_first=True)
            self.fc = nn.Linear(12, 4)

        def forward(self, x):
            return self.fc(self.rnn(x)[0][:, -1])

    def fit(model, steps: int):
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, steps)
        for _ in range(steps):
            x, labels = tones(64)
            loss = nn.functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return model.eval()

    def accuracy(model) -> float:
        return float((model.run(x.numpy()).argmax(1) == labels.numpy()).mean())

    net = fit(Net(), 250)
    x, labels = tones(512)
    right = float((net(x).argmax(1) == labels).float().mean())
    scheme = {"*": "fixed16 max(1.25)", "weight.*": "int2 mmse", "code.*": "int8 mmse"}
    keep = {"fc/weight.*": "int8 max"}
    calibration = tones(64)[0]
    after = accuracy(rindle.quantize(net, scheme, calibration, keep))
    trained = {}
    for activations in (True, False):
        ready = fit(rindle.prepare(net, scheme, calibration, keep, activations=activations), 120)
        trained[activations] = accuracy(rindle.convert(ready, calibration))
    print(f"float {right:.3f}, after training {after:.3f}, trained {trained}")
    assert right > 0.9 and after < right - 0.2
    assert min(trained.values()) > after + 0.5 * (right - after), (right, after, trained)
    assert np.isfinite(list(trained.values())).all()
