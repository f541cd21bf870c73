"""Spoken digits, publisher's split (the same speakers in all parts): one layer of 64 over 20 log-mel bins.

Metric: accuracy. Training hears every recording at seven speeds too, which moves pitch and formants as another speaker
would; energies more than 8 nepers below a recording's loudest are cut, because the noise floor tells speakers apart.
"""

from functools import cached_property

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rindle.tasks.data import fsdd
from rindle.tasks.data.audio import logmel
from rindle.tasks.train import Settings, beside, shuffled

BATCH, BINS = 64, 20
SPEEDS = (0.8, 0.87, 0.93, 1.0, 1.07, 1.15, 1.25)
RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU}
METRIC = "accuracy"


class Keyword(nn.Module):
    def __init__(self, kind: str, bins: int = BINS, units: int = 64, classes: int = 10, dropout: float = 0.4):
        super().__init__()
        self.rnn = RECURRENT[kind](bins, units, batch_first=True)
        self.output = nn.Linear(units, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames, lengths):
        """frames (batch, time, bins), padded at the end → logits (batch, classes): mean of the outputs over time."""
        hidden, _ = self.rnn(self.dropout(frames))
        real = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
        mean = (hidden * real[..., None]).sum(1) / lengths[:, None]
        return self.output(self.dropout(mean))


def model(kind: str) -> nn.Module:
    return Keyword(kind)


def settings(kind: str) -> Settings:
    return Settings(epochs=12, lr=3e-3, schedule="cosine", warmup=0.05, weight_decay=1e-2)


class Task:
    SPLIT = "official"

    def __init__(self, seed: int = 0, quick: bool = False):
        self.seed = seed
        step = 20 if quick else 1
        self.parts = {part: rows[::step] for part, rows in fsdd.load(split=self.SPLIT).items()}

    @cached_property
    def train(self) -> list:
        return [example(recording, speed) for speed in SPEEDS for recording in self.parts["train"]]

    def plan(self, epoch: int) -> list[np.ndarray]:
        lengths = [len(frames) for frames, _ in self.train]
        return shuffled(len(lengths), BATCH, self.seed, epoch, lengths=lengths)

    def loss(self, model, rows, share, carry):
        frames, lengths, digits = beside(model, *batch([self.train[row] for row in share(rows)]))
        return F.cross_entropy(model(frames, lengths), digits, reduction="sum"), len(digits), None

    def score(self, model) -> dict[str, float]:
        numbers = self.evaluate(model, "valid")
        return {"valid_error": 1 - numbers["accuracy"], "valid_loss": numbers["loss"]}

    def evaluate(self, model, part: str) -> dict[str, float]:
        frames, lengths, digits = beside(model, *batch([example(recording) for recording in self.parts[part]]))
        logits = model(frames, lengths)
        right = (logits.argmax(1) == digits).float().mean().item()
        return {"accuracy": right, "loss": F.cross_entropy(logits, digits).item()}


def example(recording, speed: float = 1.0) -> tuple[torch.Tensor, int]:
    """Log-mel at 100 frames/s; each bin has mean 0 over the recording, which takes out loudness and microphone."""
    samples = recording.samples.astype(np.float64) / 32768
    if speed != 1.0:
        samples = np.interp(np.arange(0, len(samples) - 1, speed), np.arange(len(samples)), samples)
    frames = logmel(samples, fsdd.RATE, BINS)
    frames = np.maximum(frames, frames.max() - 8)
    return torch.from_numpy((frames - frames.mean(0)) / (frames.std() + 1e-3)), recording.digit


def batch(examples) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    frames, digits = zip(*examples)
    return (
        nn.utils.rnn.pad_sequence(frames, batch_first=True),
        torch.tensor([len(f) for f in frames]),
        torch.tensor(digits),
    )
