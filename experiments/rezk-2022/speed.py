"""Whether eliminated operations show as time: two layers of 550 in one direction, frame by frame, in the C++ runtime.

    python experiments/rezk-2022/speed.py lstm [gru] [--budget 0.5] [--output speed-lstm.json]

The committed `stream` models are quantized (int8, calibrated on training utterances). The thresholds are chosen on the search part under a
budget in points of frame accuracy (`rindle.delta`). Then each model is measured once on test, and timed on test frames against its own
dense kernels, in turns in one run on one core; and, with θ = 0, on noise in which everything changes: what holding costs
where nothing can be skipped. The output layer, 0.4 % (LSTM) of the products, is part of every time.
"""

import argparse
import json
import sys
from pathlib import Path

import models
import numpy as np
import task as tasks
import torch
import train

import rindle
from rindle.file.dataset import NO_LABEL, dataset
from rindle.files import write_file
from rindle.measure.bench import DENSE, OURS, bench
from rindle.search.choose_thresholds import choose_thresholds
from rindle.tasks import metrics
from rindle.tasks.data import mboshi

FRAMES = 2_000  # test frames that the timed steps walk through
SLICE = 0.05  # s: about a thousand steps, so that a slice sees busy frames and quiet ones


def search_part(task, rows: int | None):
    """The search utterances as one Dataset, with a label per frame."""
    utterances = task.parts["search"][:rows]
    lengths = np.array([len(u.labels) for u in utterances], np.int32)
    x = np.zeros((len(utterances), lengths.max(), task.inputs), np.float32)
    y = np.full(x.shape[:2], NO_LABEL, np.int64)
    for row, labels, utterance in zip(x, y, utterances):
        n = len(utterance.labels)
        row[:n] = task.features(utterance)
        labels[:n] = np.where(utterance.labels == mboshi.UNLABELLED, NO_LABEL, utterance.labels.astype(np.int64))
    return dataset(x, lengths, y, name="the search part")


def test_frames(task) -> np.ndarray:
    rows, count = [], 0
    for utterance in task.parts["test"]:
        rows.append(task.features(utterance))
        count += len(rows[-1])
        if count >= FRAMES:
            break
    return np.concatenate(rows)[:FRAMES]


def step_times(model: rindle.Model, inputs=None) -> dict[str, float]:
    """µs per step, the median of slices in turns: held, and dense; and their ratio."""
    found = bench(model, inputs=inputs, source="test frames", sequences=False, seconds=SLICE, slices=31)
    held, dense = (found.step.best(kind).median for kind in (OURS, DENSE))
    return {"held": held, "dense": dense, "dense over held": dense / held}


def eliminated(model: rindle.Model, task) -> float:
    """Share of the recurrent multiply-accumulates, over 72 test utterances."""
    found = [model.measure(task.features(utterance)[None]) for utterance in tasks.spread(task.parts["test"], 72)]
    return float(np.mean([one.eliminated() for one in found]))


def study(kind: str, budget: float, task, output: Path | None, quick: bool) -> dict:
    network = models.network(kind, "stream", units=64).eval() if quick else train.load(kind, "stream")
    time_first = [x.transpose(1, 0, 2) for x in task.calibration()]
    model = rindle.quantize(models.deploy(network), "int8", time_first)
    data = search_part(task, 2 if quick else None)
    log = output.with_name(f"{output.stem}-{kind}.search.jsonl") if output else None

    def seen(point, number):
        one = point.evaluation
        print(f"{kind}: {number} evaluated; {one.eliminated:.1%} eliminated costs {one.error:.2f}", file=sys.stderr)

    chosen = choose_thresholds(model, data, budget, log=log, seen=seen)
    held = chosen.model
    forms = {"float": network, "int8": model, "int8 and delta": held}
    rows_of = {name: np.stack(task.edits(form, "test"), 1) for name, form in forms.items()}
    everything = model.with_thresholds(dict.fromkeys(held.thresholds, 0))
    return {
        "model": kind,
        "budget": budget,
        "thresholds": held.thresholds,
        "evaluations": len(chosen.found.points),
        "test phone errors": {name: metrics.rate_of(rows) for name, rows in rows_of.items()},
        "increase over float": {
            name: list(metrics.paired_bootstrap(rows_of["float"], rows, metrics.rate_of, draws=2000))
            for name, rows in rows_of.items()
            if name != "float"
        },
        "eliminated": eliminated(held, task),
        "eliminated at θ = 0": eliminated(everything, task),
        "µs per step, test frames": step_times(held, test_frames(task)),
        "µs per step, nothing skipped": step_times(everything),
        "kernel": model.kernel,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="lstm, gru (default: both)")
    parser.add_argument("--budget", type=float, default=0.5, help="points of frame accuracy on the search part")
    parser.add_argument("--quick", action="store_true", help="untrained, two utterances: to see that it runs")
    parser.add_argument("--output", type=Path, help="results as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = tasks.Mboshi(quick=options.quick)
    found = []
    for kind in options.models or ("lstm", "gru"):
        found.append(study(kind, options.budget, task, options.output, options.quick))
        print(json.dumps(found[-1]), flush=True)
        if options.output:
            write_file(options.output, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
