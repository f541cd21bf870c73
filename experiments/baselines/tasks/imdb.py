"""IMDb sentiment: one layer of 128 over the first 400 words, mean of its outputs over time. Metric: accuracy."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rindle.tasks.data import imdb
from rindle.tasks.train import Settings, beside, shuffled

BATCH = 64
RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU}
METRIC = "accuracy"


class Sentiment(nn.Module):
    def __init__(self, kind: str, words: int = 20_000, units: int = 128, dropout: float = 0.5):
        super().__init__()
        self.embedding = nn.Embedding(words, units, padding_idx=imdb.PAD)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.rnn = RECURRENT[kind](units, units, batch_first=True)
        self.output = nn.Linear(units, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words, lengths):
        """words (batch, time), padded at the end → logits (batch), above 0 for positive."""
        hidden, _ = self.rnn(self.dropout(self.embedding(words)))
        real = torch.arange(words.shape[1], device=words.device) < lengths[:, None]
        mean = (hidden * real[..., None]).sum(1) / lengths[:, None]
        return self.output(self.dropout(mean)).squeeze(1)


def model(kind: str) -> nn.Module:
    return Sentiment(kind, dropout={"lstm": 0.4, "gru": 0.5}[kind])


def settings(kind: str) -> Settings:
    return Settings(epochs={"lstm": 5, "gru": 3}[kind], lr=2e-3, schedule="linear", warmup=0.02, weight_decay=1e-2)


class Task:
    def __init__(self, seed: int = 0, quick: bool = False):
        self.data, self.seed = imdb.load(), seed
        if quick:
            few = {part: tuple(rows[::60] for rows in getattr(self.data, part)) for part in ("train", "valid", "test")}
            self.data = self.data._replace(**few)

    def plan(self, epoch: int) -> list[np.ndarray]:
        reviews, _ = self.data.train
        return shuffled(len(reviews), BATCH, self.seed, epoch, lengths=list(map(len, reviews)))

    def loss(self, model, rows, share, carry):
        words, lengths, positive = beside(model, *batch(self.data.train, share(rows)))
        loss = F.binary_cross_entropy_with_logits(model(words, lengths), positive, reduction="sum")
        return loss, len(positive), None

    def score(self, model) -> dict[str, float]:
        return {"valid_error": 1 - self.evaluate(model, "valid")["accuracy"]}

    def evaluate(self, model, part: str) -> dict[str, float]:
        data = getattr(self.data, part)
        order = np.argsort([len(review) for review in data[0]], kind="stable")
        right = 0
        for i in range(0, len(order), 200):
            words, lengths, positive = beside(model, *batch(data, order[i : i + 200]))
            right += ((model(words, lengths) > 0) == (positive > 0.5)).sum().item()
        return {"accuracy": right / len(order)}


def batch(data, rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    reviews, positive = data
    chosen = [torch.from_numpy(reviews[row].astype(np.int64)) for row in rows]
    lengths = torch.tensor([len(review) for review in chosen])
    return nn.utils.rnn.pad_sequence(chosen, batch_first=True), lengths, torch.from_numpy(positive[rows]).float()
