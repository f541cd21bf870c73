"""Penn Treebank, word level: one layer of 300, embedding and output tied. Metric: perplexity per word, end marks counted.

The text is cut into `BATCH` columns that are read side by side, `LENGTH` words at a time; the state is carried along.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rindle.tasks import metrics
from rindle.tasks.data import ptb
from rindle.tasks.train import Settings, beside

BATCH, LENGTH = 20, 35
RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU}
METRIC = "perplexity"


class LanguageModel(nn.Module):
    def __init__(self, kind: str, words: int = 10_000, units: int = 300, dropout: float = 0.4):
        super().__init__()
        self.embedding = nn.Embedding(words, units)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.rnn = RECURRENT[kind](units, units)
        self.output = nn.Linear(units, words)
        nn.init.zeros_(self.output.bias)
        self.output.weight = self.embedding.weight
        self.dropout = nn.Dropout(dropout)

    def forward(self, words, state=None):
        """words (time, batch) → logits (time, batch, words), state."""
        hidden, state = self.rnn(self.dropout(self.embedding(words)), state)
        return self.output(self.dropout(hidden)), state


def model(kind: str) -> nn.Module:
    return LanguageModel(kind)


def settings(kind: str) -> Settings:
    return Settings(
        epochs=7, lr=3e-3, schedule="bent", warmup=0.0257, clip=0.5, weight_decay=1e-2, precision="bf16-mixed"
    )


class Task:
    def __init__(self, seed: int = 0, quick: bool = False):
        self.data = ptb.load()
        if quick:
            self.data = self.data._replace(
                train=self.data.train[:15_000], valid=self.data.valid[:3_000], test=self.data.test[:3_000]
            )
        self.columns = columns(self.data.train, BATCH)

    def plan(self, epoch: int) -> list[int]:
        return list(range(0, len(self.columns) - 1, LENGTH))

    def loss(self, model, start, share, carry):
        (text,) = beside(model, share(self.columns[start : start + LENGTH + 1].T).T)
        logits, state = model(text[:-1], carry)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), text[1:].flatten(), reduction="sum")
        return loss, text[1:].numel(), detached(state)

    def score(self, model) -> dict[str, float]:
        return {"valid_perplexity": perplexity(model, self.data.valid)}

    def evaluate(self, model, part: str) -> dict[str, float]:
        return {"perplexity": perplexity(model, getattr(self.data, part))}


def columns(text: np.ndarray, count: int) -> torch.Tensor:
    rows = len(text) // count
    return torch.from_numpy(text[: rows * count].reshape(count, rows).T.astype(np.int64))


def detached(state):
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def perplexity(model, text: np.ndarray, count: int = 10) -> float:
    """Of every word but the first of each column, in the columns' order with the state carried along."""
    read, total, words, state = columns(text, count), 0.0, 0, None
    for start in range(0, len(read) - 1, LENGTH):
        (piece,) = beside(model, read[start : start + LENGTH + 1])
        logits, state = model(piece[:-1], state)
        total += F.cross_entropy(logits.flatten(0, 1).float(), piece[1:].flatten(), reduction="sum").item()
        words += piece[1:].numel()
    return metrics.perplexity(total, words)
