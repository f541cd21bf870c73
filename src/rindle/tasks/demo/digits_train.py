"""Training a keyword network that shall understand speakers it has never heard. Needs torch and Lightning Fabric."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from ...file.dataset import Dataset
from ...files import write_file
from ..train import Settings, processes, seed_everything, shuffled, train
from .digits import DIGITS, Fold
from .frontend import BINS, normalize

BATCH = 64
HIDDEN = 96
SPARSITY = 1.0  # weight of the mean change of h per frame, which is what a delta network pays for
SETTINGS = Settings(epochs=24, lr=4e-3, schedule="cosine", warmup=0.1, weight_decay=0.05, clip=1.0)


class DigitNet(nn.Module):
    """Frames [B, T, 32] -> scores [B, 10], from the last frame: a stream can ask for them at any time."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(BINS, HIDDEN, batch_first=True)
        self.fc = nn.Linear(HIDDEN, len(DIGITS))
        self.before, self.after = nn.Dropout(0.1), nn.Dropout(0.4)

    def forward(self, x, every: bool = False):
        """every: the states [B, T, H] and the scores [B, T, 10] of every frame, for training."""
        y, _ = self.rnn(self.before(x))
        return (y, self.fc(self.after(y))) if every else self.fc(self.after(y[:, -1]))


def stretched(frames: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Another vocal tract (the mel axis, by up to 12 %) and another tempo (by up to a quarter), by linear interpolation."""
    time, bins = frames.shape
    place = np.clip(np.arange(bins) * draw.uniform(0.88, 1.12) + draw.uniform(-0.7, 0.7), 0, bins - 1.001)
    left = place.astype(int)
    share = (place - left).astype(np.float32)
    frames = frames[:, left] * (1 - share) + frames[:, left + 1] * share
    if time == 1:
        return frames
    place = np.linspace(0, time - 1.001, max(5, int(time * draw.uniform(0.8, 1.25))))
    left = place.astype(int)
    share = (place - left).astype(np.float32)[:, None]
    return frames[left] * (1 - share) + frames[left + 1] * share


def augmented(frames: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Log-mel frames [T, BINS] as another speaker, microphone and room might have given them; normalized, [T', BINS]."""
    frames = stretched(frames, draw)
    time, bins = frames.shape
    colour = np.interp(np.arange(bins), np.linspace(0, bins - 1, 5), draw.normal(0, 0.35, 5))
    frames = frames + (colour + draw.normal(0, 1.5)).astype(np.float32)  # the microphone, and how loud
    lead, trail = (int(draw.integers(0, 25)) if draw.random() < 0.6 else 0 for _ in range(2))
    level = frames.max() - draw.uniform(5, 14) + np.interp(np.arange(bins), [0, bins - 1], draw.normal(0, 1, 2))
    # 0.63 nepers: how the log energy of steady noise varies in a band of some six degrees of freedom
    noise = np.float32(0.63) * draw.standard_normal((lead + time + trail, bins), np.float32) + level.astype(np.float32)
    whole = np.full(noise.shape, -15.0, np.float32)
    whole[lead : lead + time] = frames
    frames = normalize(np.logaddexp(whole, noise))
    for _ in range(2):  # SpecAugment (Park et al. 2019): bands and a moment that are missing
        width = draw.integers(0, 6)
        start = draw.integers(0, bins - width)
        frames[:, start : start + width] = 0
    width = draw.integers(0, 7)
    start = draw.integers(0, max(1, len(frames) - width))
    frames[start : start + width] = frames[max(start - 1, 0)]
    return frames


def padded(rows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, T, BINS] and lengths [B]."""
    lengths = torch.tensor([len(row) for row in rows])
    return nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True), lengths


class Task:
    """What ``rindle.tasks.train`` asks for. Every epoch hears each recording once, changed by seed, epoch and row alone."""

    def __init__(self, fold: Fold, seed: int):
        self.seed, self.train, self.valid = seed, fold.train, fold.valid
        self.examples: list[np.ndarray] = []

    def plan(self, epoch: int) -> list[np.ndarray]:
        self.examples = [self.example(epoch, row) for row in range(len(self.train))]
        return shuffled(len(self.train), BATCH, self.seed, epoch, [len(frames) for frames in self.examples])

    def example(self, epoch: int, row: int) -> np.ndarray:
        draw = np.random.default_rng([self.seed, epoch, row])
        speeds = self.train[row].speeds
        return augmented(speeds[draw.integers(len(speeds))], draw)

    def loss(self, model, rows, share, carry):
        """Cross-entropy at the last frame, and half as much, on average, at all frames of the last two fifths: a stream does
        not know where a word ends. And SPARSITY.
        """
        rows = share(rows)
        x, lengths = padded([self.examples[row] for row in rows])
        digits = torch.tensor([self.train[row].digit for row in rows])
        states, scores = model(x, every=True)
        time = torch.arange(x.shape[1])
        each = F.cross_entropy(
            scores.transpose(1, 2), digits[:, None].expand(-1, x.shape[1]), reduction="none", label_smoothing=0.05
        )
        late = (time >= 0.6 * lengths[:, None]) & (time < lengths[:, None])
        loss = each[torch.arange(len(rows)), lengths - 1].sum() + 0.5 * len(rows) * each[late].mean()
        real = time[1:] < lengths[:, None]
        changes = (states[:, 1:] - states[:, :-1]).abs()[real].mean()
        return loss + SPARSITY * len(rows) * changes, len(rows), None

    def score(self, model) -> dict[str, float]:
        x, lengths = padded([one.frames for one in self.valid])
        _, scores = model(x, every=True)
        scores = scores[torch.arange(len(lengths)), lengths - 1]
        digits = torch.tensor([one.digit for one in self.valid])
        right = (scores.argmax(1) == digits).float().mean().item()
        return {"valid_loss": F.cross_entropy(scores, digits).item(), "valid_accuracy": right}


def train_fold(fold: Fold, settings: Settings, folder: Path) -> tuple[nn.Module, dict]:
    """Trains, or goes on where a killed run stopped. Returns the network and what is to be said of it."""
    seed_everything(settings.seed)
    net = DigitNet()
    curve = train(net, Task(fold, settings.seed), settings, folder, processes(accelerator="cpu"))
    return net, {
        "date": datetime.date.today().isoformat(),
        "train speakers": sorted({one.speaker for one in fold.train}),
        "sparsity": SPARSITY,
        "settings": dataclasses.asdict(settings),
        "curve": curve,
    }


def save(net: nn.Module, about: dict, file: Path) -> None:
    """Weights in float16, and beside them, as metadata, what is to be said of them."""
    halves = {name: value.half() for name, value in net.state_dict().items()}
    write_file(file, safetensors.torch.save(halves, {"about": json.dumps(about)}))


def load(file: Path) -> tuple[nn.Module, dict]:
    with safe_open(file, "pt") as stream:
        about = json.loads(stream.metadata()["about"])
        net = DigitNet()
        net.load_state_dict({name: stream.get_tensor(name).float() for name in stream.keys()})
    return net.eval(), about


@torch.inference_mode()
def float_scores(model: nn.Module, data: Dataset) -> np.ndarray:
    """[N, 10], each recording's at its own last frame."""
    scores = np.empty((len(data), len(DIGITS)), np.float32)
    for x, rows in data.batches():
        scores[rows] = model(torch.from_numpy(x)).numpy()
    return scores
