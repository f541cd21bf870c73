"""Moving MNIST: ten frames seen, ten predicted, by two ConvLSTM layers of 32 over patches of 4×4 pixels.

Metric: squared error summed over the pixels of a frame, mean over the ten predicted frames. Beside it: structural
similarity, the error of each predicted frame, and the errors of answering black and of repeating the last frame seen.
The sequences validated and tested on are the first 1,000 of seed 0. Training draws its sequences anew all the time and
calls `EPOCH` of them an epoch. Full size: `--epochs 200`, which needs a GPU.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rindle.tasks import metrics
from rindle.tasks.data import mnist
from rindle.tasks.train import Settings, beside

BATCH, EPOCH, SEEN, FRAMES, PATCH = 8, 800, 10, 20, 4
METRIC = "mse"


class ConvLSTM(nn.Module):
    """Shi et al. 2015 without peepholes: one convolution over input and hidden state; gates i, f, g, o."""

    def __init__(self, inputs: int, units: int, kernel: int = 5):
        super().__init__()
        self.gates = nn.Conv2d(inputs + units, 4 * units, kernel, padding=kernel // 2)

    def forward(self, x, state):
        h, c = state
        i, f, g, o = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Predictor(nn.Module):
    """Reads a frame, predicts the next; after the frames seen it reads its own predictions."""

    def __init__(self, units: int = 32):
        super().__init__()
        self.units = units
        self.layers = nn.ModuleList([ConvLSTM(PATCH**2, units), ConvLSTM(units, units)])
        self.output = nn.Conv2d(2 * units, PATCH**2, 1)

    def forward(self, seen, frames: int = FRAMES):
        """seen (batch, time, 64, 64) in [0, 1] → logits of frames 1 to `frames` - 1, (batch, time, 64, 64)."""
        patches = F.pixel_unshuffle(seen[:, :, None].flatten(0, 1), PATCH).unflatten(0, seen.shape[:2])
        empty = seen.new_zeros(len(seen), self.units, *patches.shape[-2:])
        states, found = [(empty, empty) for _ in self.layers], []
        for t in range(frames - 1):
            x = patches[:, t] if t < seen.shape[1] else found[-1].sigmoid()
            for i, layer in enumerate(self.layers):
                states[i] = layer(x, states[i])
                x = states[i][0]
            found.append(self.output(torch.cat([h for h, _ in states], 1)))
        return F.pixel_shuffle(torch.stack(found, 1).flatten(0, 1), PATCH).unflatten(0, (len(seen), -1)).squeeze(2)


def model(kind: str) -> nn.Module:
    if kind != "convlstm":
        raise ValueError(f"moving_mnist has no {kind}: use --model convlstm")
    return Predictor()


def settings(kind: str) -> Settings:
    return Settings(epochs=10, lr=2e-3, schedule="cosine", warmup=0.05, precision="bf16-mixed")


class Task:
    def __init__(self, seed: int = 0, quick: bool = False):
        images = {part: x for part, (x, _) in mnist.load().items()}
        self.epoch, held_out = (16, 8) if quick else (EPOCH, 1000)
        self.train = mnist.MovingMNIST(images["train"], "train", 10**9, seed)
        self.parts = {part: mnist.MovingMNIST(images[part], part, held_out) for part in ("valid", "test")}

    def plan(self, epoch: int) -> list[np.ndarray]:
        return list(np.arange(epoch * self.epoch, (epoch + 1) * self.epoch).reshape(-1, BATCH))

    def loss(self, model, rows, share, carry):
        (x,) = beside(model, torch.from_numpy(np.stack([self.train[int(row)] for row in share(rows)])))
        x = x.float() / 255
        found = model(x[:, :SEEN])
        return F.binary_cross_entropy_with_logits(found.float(), x[:, 1:], reduction="sum") / 64**2, len(x), None

    def score(self, model) -> dict[str, float]:
        return {"valid_mse": self.errors(model, "valid", 100)[0].mean()}

    def errors(self, model, part: str, count: int):
        """(sequences, 10): the error of every predicted frame; the predictions; the truth."""
        sequences = self.parts[part]
        errors, found, true = [], [], []
        for i in range(0, min(count, len(sequences)), 20):
            x = np.stack([sequences[k] for k in range(i, min(i + 20, count, len(sequences)))]).astype(np.float32) / 255
            (seen,) = beside(model, torch.from_numpy(x[:, :SEEN]))
            y = model(seen).float().sigmoid().cpu().numpy()[:, SEEN - 1 :]
            errors.append(metrics.frame_mse(y, x[:, SEEN:]))
            found.append(y)
            true.append(x)
        return np.concatenate(errors), np.concatenate(found), np.concatenate(true)

    def evaluate(self, model, part: str) -> dict:
        errors, found, true = self.errors(model, part, 1000)
        future, last = true[:, SEEN:], true[:, SEEN - 1 : SEEN]
        return {
            "mse": float(errors.mean()),
            "mse_by_frame": [round(float(value), 2) for value in errors.mean(0)],
            "ssim": metrics.ssim(found[:200], future[:200]),
            "black_mse": float(metrics.frame_mse(np.zeros_like(future), future).mean()),
            "last_frame_mse": float(metrics.frame_mse(np.broadcast_to(last, future.shape), future).mean()),
        }
