"""The paper's task on open speech: the phone of every frame, decoded to phones. Metric: phone error rate.

`Mboshi` is the task of `experiments/baselines`: frame scores divided by the phones' priors, Viterbi with a bigram of the
training alignments, silence and repeats dropped. Its test part is the corpus's official dev part and is never searched on;
validation is held out by text. Beside them two fixed small parts: "search", 72 utterances of the validation part (as many
as the paper's), which searches may look at; and "calibration", 72 of the training part.

`Timit` is the same on TIMIT, for those who hold it: 23 log-mel bins, mean and deviation of every speaker taken off, 48 phones
trained and 39 scored, silence among them, as the field does. pytorch-kaldi trains 1936 senones and decodes with Kaldi's graph;
this decodes phones with a bigram. On the sample of 160 utterances it is a check of the path, no benchmark.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from models import Network

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rindle
from experiments.baselines.tasks import mboshi as baseline
from rindle.tasks import decode, metrics
from rindle.tasks.data import mboshi, timit
from rindle.tasks.data.audio import logmel
from rindle.tasks.train import beside, shuffled

BATCH, CALIBRATION, SEARCH = 32, 72, 72
FIRST, LONGEST = 100, 1000  # frames: the curriculum's


def spread(rows: list, count: int) -> list:
    """At even distances; all, where there are fewer."""
    return [rows[k] for k in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


class Mboshi(baseline.Task):
    """parts: "train", "valid", "test", "search", "calibration", each a list of utterances. epochs_per_length: of the curriculum."""

    inputs, outputs, dropped = 40, 28, baseline.SILENCE

    def __init__(self, seed: int = 0, quick: bool = False, epochs_per_length: int = 1, batch: int = BATCH):
        super().__init__(seed, quick)
        self._prepare(epochs_per_length, batch)

    def _prepare(self, epochs_per_length: int, batch: int) -> None:
        self.epochs_per_length, self.batch = epochs_per_length, batch
        self.parts["search"] = spread(self.parts["valid"], SEARCH)
        self.parts["calibration"] = [_whole(one) for one in spread(self.parts["train"], CALIBRATION)]
        self.fold = np.arange(self.outputs)  # what each class is scored as

    # Training

    def limit(self, epoch: int) -> int:
        """Frames of the longest sequence of an epoch: it starts at 100 and doubles, up to 1000."""
        return min(FIRST << min(epoch // self.epochs_per_length, 9), LONGEST)

    def plan(self, epoch: int) -> list[list[tuple[int, int, int]]]:
        """Batches of pieces (utterance, first frame, frame behind the last): longer utterances are cut into equal pieces."""
        pieces = []
        for row, utterance in enumerate(self.parts["train"]):
            length = len(utterance.labels)
            cuts = np.linspace(0, length, -(-length // self.limit(epoch)) + 1).astype(int)
            pieces += [(row, int(start), int(end)) for start, end in pairwise(cuts)]
        lengths = [end - start for _, start, end in pieces]
        return [[pieces[k] for k in one] for one in shuffled(len(pieces), self.batch, self.seed, epoch, lengths)]

    def loss(self, model, pieces, share, carry):
        train = self.parts["train"]
        return self.cost(model, [_cut(train[row], start, end) for row, start, end in pieces], share)

    def score(self, model) -> dict[str, float]:
        """Frame error on every fourth validation utterance."""
        wrong, frames = 0, 0
        for scores, true in self.posteriors(model, self.parts["valid"][::4]):
            wrong, frames = wrong + (scores.argmax(1) != true).sum(), frames + len(true)
        return {"valid_frame_error": float(wrong / frames)}

    # Evaluation, of a torch module or of a rindle.Model

    def calibration(self) -> list[np.ndarray]:
        """The calibration part's sequences, each float32 [1, T, inputs]."""
        return [self.features(utterance)[None] for utterance in self.parts["calibration"]]

    def features(self, utterance) -> np.ndarray:
        """float32 [T, inputs]."""
        return self.data.features(utterance).astype(np.float32)

    def scores(self, model, part) -> list[np.ndarray]:
        """The model's output for each utterance, [T, outputs]. part: a part's name, or utterances."""
        rows = [self.features(u) for u in (self.parts[part] if isinstance(part, str) else part)]
        if hasattr(model, "sequences"):  # a simulation that has its own way with rows of unequal length
            return model.sequences(rows)
        found: list = [None] * len(rows)
        order = np.argsort([len(row) for row in rows], kind="stable")
        for batch in (order[k : k + 32] for k in range(0, len(order), 32)):
            lengths = np.array([len(rows[k]) for k in batch])
            frames = np.zeros((len(batch), lengths.max(), self.inputs), np.float32)
            for row, k in zip(frames, batch):
                row[: len(rows[k])] = rows[k]
            for y, k in zip(_run(model, frames, lengths), batch):
                found[k] = y[: len(rows[k])]
        return found

    def posteriors(self, model, part):
        """Of each utterance: log posteriors and labels of the frames inside the alignment."""
        utterances = self.parts[part] if isinstance(part, str) else part
        for scores, utterance in zip(self.scores(model, utterances), utterances):
            inside = utterance.labels != mboshi.UNLABELLED
            scores = torch.from_numpy(scores).double().log_softmax(-1).numpy()
            yield scores[inside], utterance.labels[inside].astype(np.int64)

    def edits(self, model, part="test") -> metrics.Edits:
        """Of every utterance: phone errors and phones. Their `rate` is the phone error rate; for `paired_bootstrap`, too."""
        return self._edits(self.posteriors(model, part))

    def _edits(self, posteriors) -> metrics.Edits:
        found, true = [], []
        for scores, labels in posteriors:
            path = decode.viterbi(scores - self.priors, *self.bigram, weight=1.0, penalty=1.0)
            found.append(self._phones(path))
            true.append(self._phones(labels))
        return metrics.edits(found, true)

    def _phones(self, labels) -> list[int]:
        return decode.merge(self.fold[labels].tolist(), drop=self.dropped)

    def evaluate(self, model, part: str) -> dict[str, float]:
        edits, wrong = self.measured(model, part)
        return {"per": edits.rate, "frame_error": wrong}

    def measured(self, model, part) -> tuple[metrics.Edits, float]:
        """Of one run: the phone errors of every utterance, and the frame error."""
        posteriors = list(self.posteriors(model, part))
        wrong = np.concatenate([self.fold[scores.argmax(1)] != self.fold[true] for scores, true in posteriors])
        return self._edits(posteriors), float(wrong.mean())


def _whole(utterance):
    """Cut to whole hundreds of frames: few lengths, each of which calibration checks against the module."""
    frames = len(utterance.labels)
    return _cut(utterance, 0, frames - frames % 100 if frames > 100 else frames)


def _cut(utterance, start: int, end: int):
    return utterance._replace(codes=utterance.codes[start:end], labels=utterance.labels[start:end])


@torch.no_grad()
def _run(model, frames: np.ndarray, lengths: np.ndarray):
    """Rows of frames [B, T, inputs], each alone in effect, to scores [T, outputs] and more behind a row's end."""
    if isinstance(model, rindle.Model):
        return model.run(frames, lengths)
    if isinstance(getattr(model, "module", model), Network):
        (x,) = beside(model, torch.from_numpy(frames).transpose(0, 1))
        return model(x, torch.from_numpy(lengths)).transpose(0, 1).float().cpu().numpy()
    rows = (torch.from_numpy(row[:length, None]) for row, length in zip(frames, lengths))
    return [model(*beside(model, row))[:, 0].float().cpu().numpy() for row in rows]


class Timit(Mboshi):
    """folder: the corpus, or the sample; None for where `rindle.tasks.data.timit` finds one."""

    inputs, outputs, dropped = 23, len(timit.PHONES_48), None

    def __init__(self, seed: int = 0, quick: bool = False, epochs_per_length: int = 1, batch: int = BATCH, folder=None):
        self.seed, self.data = seed, _Features()
        parts = {part: rows[:: 8 if quick else 1] for part, rows in timit.load(folder).items()}
        self.parts = {part: _utterances(rows) for part, rows in parts.items()}
        self.count(self.outputs)
        self._prepare(epochs_per_length, batch)
        self.fold = np.array([timit.PHONES_39.index(timit.TO_39.get(phone, phone)) for phone in timit.PHONES_48])


class _Features:
    """Utterances that hold their features hold them ready to use."""

    @staticmethod
    def features(utterance) -> np.ndarray:
        return utterance.codes


def _utterances(rows: list[timit.Utterance]) -> list[mboshi.Utterance]:
    """codes: the features, float32 [T, 23]; per speaker each has the mean 0 and the deviation 1."""
    frames = [logmel(row.samples(), timit.RATE, Timit.inputs) for row in rows]
    of_speaker: dict[str, list[np.ndarray]] = {}
    for row, one in zip(rows, frames):
        of_speaker.setdefault(row.speaker, []).append(one)
    statistics = {
        name: (np.concatenate(all_).mean(0), np.concatenate(all_).std(0)) for name, all_ in of_speaker.items()
    }
    found = []
    for row, one in zip(rows, frames):
        mean, deviation = statistics[row.speaker]
        labels = timit.frame_labels(row.phones(), len(one), timit.PHONES_48)
        labels = np.where(labels < 0, mboshi.UNLABELLED, labels).astype(np.uint8)
        name = f"{row.speaker}-{row.sentence}"
        found.append(mboshi.Utterance(name, row.speaker, row.text(), (one - mean) / deviation, labels))
    return found


TASKS = {"mboshi": Mboshi, "timit": Timit}
