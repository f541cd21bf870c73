"""A power amplifier's model: one small recurrent layer from the input's I and Q to the output's. Metric: NMSE in dB.

Amplifier DPA_200MHz. Beside I and Q the network sees the amplitude and its cube, as is usual for amplifiers, and the
output layer sees the input too. Training cuts frames out of the training part; evaluation runs through a whole part
from a zero state, every sample counted.
"""

import numpy as np
import torch
from torch import nn

from rindle.tasks import metrics
from rindle.tasks.data import opendpd
from rindle.tasks.train import Settings, beside, shuffled

BATCH, LENGTH, STRIDE, SETTLE = 64, 60, 4, 20  # in frames, samples, samples; samples before the loss counts
RECURRENT = {"gru": nn.GRU, "lstm": nn.LSTM}
METRIC = "nmse_db"


class Amplifier(nn.Module):
    def __init__(self, kind: str, units: int = 16):
        super().__init__()
        self.rnn = RECURRENT[kind](4, units, batch_first=True)
        self.output = nn.Linear(units + 4, 2)

    def forward(self, signal):
        """(batch, time, 2) → (batch, time, 2), the output over the amplifier's gain."""
        amplitude = signal.norm(dim=-1, keepdim=True)
        features = torch.cat([signal, amplitude, amplitude**3], -1)
        hidden, _ = self.rnn(features)
        return self.output(torch.cat([hidden, features], -1))


def model(kind: str) -> nn.Module:
    return Amplifier(kind)


def settings(kind: str) -> Settings:
    return Settings(epochs=100, lr=5e-3, schedule="cosine", warmup=0.02)


class Task:
    def __init__(self, seed: int = 0, quick: bool = False):
        self.data, self.seed = opendpd.load("DPA_200MHz"), seed
        if quick:
            few = {part: tuple(s[:2000] for s in getattr(self.data, part)) for part in ("train", "valid", "test")}
            self.data = self.data._replace(**few)
        self.gain = self.data.gain
        self.signals = {p: tuple(map(torch.from_numpy, getattr(self.data, p))) for p in ("train", "valid", "test")}
        self.starts = np.arange(0, len(self.data.train[0]) - LENGTH + 1, STRIDE)

    def plan(self, epoch: int) -> list[np.ndarray]:
        return [self.starts[rows] for rows in shuffled(len(self.starts), BATCH, self.seed, epoch)]

    def loss(self, model, starts, share, carry):
        rows = torch.from_numpy(share(starts))[:, None] + torch.arange(LENGTH)
        x, y = beside(model, *(signal[rows] for signal in self.signals["train"]))
        difference = (model(x) - y / self.gain)[:, SETTLE:]
        return difference.square().sum(), difference.numel(), None

    def score(self, model) -> dict[str, float]:
        return {"valid_nmse_db": self.evaluate(model, "valid")["nmse_db"]}

    def evaluate(self, model, part: str) -> dict[str, float]:
        x, y = self.signals[part]
        found = model(*beside(model, x[None]))[0].float().cpu().numpy() * self.gain
        classic = memory_polynomial(self.data.train, x.numpy())
        return {
            "nmse_db": metrics.nmse_db(found, y.numpy()),
            "memory_polynomial_nmse_db": metrics.nmse_db(classic, y.numpy()),
        }


def memory_polynomial(train, x: np.ndarray, taps: int = 20, orders: int = 7) -> np.ndarray:
    """The field's classic model for comparison, by least squares on the training part: Σ w x[t-m] |x[t-m]|^k."""

    def terms(signal):
        past = [np.concatenate([np.zeros(m), (signal @ [1, 1j])[: len(signal) - m]]) for m in range(taps)]
        return np.stack([p * np.abs(p) ** k for p in past for k in range(orders)], 1)

    weights = np.linalg.lstsq(terms(train[0]), train[1] @ [1, 1j])[0]
    found = terms(x) @ weights
    return np.stack([found.real, found.imag], 1)
