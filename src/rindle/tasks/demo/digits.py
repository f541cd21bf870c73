"""Spoken digits of a speaker that the network has never heard: the Free Spoken Digit Dataset, one speaker left out at a time.

Six folds. In each, one speaker is for the test, the next one in the alphabet for validation (the best epoch, the thresholds),
and the other four for training; so what is chosen is chosen on a voice that training has not heard either.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ...engines.files import save
from ...engines.measurement import Measurement
from ...errors import RindleError, needs
from ...file.dataset import Dataset, dataset
from ...files import write_file
from ...measure.evaluate import score
from ...search.choose_thresholds import choose_thresholds, entry, thinned
from ..data import fsdd
from ..data.fsdd import Recording
from .frontend import BINS, RATE, logmel, normalize

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
SPEEDS = (0.8, 0.9, 1.0, 1.1, 1.25)  # pitch, formants and tempo together, as another speaker has them
FLOAT, INT8, DELTA = "float", "int8", "int8, delta"
QUICK = 25  # --quick keeps every 25th recording
CALIBRATION = 240  # training recordings that set the int8 scales


class Utterance:
    """One recording. samples: int16 [n] at 8 kHz. frames: float32 [T, 32], what a model reads, computed when first asked for."""

    def __init__(self, recording: Recording):
        self.digit, self.speaker, self.samples = recording.digit, recording.speaker, recording.samples

    @cached_property
    def frames(self) -> np.ndarray:
        return normalize(logmel(self.samples))

    @cached_property
    def speeds(self) -> list[np.ndarray]:
        """Log-mel frames at each of SPEEDS, for training."""
        with needs("the speech demo", "demo"):
            import soxr
        samples = self.samples.astype(np.float32)
        return [logmel(samples if v == 1 else soxr.resample(samples, RATE * v, RATE)) for v in SPEEDS]


@dataclass(frozen=True)
class Fold:
    """Whom the test hears, whom validation hears, and what the three disjoint sets of speakers said."""

    test_speaker: str
    valid_speaker: str
    train: list[Utterance]
    valid: list[Utterance]
    test: list[Utterance]


def folds(names: tuple[str, ...] = SPEAKERS, step: int = 1) -> dict[str, Fold]:
    """Test speaker -> its fold. step: keeps every step-th recording of every speaker."""
    everyone = [Utterance(one) for part in fsdd.load().values() for one in part]
    spoken = {speaker: [one for one in everyone if one.speaker == speaker][::step] for speaker in SPEAKERS}
    made = {}
    for test in names:
        valid = SPEAKERS[(SPEAKERS.index(test) + 1) % len(SPEAKERS)]
        train = [one for speaker in SPEAKERS if speaker not in (test, valid) for one in spoken[speaker]]
        made[test] = Fold(test, valid, train, spoken[valid], spoken[test])
    return made


def packed(utterances: list[Utterance], name: str) -> Dataset:
    """x float32 [N, T, 32], zero past each length; the digits as labels."""
    lengths = np.array([len(one.frames) for one in utterances], np.int32)
    x = np.zeros((len(utterances), lengths.max(), BINS), np.float32)
    for row, one in zip(x, utterances):
        row[: len(one.frames)] = one.frames
    return dataset(x, lengths, np.array([one.digit for one in utterances]), name)


def evaluate(fold: Fold, net, output: Path, budget: float) -> dict:
    """Quantizes a trained network, chooses its thresholds on the validation speaker, and measures all of it on the test
    speaker. Writes SPEAKER-int8.rindle, SPEAKER-delta.rindle and SPEAKER-test.npz into ``output``. Returns the fold's part of
    the results.

    budget: of a hundred decisions on the validation speaker, how many may change. Labels are not asked there: what one
    speaker gains by chance, another would lose, so a change for the better is held to be as bad as one for the worse.
    """
    from ...nn.quantize import quantize
    from .digits_train import float_scores

    chosen = fold.train[:: max(1, len(fold.train) // CALIBRATION)]
    dense = quantize(net, "int8", calibration=[one.frames[None] for one in chosen])
    valid, test = packed(fold.valid, fold.valid_speaker), packed(fold.test, fold.test_speaker)
    test.save(output / f"{fold.test_speaker}-test.npz")  # for `rindle eval`, `bench` and `report`
    log = output / f"{fold.test_speaker}.search.jsonl"  # a search that was killed goes on from there
    choice = choose_thresholds(dense, dataclasses.replace(valid, y=None), budget, log=log)
    sparse = choice.model
    rows = {FLOAT: {"bytes": 4 * sum(value.numel() for value in net.parameters())}}
    for part, data in (("valid", valid), ("test", test)):
        rows[FLOAT][part] = score(float_scores(net, data), data).value
    for name, model, file in ((INT8, dense, "int8"), (DELTA, sparse, "delta")):
        path = output / f"{fold.test_speaker}-{file}.rindle"
        save(model, path)
        seen = model.measure(test.x, test.lengths)
        rows[name] = {
            "bytes": path.stat().st_size,
            "valid": score(model.run(valid.x, valid.lengths), valid).value,
            "test": score(seen.output, test).value,
        }
        if model is sparse:
            at_zero = sparse.with_thresholds({one.name: 0 for one in seen.inputs}).measure(test.x, test.lengths)
            rows[name] |= {
                "thresholds": choice.found.chosen.thetas,
                "eliminated": shares(seen),
                "eliminated at 0": shares(at_zero),
                "density": {one.name: one.density for one in seen.inputs},
                "density at 0": {one.name: one.density for one in at_zero.inputs},
                "macs per frame": {one.name: one.macs for one in seen.inputs},
                "search on validation": [entry(point) for point in thinned(choice.found, 20)],
            }
    return {
        "test speaker": fold.test_speaker,
        "validation speaker": fold.valid_speaker,
        "recordings": len(test),
        "frames": test.frames,
        "models": rows,
    }


def shares(seen: Measurement) -> dict[str, float]:
    """Share of the recurrent multiply-accumulates that was eliminated: of all, and of each kind of input apart."""
    return {"all": seen.eliminated(), "input": seen.eliminated(hidden=False), "hidden": seen.eliminated(hidden=True)}


def names(text: str) -> tuple[str, ...]:
    """ "all", or test speakers with commas between them."""
    chosen = SPEAKERS if text == "all" else tuple(part.strip() for part in text.split(","))
    for name in chosen:
        if name not in SPEAKERS:
            raise RindleError(f"no speaker {name!r}; there are {', '.join(SPEAKERS)}, or all")
    return chosen


def run(
    speakers: tuple[str, ...],
    output: Path,
    checkpoints: Path | None,
    budget: float,
    seed: int,
    quick: bool,
    notes: Console,
) -> dict:
    """Each fold's network is read from ``checkpoints``, or trained where there is none; then quantized and measured.

    Leaves in ``output``: per fold the weights, the two .rindle files and results.json; training goes on where it stopped.
    Returns the results.
    """
    import torch

    from . import digits_train

    torch.set_num_threads(1)  # small networks lose time to more
    output.mkdir(parents=True, exist_ok=True)
    settings = dataclasses.replace(digits_train.SETTINGS, seed=seed)
    if quick:
        settings = dataclasses.replace(settings, epochs=1)
    notes.print(f"FSDD: {', '.join(speakers)} for the test, one at a time")
    done = []
    for speaker, fold in folds(speakers, QUICK if quick else 1).items():
        file = checkpoints / f"{speaker}.safetensors" if checkpoints else None
        if file is None or not file.exists():
            who = ", ".join(sorted({one.speaker for one in fold.train}))
            notes.print(f"{speaker}: training on {who}; validation: {fold.valid_speaker}", soft_wrap=True)
            folder = output / f"training-{speaker}{'-quick' if quick else ''}-{seed}"
            with redirect_stdout(notes.file):
                net, about = digits_train.train_fold(fold, settings, folder)
            file = output / f"{speaker}.safetensors"
            digits_train.save(net, about, file)
        net, about = digits_train.load(file)  # every number is of the weights in the file, which are rounded to float16
        notes.print(f"{speaker}: quantizing, choosing thresholds on {fold.valid_speaker}, testing", soft_wrap=True)
        done.append(evaluate(fold, net, output, budget) | {"training": about})
    results = {
        "data": "Free Spoken Digit Dataset, leave one speaker out",
        "command": "rindle demo --data fsdd --folds " + ("all" if speakers == SPEAKERS else ",".join(speakers)),
        "date": datetime.date.today().isoformat(),
        "quick": quick,
        "budget": budget,
        "folds": done,
        "summary": summary(done),
    }
    write_file(output / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    return results


def summary(done: list[dict]) -> dict:
    """Mean and standard deviation over the folds of what each of them measured; the losses are in percentage points."""

    def over(value: Callable[[dict], float]) -> dict[str, float | None]:
        values = np.array([value(one["models"]) for one in done])
        return {"mean": float(values.mean()), "deviation": float(values.std(ddof=1)) if len(values) > 1 else None}

    made = {name: {"accuracy": over(lambda m, name=name: m[name]["test"])} for name in (FLOAT, INT8, DELTA)}
    for name in made:
        made[name]["bytes"] = over(lambda m, name=name: m[name]["bytes"])
    made[INT8]["lost"] = over(lambda m: 100 * (m[FLOAT]["test"] - m[INT8]["test"]))
    made[DELTA]["lost"] = over(lambda m: 100 * (m[INT8]["test"] - m[DELTA]["test"]))
    for key in ("eliminated", "eliminated at 0"):
        made[DELTA][key] = {
            kind: over(lambda m, key=key, kind=kind: m[DELTA][key][kind]) for kind in ("all", "input", "hidden")
        }
    return made


def tables(results: dict) -> list:
    """To be printed: a row per fold and model; the means over several folds; the eliminated operations by kind."""
    table = Table("speaker", "model", "θ of x, h", "valid", "test", "bytes", "eliminated")
    for fold in results["folds"]:
        for name, one in fold["models"].items():
            theta = ", ".join(str(value) for value in one.get("thresholds", {}).values())
            saved = f"{one['eliminated']['all']:.1%}" if name == DELTA else ""
            speaker = fold["test speaker"] if name == FLOAT else ""
            table.add_row(speaker, name, theta, f"{one['valid']:.1%}", f"{one['test']:.1%}", f"{one['bytes']:,}", saved)
        table.add_section()

    summary, count = results["summary"], len(results["folds"])
    means = Table("model", "test", "points lost", "bytes", title=f"mean ± standard deviation over {count} folds")
    for name, one in summary.items():
        lost = spread(one["lost"], ".2f") if "lost" in one else ""
        means.add_row(name, spread(one["accuracy"]), lost, f"{one['bytes']['mean']:,.0f}")
    saved = Table(
        "recurrent multiply-accumulates", "eliminated", "at θ = 0", title=f"real frames of {count} test speakers"
    )
    for kind, words in (("all", "all"), ("input", "on x alone"), ("hidden", "on h alone")):
        saved.add_row(words, *(spread(summary[DELTA][key][kind]) for key in ("eliminated", "eliminated at 0")))
    return [table, *([means] if count > 1 else []), saved]


def spread(one: dict, digits: str = ".1%") -> str:
    """Mean ± deviation; of a single fold, the value."""
    return f"{one['mean']:{digits}}" + (f" ± {one['deviation']:{digits}}" if one["deviation"] is not None else "")
