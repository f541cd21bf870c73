"""Mboshi: the phone of every frame, one bidirectional layer (of SRU two) of 128 per direction over 40 log-mel bins.

Metric: phone error rate. Frame scores, divided by the phones' priors, are decoded by Viterbi with a phone bigram of the
training alignments; silence and repeats are dropped on both sides, and frames outside the alignment on both. Weight and
penalty of the bigram are fixed, not tuned. Beside it: frame error, and what always answering the most frequent phone
gets; for the phone error rate, what the most frequent phone (silence apart) at every tenth frame gets.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from experiments.baselines.recurrent import SRU, LiGRU, Stack
from rindle.tasks import decode, metrics
from rindle.tasks.data import mboshi
from rindle.tasks.train import Settings, beside, shuffled

BATCH, SILENCE = 16, 0
RECURRENT = {
    "lstm": lambda bins, units, dropout: nn.LSTM(bins, units, bidirectional=True),
    "gru": lambda bins, units, dropout: nn.GRU(bins, units, bidirectional=True),
    "ligru": lambda bins, units, dropout: LiGRU(bins, units),
    # Without a recurrent matrix one layer sees little of the past: SRU is used in stacks.
    "sru": lambda bins, units, dropout: Stack(SRU(bins, units), SRU(2 * units, units), dropout=dropout),
}
METRIC = "per"


class Phones(nn.Module):
    def __init__(self, kind: str, bins: int = 40, units: int = 128, phones: int = 28, dropout: float = 0.3):
        super().__init__()
        self.rnn = RECURRENT[kind](bins, units, dropout)
        self.output = nn.Linear(2 * units, phones)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames):
        """frames (time, batch, bins), without padding → logits (time, batch, phones)."""
        hidden, _ = self.rnn(self.dropout(frames))
        return self.output(self.dropout(hidden))


def model(kind: str) -> nn.Module:
    return Phones(kind)


def settings(kind: str) -> Settings:
    return Settings(epochs=6, lr=3e-3, schedule="cosine", warmup=0.03, weight_decay=1e-2)


class Task:
    def __init__(self, seed: int = 0, quick: bool = False):
        self.seed = seed
        self.data = mboshi.load()
        step = 60 if quick else 1
        self.parts = {part: getattr(self.data, part)[::step] for part in ("train", "valid", "test")}
        self.count(len(self.data.phones))

    def count(self, phones: int) -> None:
        """Priors and bigram of the training part's labels."""
        labels = [u.labels[u.labels != mboshi.UNLABELLED] for u in self.parts["train"]]
        counts = np.bincount(np.concatenate(labels), minlength=phones) + 1
        self.priors = np.log(counts / counts.sum())
        self.bigram = decode.bigram([decode.merge(row.tolist()) for row in labels], len(counts))

    def plan(self, epoch: int) -> list[np.ndarray]:
        lengths = [len(u.codes) for u in self.parts["train"]]
        return shuffled(len(lengths), BATCH, self.seed, epoch, lengths=lengths)

    def loss(self, model, rows, share, carry):
        return self.cost(model, [self.parts["train"][row] for row in rows], share)

    def cost(self, model, utterances, share):
        """A batch is of nearly equal lengths and is cut to the shortest: nothing is padded."""
        length = min(len(u.codes) for u in utterances)
        pieces = [self.tensors(u, length) for u in share(utterances)]
        frames, labels = (torch.stack(part, 1) for part in zip(*pieces))
        count = int((labels != mboshi.UNLABELLED).sum())
        frames, labels = beside(model, frames, labels)
        logits = model(frames).flatten(0, 1)
        return F.cross_entropy(logits, labels.flatten(), ignore_index=mboshi.UNLABELLED, reduction="sum"), count, None

    def tensors(self, utterance, length: int | None = None):
        short = utterance._replace(codes=utterance.codes[:length], labels=utterance.labels[:length])
        return torch.from_numpy(self.data.features(short)), torch.from_numpy(short.labels.astype(np.int64))

    def posteriors(self, model, part: str):
        """Of each utterance, alone: log posteriors and labels of the frames inside the alignment."""
        for utterance in self.parts[part]:
            frames, labels = self.tensors(utterance)
            scores = model(*beside(model, frames[:, None]))[:, 0].log_softmax(-1).double().cpu().numpy()
            inside = (labels != mboshi.UNLABELLED).numpy()
            yield scores[inside], labels.numpy()[inside]

    def score(self, model) -> dict[str, float]:
        wrong, frames = 0, 0
        for scores, true in self.posteriors(model, "valid"):
            wrong, frames = wrong + (scores.argmax(1) != true).sum(), frames + len(true)
        return {"valid_frame_error": float(wrong / frames)}

    def evaluate(self, model, part: str) -> dict[str, float]:
        scores, true = zip(*self.posteriors(model, part))
        paths = [decode.viterbi(s - self.priors, *self.bigram, weight=1.0, penalty=1.0) for s in scores]
        common = int(np.argsort(self.priors)[::-1][1 if self.priors.argmax() == SILENCE else 0])
        phones = [decode.merge(t.tolist(), drop=SILENCE) for t in true]
        frames = np.concatenate(true)
        return {
            "per": metrics.error_rate([decode.merge(p, drop=SILENCE) for p in paths], phones),
            "frame_error": metrics.frame_error(np.concatenate([s.argmax(1) for s in scores]), frames),
            "majority_frame_error": metrics.frame_error(np.full(len(frames), self.priors.argmax()), frames),
            "unigram_per": metrics.error_rate([[common] * (len(t) // 10) for t in true], phones),
        }
