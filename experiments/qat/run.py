"""What training under quantization recovers, what it costs, and dynamic quantization beside torch's. README.md has the numbers.

    python experiments/qat/run.py [--quick] [--seeds 3] [--output results.json]

Japanese Vowels (see rindle.tasks.demo.vowels): a network is trained in float, then quantized after training, or trained on for some
epochs under quantization. Everything reported is of the converted integers in the C++ runtime. Settings
were chosen on validation utterances; the test chooses nothing.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import rindle
from rindle.files import write_file
from rindle.tasks.demo import vowels

KEPT = {"fc/weight.*": "int8 max", "fc/code.*": "int8 max"}  # the read-out stays at 8 bits
ELEMENTWISE = {"*": "fixed16 max(1.25)"}
SCHEMES = {  # of the recurrent layer: weights, and the codes that they multiply
    "w2a8, max": ELEMENTWISE | {"weight.*": "int2 max", "code.*": "int8 mmse"},
    "w2a8, mmse": ELEMENTWISE | {"weight.*": "int2 mmse", "code.*": "int8 mmse"},
    "w2a2, mmse": ELEMENTWISE | {"weight.*": "int2 mmse", "code.*": "int2 mmse"},
}


def fit(model: nn.Module, data, epochs: int, rate: float, seed: int, limit: float = 1.0) -> nn.Module:
    """Trains on with a falling rate; frames are perturbed as in the float training."""
    torch.manual_seed(seed)
    batches = list(data.same_length())
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    model.train()
    for _ in range(epochs):
        for i in torch.randperm(len(batches)):
            x, speakers = batches[i]
            loss = nn.functional.cross_entropy(model(x + 0.3 * torch.randn_like(x)), speakers)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            schedule.step()
    return model.eval()


def scores_of(model, data) -> np.ndarray:
    """[N, 9], each utterance alone: of a torch module, or of the runtime."""
    if isinstance(model, rindle.Model):
        return model.run(data.x, data.lengths)
    return vowels.float_scores(model, data)


def quality(model, parts) -> dict[str, list[float]]:
    """Of each part: accuracy, and cross-entropy in nats."""
    scores = [scores_of(model, part) for part in parts]
    losses = [nn.functional.cross_entropy(torch.tensor(s), torch.tensor(p.speakers)) for s, p in zip(scores, parts)]
    accuracies = [vowels.accuracy(s, p) for s, p in zip(scores, parts)]
    return {"accuracy": accuracies, "cross-entropy": [float(loss) for loss in losses]}


def low_bits(kind: str, hidden: int, epochs: int, more: int, seeds: int, parts, schemes) -> list[dict]:
    """Accuracy on validation and test of float, after training, and trained under quantization: weights alone, and all."""
    training, *others = parts
    calibration = [x for x, _ in training.same_length()]
    rows = []
    for seed in range(seeds):
        model = vowels.train(kind, hidden, training, epochs, seed)
        rows.append({"seed": seed, "scheme": "float", "how": "", **quality(model, others)})
        for label in schemes:
            made = {"after training": rindle.quantize(model, SCHEMES[label], calibration, KEPT)}
            for name, activations in (("weights in training", False), ("all in training", True)):
                ready = rindle.prepare(model, SCHEMES[label], calibration, KEPT, activations=activations)
                fit(ready, training, more, 2e-3, seed)
                made[name] = rindle.convert(ready, calibration)
            for name, one in made.items():
                rows.append({"seed": seed, "scheme": label, "how": name, **quality(one, others)})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def dynamic(hidden: int, epochs: int, seeds: int, parts) -> list[dict]:
    """quantize_dynamic, ours and torch.ao's: accuracy, decisions that differ from float, largest error of a score."""
    training, *others = parts
    rows = []
    for kind in ("LSTM", "GRU"):
        for seed in range(seeds):
            model = vowels.train(kind, hidden, training, epochs, seed)
            types = {getattr(nn, kind)}
            made = {"float": model}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.ao says that it is deprecated
                made["torch.ao, qint8"] = torch.ao.quantization.quantize_dynamic(model, types, dtype=torch.qint8)
                made["torch.ao, float16"] = torch.ao.quantization.quantize_dynamic(model, types, dtype=torch.float16)
            made["rindle, qint8"] = rindle.quantize_dynamic(model, types, dtype=torch.qint8)
            made["rindle, float16"] = rindle.quantize_dynamic(model, types, dtype=torch.float16)
            wanted = scores_of(model, others[-1])
            for name, one in made.items():
                found = scores_of(one, others[-1])
                row = {"kind": kind, "seed": seed, "how": name, **quality(one, others)}
                row["changed decisions"] = int((found.argmax(1) != wanted.argmax(1)).sum())
                row["error"] = float(np.sqrt(np.square(found - wanted).mean()))
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def cost(repeats: int) -> list[dict]:
    """Time of a training step (forward, backward, update) against float, in turns; the median of the ratios."""
    rows = []
    for kind, hidden, frames, rows_of in (
        ("GRU", 128, 20, 32),
        ("LSTM", 128, 20, 32),
        ("GRU", 256, 100, 64),
        ("LSTM", 256, 100, 64),
    ):
        torch.manual_seed(0)
        model, x = getattr(nn, kind)(40, hidden, batch_first=True), torch.randn(rows_of, frames, 40)
        forms = {
            "float": model,
            "weights": rindle.prepare(model, "int8", activations=False),
            "all": rindle.prepare(model, "int8", x),
        }
        times = {name: [] for name in forms}
        optimizers = {name: torch.optim.AdamW(form.parameters(), 1e-4) for name, form in forms.items()}
        for turn in range(repeats + 1):
            for name, form in forms.items():
                start = time.perf_counter()
                optimizers[name].zero_grad()
                form(x)[0].square().mean().backward()
                optimizers[name].step()
                if turn:  # the first one warms up
                    times[name].append(time.perf_counter() - start)
        base = np.array(times["float"])
        row = {
            "kind": kind,
            "hidden": hidden,
            "frames": frames,
            "rows": rows_of,
            "float ms": float(np.median(base) * 1e3),
        }
        row |= {name: float(np.median(np.array(times[name]) / base)) for name in ("weights", "all")}
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few epochs, one seed, two bits: a minute")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="results as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = vowels.load()
    if options.quick:
        epochs, more, seeds, repeats, schemes = 12, 4, 1, 2, ["w2a8, max"]
    else:
        epochs, more, seeds, repeats, schemes = 40, 8, options.seeds, 5, list(SCHEMES)
    found = {
        "low bits": low_bits("GRU", 32, epochs, more, seeds, parts, schemes),
        "dynamic": dynamic(64, epochs, seeds, parts),
        "cost": cost(repeats),
    }
    if options.output:
        write_file(options.output, json.dumps(found, indent=1).encode())
    else:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
