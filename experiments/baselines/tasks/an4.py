"""AN4: characters from MFCCs by CTC, two bidirectional layers of 128. Metric: word error rate, greedy decoding.

Three neighbouring frames are read at a time (33 steps/s). Beside it: character error rate, both rates with prefix beam
search and a character bigram of the training transcripts, the greedy rates of the utterances whose text is in no training
transcript (`new_text_…`), and the best constant answer (the training transcript that is nearest, in characters, to all
the others).
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rindle.tasks import decode, metrics
from rindle.tasks.data import an4
from rindle.tasks.train import Settings, beside, shuffled

BATCH, STACK = 16, 3
RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU}
METRIC = "wer"
ALPHABET = "\0 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # 0 is CTC's blank


class Speller(nn.Module):
    def __init__(self, kind: str, size: int = 13 * STACK, units: int = 128, dropout: float = 0.3):
        super().__init__()
        self.rnn = RECURRENT[kind](size, units, num_layers=2, bidirectional=True, dropout=dropout)
        self.output = nn.Linear(2 * units, len(ALPHABET))
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames):
        """frames (time, batch, size) → log probabilities (time, batch, symbols)."""
        hidden, _ = self.rnn(frames)
        return self.output(self.dropout(hidden)).log_softmax(-1)


def model(kind: str) -> nn.Module:
    return Speller(kind)


def settings(kind: str) -> Settings:
    return Settings(epochs=30, lr=3e-3, schedule="cosine", warmup=0.05, weight_decay=1e-2)


class Task:
    def __init__(self, seed: int = 0, quick: bool = False):
        self.seed = seed
        step = 20 if quick else 1
        parts = {part: rows[::step] for part, rows in an4.load().items()}
        self.parts = {part: [example(u) for u in rows] for part, rows in parts.items()}
        self.texts = {part: [" ".join(u.words) for u in rows] for part, rows in parts.items()}

    def plan(self, epoch: int) -> list[np.ndarray]:
        lengths = [len(frames) for frames, _ in self.parts["train"]]
        return shuffled(len(lengths), BATCH, self.seed, epoch, lengths=lengths)

    def loss(self, model, rows, share, carry):
        """In training a batch is of similar lengths, padded at the end with frames of the mean; reading has no padding."""
        frames, lengths, marks, sizes = batch([self.parts["train"][row] for row in share(rows)])
        frames, marks = beside(model, frames, marks)
        loss = F.ctc_loss(model(frames), marks, lengths, sizes, reduction="sum", zero_infinity=True)
        return loss, int(sizes.sum()), None

    def score(self, model) -> dict[str, float]:
        found = rates(self.read(model, "valid", decode.ctc_greedy), self.texts["valid"])
        return {"valid_cer": found["cer"], "valid_wer": found["wer"]}

    def evaluate(self, model, part: str) -> dict[str, float]:
        greedy, true, known = self.read(model, part, decode.ctc_greedy), self.texts[part], set(self.texts["train"])
        new = [i for i, text in enumerate(true) if text not in known]
        others = {
            "beam": rates(self.read(model, part, self.beam()), true),
            "new_text": rates([greedy[i] for i in new], [true[i] for i in new]),
            "constant": rates([self.constant()] * len(true), true),
        }
        return rates(greedy, true) | {f"{of}_{k}": v for of, found in others.items() for k, v in found.items()}

    def read(self, model, part: str, decoder) -> list[str]:
        texts = []
        for frames, _ in self.parts[part]:
            scores = model(*beside(model, frames[:, None]))[:, 0]
            texts.append("".join(ALPHABET[i] for i in decoder(scores.double().cpu().numpy())))
        return texts

    def beam(self):
        """Weight 0.5 and bonus 1 are usual values, not tuned."""
        following = character_bigram(self.texts["train"])
        return lambda scores: decode.ctc_beam(scores, following=following, weight=0.5, bonus=1.0, prune=-9.0)[0]

    def constant(self) -> str:
        true = self.texts["train"]
        return min(sorted(set(true)), key=lambda text: metrics.edits([text] * len(true), true).errors.sum())


def rates(found: list[str], true: list[str]) -> dict[str, float]:
    return {
        "wer": metrics.error_rate([t.split() for t in found], [t.split() for t in true]),
        "cer": metrics.error_rate(found, true),
    }


def character_bigram(texts: list[str]) -> np.ndarray:
    """log P(next | previous); the blank's row is the beginning of an utterance."""
    counts = np.full((len(ALPHABET), len(ALPHABET)), 0.1)
    for text in texts:
        marks = [0, *map(ALPHABET.index, text)]
        np.add.at(counts, (marks[:-1], marks[1:]), 1)
    return np.log(counts / counts.sum(1, keepdims=True))


def example(utterance) -> tuple[torch.Tensor, torch.Tensor]:
    """Each coefficient has mean 0 and deviation 1 over the utterance."""
    frames = utterance.features
    frames = (frames - frames.mean(0)) / (frames.std(0) + 1e-3)
    frames = frames[: len(frames) // STACK * STACK].reshape(-1, STACK * frames.shape[1])
    return torch.from_numpy(frames), torch.tensor([ALPHABET.index(mark) for mark in " ".join(utterance.words)])


def batch(examples):
    frames, marks = zip(*examples)
    lengths, sizes = (torch.tensor([len(row) for row in rows]) for rows in (frames, marks))
    return nn.utils.rnn.pad_sequence(frames), lengths, torch.cat(marks), sizes
