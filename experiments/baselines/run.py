"""Train a float baseline and report it: `python experiments/baselines/run.py TASK [--model lstm|gru]`.

The weights of the best validation epoch are rounded to float16 and written to `checkpoints/TASK-MODEL.safetensors`,
and the numbers reported are those of the rounded weights. `--evaluate` reads that file and computes them again.
With `--quick` a few minutes' work becomes a few seconds' and nothing is written. Killed runs go on where they were.
"""

import argparse
import dataclasses
import datetime
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, safe_open, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.baselines import tasks
from rindle.tasks.train import processes, seed_everything, train

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tasks.TASKS)
    parser.add_argument("--model", default="lstm", help="kind of recurrent layer (default: lstm)")
    parser.add_argument("--evaluate", action="store_true", help="do not train: evaluate the committed checkpoint")
    parser.add_argument("--quick", action="store_true", help="one epoch of a little data, to see that it runs")
    parser.add_argument("--epochs", type=int, help="instead of the task's own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--precision", help="Lightning Fabric's name, instead of the task's own")
    parser.add_argument("--folder", type=Path, help="where an unfinished run is kept (default: build/baselines/…)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    module = tasks.load(args.task)
    file = HERE / "checkpoints" / f"{args.task}-{args.model}.safetensors"
    seed_everything(args.seed)  # the initial weights are the same on every process
    model = module.model(args.model)
    task = module.Task(seed=args.seed, quick=args.quick)
    if args.evaluate:
        print(json.dumps(report(load(model, file), task), indent=2))
        return

    changes = {"seed": args.seed, "epochs": 1 if args.quick else args.epochs, "precision": args.precision}
    settings = dataclasses.replace(module.settings(args.model), **{k: v for k, v in changes.items() if v is not None})
    fabric = processes(settings.precision)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path("build/baselines") / f"{args.task}-{args.model}-{args.seed}"
        folder = Path(scratch) if args.quick else args.folder or kept
        curve = train(model, task, settings, folder, fabric)
    if fabric.global_rank == 0:
        rounded = {name: value.half() if value.is_floating_point() else value for name, value in unique(model).items()}
        model.load_state_dict({name: value.float() for name, value in rounded.items()}, strict=False)
        numbers = report(model.cpu(), task)
        print(json.dumps(numbers, indent=2))
        if not args.quick:
            about = {
                "command": "python experiments/baselines/run.py " + " ".join(sys.argv[1:]),
                "date": datetime.date.today().isoformat(),
                "settings": dataclasses.asdict(settings),
                "curve": curve,
                **numbers,
            }
            file.parent.mkdir(exist_ok=True)
            save_file(rounded, file, metadata={"about": json.dumps(about)})


def unique(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state, a tied weight once, under its first name."""
    seen, state = set(), {}
    for name, value in model.state_dict().items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            state[name] = value.contiguous()
    return state


def load(model: torch.nn.Module, file: Path) -> torch.nn.Module:
    """A committed checkpoint into a model of its kind."""
    state = {name: value.float() if value.dtype == torch.float16 else value for name, value in load_file(file).items()}
    wanted = set(unique(model))
    if set(state) != wanted:
        raise ValueError(f"{file} holds {sorted(state)}, the model has {sorted(wanted)}")
    model.load_state_dict(state, strict=False)
    return model.eval()


def about(file: Path) -> dict:
    """What is written beside the weights: command, date, settings, learning curve, numbers."""
    with safe_open(file, "pt") as stream:
        return json.loads(stream.metadata()["about"])


@torch.no_grad()
def report(model: torch.nn.Module, task) -> dict:
    model.eval()
    return {
        "parameters": sum(value.numel() for value in model.parameters()),
        "valid": task.evaluate(model, "valid"),
        "test": task.evaluate(model, "test"),
    }


if __name__ == "__main__":
    main()
