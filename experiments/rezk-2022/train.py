"""Train one of the models and report it: `python experiments/rezk-2022/train.py lstm --size small --threads 1`.

As `experiments/baselines/run.py`: the weights of the best epoch are rounded to float16 and written to `checkpoints/`, the
numbers are those of the rounded weights, `--evaluate` computes them again, `--quick` writes nothing, a killed run goes on.
"""

import argparse
import dataclasses
import datetime
import json
import sys
import tempfile
from pathlib import Path

import models
import safetensors.torch
import task as tasks
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.baselines.run import load as load_file_into
from experiments.baselines.run import report, unique
from rindle.files import write_file
from rindle.tasks.train import Settings, processes, seed_everything, train

HERE = Path(__file__).parent
# pytorch-kaldi's, of the full size: 24 epochs, the rate halved where an epoch improves the score by less than 0.1 %.
RECIPE = {"epochs": 24, "schedule": "constant", "halving": 0.001, "clip": None}
PAPER = {
    "lstm": Settings(lr=0.0016, optimizer="rmsprop", seed=2234, **RECIPE),
    "gru": Settings(lr=0.0004, optimizer="rmsprop", seed=2234, **RECIPE),
    "ligru": Settings(lr=0.0004, optimizer="rmsprop", seed=1234, **RECIPE),
    "sru": Settings(lr=0.001, optimizer="adam", weight_decay=1e-7, seed=3234, **RECIPE),
}
# What trains in about half an hour of one core: fewer epochs, a rate that falls to 0.
SHORT = Settings(epochs=8, lr=3e-3, schedule="cosine", warmup=0.03, weight_decay=1e-2, seed=1, precision="bf16-mixed")
SETTINGS = {
    "paper": PAPER,
    "small": dict.fromkeys(models.CONFIGURATIONS["small"], SHORT),
    "stream": dict.fromkeys(models.CONFIGURATIONS["stream"], dataclasses.replace(SHORT, epochs=2, lr=2e-3)),
}
# Sequences in a batch, and epochs before the longest sequence doubles: short pieces are more steps for the same time.
BATCHES = {"paper": (8, 1), "small": (32, 2), "stream": (64, 2)}


def checkpoint(kind: str, size: str, data: str = "mboshi") -> Path:
    """The committed ones beside this file; those of full size, and of a corpus that is not free, in build/."""
    if size != "paper" and data == "mboshi":
        return HERE / "checkpoints" / f"{size}-{kind}.safetensors"
    return Path("build/rezk-2022/checkpoints") / f"{data}-{size}-{kind}.safetensors"


def load(kind: str, size: str = "small", data: str = "mboshi") -> models.Network:
    """A trained model, in evaluation."""
    corpus = tasks.TASKS[data]
    sizes = {"inputs": corpus.inputs, "outputs": corpus.outputs}
    return load_file_into(models.network(kind, size, **sizes), checkpoint(kind, size, data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=models.PAPER)
    parser.add_argument("--size", choices=models.CONFIGURATIONS, default="small")
    parser.add_argument("--data", choices=tasks.TASKS, default="mboshi")
    parser.add_argument("--evaluate", action="store_true", help="do not train: evaluate the committed checkpoint")
    parser.add_argument("--quick", action="store_true", help="one epoch of a little data, to see that it runs")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--precision", help="Lightning Fabric's name, instead of the recipe's")
    parser.add_argument("--folder", type=Path, help="where an unfinished run is kept (default: build/rezk-2022/…)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.model not in models.CONFIGURATIONS[args.size]:
        parser.error(f"there is no {args.size} {args.model}; there are {', '.join(models.CONFIGURATIONS[args.size])}")

    changes = {"seed": args.seed, "epochs": 1 if args.quick else args.epochs, "precision": args.precision}
    settings = SETTINGS[args.size][args.model]
    settings = dataclasses.replace(settings, **{k: v for k, v in changes.items() if v is not None})
    batch, epochs_per_length = BATCHES[args.size]
    seed_everything(settings.seed)  # the initial weights are the same on every process
    task = tasks.TASKS[args.data](settings.seed, args.quick, epochs_per_length, batch)
    if args.evaluate:
        print(json.dumps(report(load(args.model, args.size, args.data), task), indent=2))
        return
    sizes = {"inputs": task.inputs, "outputs": task.outputs}
    model = models.network(args.model, args.size, **sizes)
    fabric = processes(settings.precision)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path("build/rezk-2022") / f"{args.data}-{args.size}-{args.model}-{settings.seed}"
        folder = Path(scratch) if args.quick else args.folder or kept
        curve = train(model, task, settings, folder, fabric)
    if fabric.global_rank == 0:
        rounded = {name: value.half() if value.is_floating_point() else value for name, value in unique(model).items()}
        model.load_state_dict({name: value.float() for name, value in rounded.items()}, strict=False)
        numbers = report(model.cpu(), task)
        print(json.dumps(numbers, indent=2))
        if not args.quick:
            about = {
                "command": "python experiments/rezk-2022/train.py " + " ".join(sys.argv[1:]),
                "date": datetime.date.today().isoformat(),
                "configuration": dataclasses.asdict(model.about),
                "settings": dataclasses.asdict(settings),
                "batch": batch,
                "epochs_per_length": epochs_per_length,
                "curve": curve,
                **numbers,
            }
            data = safetensors.torch.save(rounded, metadata={"about": json.dumps(about)})
            path = checkpoint(args.model, args.size, args.data)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, data)


if __name__ == "__main__":
    main()
