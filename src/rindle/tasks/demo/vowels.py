"""The main job on real data: train, quantize, make sparse in time, save, run in the C++ runtime. `make demo` and `rindle demo` run it.

Task: who of nine speakers said a Japanese vowel? 640 utterances of 7 to 29 frames, 12 LPC cepstrum coefficients each
(Kudo, Toyama & Shimbo 1999; UCI "Japanese Vowels"; carried by sktime). 270 utterances are for training, of which
the last 6 of each speaker choose the thresholds, and 370 for the test, which chooses nothing.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from torch import nn

import rindle
from rindle.file.dataset import dataset
from rindle.search.choose_thresholds import choose_thresholds

SPEAKERS, FEATURES, HELD_OUT = 9, 12, 6
BUDGET = 1.0  # of a hundred decisions, how many may change, and points of their probability: see rindle.delta
console = Console()


class SpeakerNet(nn.Module):
    """[B, T, 12] cepstra -> [B, 9] scores, from the last frame."""

    def __init__(self, kind: str, hidden: int):
        super().__init__()
        self.rnn = getattr(nn, kind)(FEATURES, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, SPEAKERS)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.fc(y[:, -1])


class Utterances:
    """Sequences of unequal length: x float32 [N, T, 12], zero past each length; lengths [N]; speakers [N]."""

    def __init__(self, sequences: list[np.ndarray], speakers: np.ndarray):
        self.lengths = np.array([len(sequence) for sequence in sequences])
        self.x = np.zeros((len(sequences), self.lengths.max(), FEATURES), np.float32)
        for row, sequence in zip(self.x, sequences):
            row[: len(sequence)] = sequence
        self.speakers = speakers

    def same_length(self):
        """Batches of equal length, which need no padding: (x [B, T, 12], speakers [B]) tensors."""
        for length in np.unique(self.lengths):
            rows = self.lengths == length
            yield torch.from_numpy(self.x[rows, :length]), torch.from_numpy(self.speakers[rows])


def load() -> tuple[Utterances, Utterances, Utterances]:
    """Training, validation, test; normalized by the training utterances' mean and deviation."""
    from sktime.datasets import load_japanese_vowels

    def read(split: str):
        frames, labels = load_japanese_vowels(split=split, return_type="nested_univ")
        columns = [frames.iloc[:, k].to_numpy() for k in range(FEATURES)]
        sequences = [np.stack([c[i].to_numpy() for c in columns], axis=1) for i in range(len(labels))]
        return sequences, labels.astype(int) - 1

    (train, speakers), (test, test_speakers) = read("train"), read("test")
    held_out = np.concatenate([np.flatnonzero(speakers == speaker)[-HELD_OUT:] for speaker in range(SPEAKERS)])
    kept = np.setdiff1d(np.arange(len(train)), held_out)
    seen = np.concatenate([train[i] for i in kept])
    mean, deviation = seen.mean(0), seen.std(0)

    def split(sequences, labels, rows):
        return Utterances([(sequences[i] - mean) / deviation for i in rows], labels[rows])

    everything = np.arange(len(test))
    return split(train, speakers, kept), split(train, speakers, held_out), split(test, test_speakers, everything)


def train(kind: str, hidden: int, data: Utterances, epochs: int, seed: int = 0) -> SpeakerNet:
    torch.manual_seed(seed)
    model, batches = SpeakerNet(kind, hidden), list(data.same_length())
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * len(batches))
    for _ in track(range(epochs), f"training {kind}", console=console, disable=not console.is_terminal):
        for i in torch.randperm(len(batches)):
            x, speakers = batches[i]
            loss = nn.functional.cross_entropy(model(x + 0.3 * torch.randn_like(x)), speakers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(scores: np.ndarray, data: Utterances) -> float:
    return float((scores.argmax(1) == data.speakers).mean())


def float_scores(model: SpeakerNet, data: Utterances) -> np.ndarray:
    with torch.inference_mode():
        rows = [model(torch.from_numpy(x[None, :length])) for x, length in zip(data.x, data.lengths)]
    return torch.cat(rows).numpy()


def sparse_of(model: rindle.Model, data: Utterances) -> rindle.Model:
    """With the θ of x and h that eliminate the most for at most BUDGET, on validation data. Labels are not asked: 54 utterances
    cannot tell a gain from chance, so a change for the better counts as one for the worse.
    """
    return choose_thresholds(model, dataset(data.x, data.lengths), BUDGET).model


def microseconds(*steps, slices: int = 15, calls: int = 200) -> list[float]:
    """Median time of each call, measured in turns, so that the machine's drift meets all of them."""
    times = np.empty((slices, len(steps)))
    for one in times:
        for k, step in enumerate(steps):
            start = time.perf_counter()
            for _ in range(calls):
                step()
            one[k] = (time.perf_counter() - start) / calls * 1e6
    return np.median(times, axis=0).tolist()


def torch_steps(model: SpeakerNet, frame: np.ndarray):
    """One frame in torch float, both ways that torch has: the cell alone, and nn.LSTM or nn.GRU with T = 1.

    oneDNN repacks the weights of the latter at every call, so it is switched off: torch at its best.
    """
    rnn = model.rnn
    cell = getattr(nn, f"{type(rnn).__name__}Cell")(FEATURES, rnn.hidden_size)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in rnn.state_dict().items()})
    x = torch.from_numpy(frame)
    zero = torch.zeros(1, rnn.hidden_size)
    state = (zero, zero) if isinstance(rnn, nn.LSTM) else zero
    states = {"cell": state, "rnn": tuple(s[None] for s in state) if isinstance(state, tuple) else state[None]}

    def step_cell():
        states["cell"] = h = cell(x[None], states["cell"])
        return model.fc(h[0] if isinstance(h, tuple) else h)

    def step_rnn():
        with torch.backends.mkldnn.flags(enabled=False):
            y, states["rnn"] = rnn(x[None, None], states["rnn"])
        return model.fc(y[:, -1])

    return step_cell, step_rnn


def stepper(model: rindle.Model, data: Utterances):
    """Streams the validation utterances frame by frame, over and over: what a delta network saves depends on its data."""
    frames = np.concatenate([x[:length] for x, length in zip(data.x, data.lengths)])
    stream, out, position = model.stream(), np.empty(SPEAKERS, np.float32), 0

    def step():
        nonlocal position
        stream.step(frames[position], out)
        position = (position + 1) % len(frames)

    return step


def run(output: Path, hidden: int = 128, epochs: int = 60) -> None:
    """Shows the table. Leaves the .rindle files and the float weights in ``output``."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "TF32 acceleration")  # torch mentions it whenever a oneDNN flag is touched
    output.mkdir(parents=True, exist_ok=True)
    started = time.time()
    training, validation, test = load()
    parts = {"training": training, "validation": validation, "test": test}
    for name, data in parts.items():  # for `rindle eval`, `bench`, `report` and `sweep`
        dataset(data.x, data.lengths, data.speakers).save(output / f"{name}.npz")

    table = Table(title=f"Japanese Vowels: {len(test.x)} test utterances, {hidden} hidden units")
    for name in ("model", "θ x, h", "test", "bytes", "eliminated", "µs/step", "speed"):
        table.add_column(name, justify="left" if name == "model" else "right")
    activity = Table("model", "input", "θ", "changed", "at θ = 0", "MACs/frame", "eliminated", title="Activity")
    for kind in ("GRU", "LSTM"):
        model = train(kind, hidden, training, epochs)
        dense = rindle.quantize(model, "int8", [x for x, _ in training.same_length()])
        sparse = sparse_of(dense, validation)
        files = {}
        for name, made in (("int8", dense), ("delta", sparse)):
            files[name] = output / f"{kind.lower()}-{name}.rindle"
            rindle.save(made, files[name])
        save_file(model.state_dict(), output / f"{kind.lower()}.safetensors")
        models = {name: rindle.load(path) for name, path in files.items()}

        with torch.inference_mode():
            *ours, cell, whole = microseconds(
                *(stepper(one, validation) for one in models.values()), *torch_steps(model, validation.x[0, 0])
            )
        best = min(cell, whole)
        size = (output / f"{kind.lower()}.safetensors").stat().st_size
        scores = float_scores(model, test)
        table.add_row(f"{kind} torch float", "", f"{accuracy(scores, test):.1%}", f"{size:,}", "", f"{best:.1f}", "1 ×")
        for (name, one), time_per_step in zip(models.items(), ours):
            seen = one.measure(test.x, test.lengths)
            theta = ", ".join(str(value) for value in one.thresholds.values() if value is not None)
            if theta:
                still = one.with_thresholds({i.name: 0 for i in seen.inputs}).measure(test.x, test.lengths)
                for i, at_zero in zip(seen.inputs, still.inputs):
                    share = f"{seen.eliminated(hidden=i.hidden):.1%}"
                    changed = f"{i.density:.1%}", f"{at_zero.density:.1%}"
                    activity.add_row(kind, i.name, str(i.theta), *changed, f"{i.macs:,}", share)
                activity.add_row(
                    kind, "both", "", "", "", "", f"{seen.eliminated():.1%} (θ = 0: {still.eliminated():.1%})"
                )
            table.add_row(
                f"{kind} {name}",
                theta,
                f"{accuracy(seen.output, test):.1%}",
                f"{files[name].stat().st_size:,}",
                f"{seen.eliminated():.1%}" if theta else "",
                f"{time_per_step:.1f}",
                f"{best / time_per_step:.1f} ×",
            )
        table.add_section()
    console.print(table)
    console.print(activity)
    console.print(
        "test: accuracy. bytes: of the file. eliminated: recurrent multiply-accumulates that no changed input asked for, on the "
        "test utterances. µs/step: one frame through the whole model, batch 1, one thread, median; torch in its faster form.\n"
        f"Files in {output}; `rindle verify FILE` replays their golden vectors. {time.time() - started:.0f} s in all.\n"
        f"All of it on one page: rindle report {output}/*.rindle --data {output}/test.npz"
    )
