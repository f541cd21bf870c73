"""Three published architectures, re-created from their descriptions, with the sizes of the papers or smaller ones."""

import math

import numpy as np
import torch
from torch import nn


class CRNN(nn.Module):
    """A convolution over time × mel bands with strides, two bidirectional GRU layers, a hidden layer, softmax: a keyword or not.

    Arik et al. 2017, "Convolutional Recurrent Neural Networks for Small-Footprint Keyword Spotting" (arXiv 1703.05390),
    section 2.1 and table 1: kernels L_T × L_F = 20 × 5 and strides S_T × S_F = 8 × 2 over 151 frames of 40 mel bands, N_C = 32
    channels, R = 2 layers of N_R = 32 units, N_F = 64; ReLU after the convolution and the hidden layer. What goes to the
    hidden layer is the recurrence's output at all T' = 17 positions there; that fixes the length of the input, so that here
    it is the final states of the last layer, which any length has.
    """

    name, features, frames = "crnn", 40, 151

    def __init__(self, bands=40, channels=32, hidden=32, width=64, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(1, channels, (20, 5), stride=(8, 2))
        self.rnn = nn.GRU(channels * ((bands - 5) // 2 + 1), hidden, 2, batch_first=True, bidirectional=True)
        self.hidden = nn.Linear(2 * hidden, width)
        self.out = nn.Linear(width, classes)

    def forward(self, x):  # [B, T, bands]
        y = torch.relu(self.conv(x.unsqueeze(1)))  # [B, C, T', F']
        y = y.permute(0, 2, 1, 3).flatten(2)
        _, h = self.rnn(y)
        return torch.softmax(self.out(torch.relu(self.hidden(torch.cat([h[-2], h[-1]], 1)))), -1)


class Separation(nn.Module):
    """Two stacked LSTM layers and a sigmoid mask: the core of both stages of DTLN."""

    def __init__(self, size: int, hidden: int):
        super().__init__()
        self.rnn1 = nn.LSTM(size, hidden, batch_first=True)
        self.rnn2 = nn.LSTM(hidden, hidden, batch_first=True)
        self.drop = nn.Dropout(0.25)
        self.dense = nn.Linear(hidden, size)

    def forward(self, x):
        return torch.sigmoid(self.dense(self.rnn2(self.drop(self.rnn1(x)[0]))[0]))


class DTLN1(nn.Module):
    """Stage one: from log-magnitudes a mask; the mask times the magnitudes.

    Westhausen & Meyer 2020, "Dual-Signal Transformation LSTM Network for Real-Time Noise Suppression" (arXiv 2005.07551),
    section 2.2, with 128 units: the STFT, its phase and its inverse stand outside, before and behind this stage. Input: a
    frame's log-magnitudes, normalized (the paper's instant layer normalization is of each frame, and stands outside, too), and
    its magnitudes.
    """

    name, features, frames = "dtln, stage 1", 514, 40

    def __init__(self, bins=257, hidden=128):
        super().__init__()
        self.bins, self.separation = bins, Separation(bins, hidden)

    def forward(self, x):  # [B, T, 2·bins]
        logarithm, magnitude = x.split(self.bins, -1)
        return magnitude * self.separation(logarithm)


class DTLN2(nn.Module):
    """Stage two: a learned basis by a convolution of one frame, a mask on it, and a convolution back to samples.

    The same paper, section 2.2: frames of 512 samples, 256 features. Its instant layer normalization between the basis and
    the LSTM is a batch norm here, which a converted model can fold; the overlap and addition of frames stands outside.
    """

    name, features, frames = "dtln, stage 2", 512, 40

    def __init__(self, samples=512, basis=256, hidden=128):
        super().__init__()
        self.encoder = nn.Conv1d(samples, basis, 1, bias=False)
        self.norm = nn.BatchNorm1d(basis)
        self.separation = Separation(basis, hidden)
        self.decoder = nn.Conv1d(basis, samples, 1, bias=False)

    def forward(self, x):  # [B, T, samples]
        encoded = self.encoder(x.transpose(1, 2))  # [B, basis, T]
        mask = self.separation(self.norm(encoded).transpose(1, 2))
        return self.decoder(encoded * mask.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    """A convolution, recurrent layers, soft attention over their outputs, a linear transformation, softmax.

    Shan et al. 2018, "Attention-based End-to-End Models for Small-Footprint Keyword Spotting" (arXiv 1803.10916): the CRNN encoder of
    section 3.3 (a convolution of 20 × 5 with strides 8 × 2 before the GRUs), a GRU of 128 units, and section 3.2, "soft attention":
    e_t = vᵀ tanh(W h_t + b), α = softmax(e), c = Σ α_t h_t, then softmax(U c). Bands: 40. Frames: 189 of a window of 1.9 s.
    """

    name, features, frames = "attention", 40, 189

    def __init__(self, bands=40, channels=16, hidden=128, layers=1, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(1, channels, (20, 5), stride=(8, 2))
        self.rnn = nn.GRU(channels * ((bands - 5) // 2 + 1), hidden, layers, batch_first=True)
        self.w, self.v = nn.Linear(hidden, hidden), nn.Linear(hidden, 1, bias=False)
        self.u = nn.Linear(hidden, classes, bias=False)

    def forward(self, x):  # [B, T, bands]
        h, _ = self.rnn(torch.relu(self.conv(x[:, None])).transpose(1, 2).flatten(2))
        alpha = torch.softmax(self.v(torch.tanh(self.w(h))), 1)  # [B, T', 1]
        return torch.softmax(self.u((alpha * h).sum(1)), -1)


ARCHITECTURES = {one.name: one for one in (CRNN, DTLN1, DTLN2, Attention)}
STREAMED = ("dtln, stage 1", "dtln, stage 2")


def noise(name: str, rows: int, seed: int = 0, frames: int | None = None) -> np.ndarray:
    """float32 [rows, frames, features]: independent normal values; the magnitudes of stage one are positive."""
    one = ARCHITECTURES[name]
    x = np.random.default_rng(seed).standard_normal((rows, frames or one.frames, one.features)).astype(np.float32)
    if name == "dtln, stage 1":
        x[..., 257:] = np.abs(x[..., 257:])
    return x


def signal(name: str, rows: int, seed: int = 0, frames: int | None = None) -> np.ndarray:
    """With structure: chirps in noise, as the architecture sees them: mel-like bands, spectra, or frames of samples."""
    one, rng = ARCHITECTURES[name], np.random.default_rng(seed)
    time = frames or one.frames
    pitch = 60 + 120 * rng.random((rows, 1)) + np.linspace(0, 60, time) * rng.uniform(-1, 1, (rows, 1))
    loud = np.sin(np.pi * np.linspace(0, 1, time)) ** 2 * rng.uniform(0.5, 1.5, (rows, 1))
    if one.features == 512:
        phase = np.cumsum(pitch, 1)[..., None] * 2 * math.pi * 128 / 16000
        within = 2 * math.pi * pitch[..., None] * np.arange(512) / 16000 * 4
        x = 0.3 * loud[..., None] * np.sin(phase + within) + 0.02 * rng.standard_normal((rows, time, 512))
        return x.astype(np.float32)
    bins = 257 if one.features == 514 else one.features
    line = np.exp(-(((np.arange(bins) - pitch[..., None] * bins / 260) / (bins / 20)) ** 2))
    magnitude = loud[..., None] * line + 0.05 * rng.random((rows, time, bins))
    logarithm = np.log(magnitude + 1e-3)
    logarithm = (logarithm - logarithm.mean(-1, keepdims=True)) / logarithm.std(-1, keepdims=True)
    return (np.concatenate([logarithm, magnitude], -1) if one.features == 514 else logarithm).astype(np.float32)


DATA = {"noise": noise, "signal": signal}


def made(name: str, seed: int = 0) -> nn.Module:
    """With random weights, those of a classifier's end so large that its softmax decides something; norms with statistics of
    the signal.
    """
    torch.manual_seed(seed)
    model = ARCHITECTURES[name]().train()
    with torch.no_grad():
        for head in ("hidden", "out", "u"):
            if hasattr(model, head):
                getattr(model, head).weight.mul_(6)
    if any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        with torch.no_grad():
            for _ in range(20):
                model(torch.from_numpy(signal(name, 4)))
    return model.eval()
