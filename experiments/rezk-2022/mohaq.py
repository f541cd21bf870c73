"""Mixed precision search (MOHAQ, arXiv 2108.01192) on the small models: `rindle search` with this file's factories.

    python experiments/rezk-2022/mohaq.py sru silago --budget 180 [--beacons] [--workers 2] [--ray auto]
    python experiments/rezk-2022/mohaq.py --table

Bits of 2, 4, 8 and 16 for the weights and the codes of every layer and source. The paper's three experiments, and two of ours:

    size        frame error, bytes of the weights
    silago      frame error, SiLago's speedup and energy; weights and codes of one width, 4, 8 or 16
    bitfusion   frame error, Bitfusion's speedup, with weights of at most 9.4 % of the float ones (the paper's 2 of 21.2 MB)
    ours        frame error, bytes of the weights, the operations that thresholds leave
    time        frame error, this machine's runtime; not for a busy one

Errors are those of the search part. A candidate counts with at most `--worse` points above float. Of the front, the candidate that is best
in the second objective within each of BUDGETS points of float is measured on test, once, in phone errors. With --beacons, candidates of the
region between are retrained: `retrain` trains the deployed form under fake quantization on pieces of training utterances.

`--sampling mohaq` has the published population and operators. A killed search goes on; the same command started twice shares the work.
What was found goes into mohaq.json and mohaq.md beside this file, under the model and the experiment.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import models
import numpy as np
import task as tasks
import torch
import train
from finetune import Settings, draw
from safetensors.numpy import load_file
from speed import search_part

import rindle
from rindle.files import write_file
from rindle.nn.variants.candidates import load_arrays
from rindle.search.objectives import thetas_of
from rindle.tasks import metrics
from rindle.tasks.data import mboshi

KINDS = ("lstm", "gru", "ligru", "sru")
STEPS, PIECES, FRAMES = 60, 16, 100  # of retraining
BUDGETS = (0.5, 1.0, 2.0)  # points of frame error above float, of what is tested
EXPERIMENTS = {  # objectives, and more arguments
    "size": (("error", "weight bytes"), ()),
    "silago": (("error", "silago speedup", "silago energy"), ("--tied", "--weight-bits", "4,8,16")),
    "bitfusion": (("error", "bitfusion speedup"), ()),
    "ours": (("error", "weight bytes", "operations"), ("--theta", "0,0.0625,0.125")),
    "time": (("error", "time"), ()),
}
MEMORY = 2 / 21.2  # of the float weights, that Bitfusion has room for
HERE = Path(__file__).parent


def network(kind: str) -> torch.nn.Module:
    """What `rindle search` calls: the trained model with its batch norm folded."""
    return models.deploy(train.load(kind))


def retrain(kind: str, overrides: dict[str, str]) -> dict[str, torch.Tensor]:
    """A short training under the candidate's quantization: parameters by name. Seed 0."""
    torch.manual_seed(0)
    task, random = tasks.Mboshi(), np.random.default_rng(0)
    pieces = Settings(pieces=PIECES, frames=FRAMES)
    prepared = rindle.prepare(network(kind), "int8", [x.transpose(1, 0, 2) for x in task.calibration()[:8]], overrides)
    optimizer = torch.optim.AdamW(prepared.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    prepared.train()
    for step in range(STEPS):
        x, y = draw(task, random, pieces)
        scores = prepared(x)
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten(), ignore_index=mboshi.UNLABELLED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(prepared.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            print(f"  beacon: step {step}, loss {loss.item():.3f}", file=sys.stderr, flush=True)
    return rindle.nn.float_state_dict(prepared)


# By name for `rindle search`: mohaq:lstm, mohaq:retrain_lstm.
lstm, gru, ligru, sru = (functools.partial(network, kind) for kind in KINDS)
retrain_lstm, retrain_gru, retrain_ligru, retrain_sru = (functools.partial(retrain, kind) for kind in KINDS)


def data_files(task, folder: Path) -> tuple[Path, Path]:
    """The calibration and the search part, as the verbs read them."""
    rows = [one[0] for one in task.calibration()]
    x = np.zeros((len(rows), max(map(len, rows)), task.inputs), np.float32)
    for row, frames in zip(x, rows):
        row[: len(frames)] = frames
    search = search_part(task, None)
    paths = folder / "calibration.npz", folder / "search.npz"
    np.savez(paths[0], x=x, lengths=np.array([len(row) for row in rows]))
    np.savez(paths[1], x=search.x, lengths=search.lengths, y=search.y)
    return paths


def best_of(found: dict, points: float) -> dict | None:
    """Of the front, the candidate within so many points of float that is best in the second objective; None if there is none."""
    name, direction = (found["objectives"][1][key] for key in ("name", "direction"))
    limit = 100 * (1 - found["float"]["value"]) + points
    inside = [r for r in found["records"] if r["number"] in found["front"] and r["more"]["error"] <= limit]
    sign = 1 if direction == "minimize" else -1
    return min(inside, key=lambda record: (sign * record["values"][name], record["more"]["error"]), default=None)


def tested(kind: str, found: dict, task, folder: Path) -> list[dict]:
    """What the budgets choose, on test."""
    rows, by_number = [], {}
    exact = np.stack(task.edits(train.load(kind), "test"), 1)
    for points in BUDGETS:
        best = best_of(found, points)
        if best is None:
            rows.append({"budget": points, "chosen": None})
            continue
        if best["number"] not in by_number:
            model = made(kind, best, task, folder)
            errors = np.stack(task.edits(model, "test"), 1)
            change = metrics.paired_bootstrap(exact, errors, metrics.rate_of, draws=2000)
            by_number[best["number"]] = {
                "chosen": best["number"],
                "values": best["values"],
                "retrained": retrained(best),
                "bytes": len(model.data),
                "overrides": best["overrides"],
                "thresholds": best["thresholds"],
                "test": metrics.rate_of(errors),
                "increase": [100 * value for value in change],
            }
        rows.append({"budget": points, **by_number[best["number"]]})
    return rows


def retrained(record: dict) -> bool:
    """Whether a beacon's parameters are the better ones."""
    return record["more"].get("with beacon", np.inf) < record["more"].get("after training", -np.inf)


def made(kind: str, record: dict, task, folder: Path) -> rindle.Model:
    """The model of a candidate, with its beacon's parameters where they are better."""
    module = network(kind)
    if retrained(record):
        load_arrays(module, load_file(folder / "beacons" / record["more"]["beacon"]))
    calibration = [x.transpose(1, 0, 2) for x in task.calibration()]
    model = rindle.quantize(module, "int8", calibration, record["overrides"])
    return model.with_thresholds(thetas_of(model.artifact, record["thresholds"]))


def markdown(results: dict) -> str:
    lines = [
        "| model | experiment | candidates | budget, points | error of the search part | speedup, energy, bytes or operations "
        "| retrained | test, phone errors above float, points (95 %) | bytes of the file |",
        "|" + "---|" * 9,
    ]
    for kind, experiments in results.items():
        for name, one in experiments.items():
            for row in one["tested"]:
                head = f"| {kind} | {name} | {one['candidates']} | {row['budget']:g} "
                if row["chosen"] is None:
                    lines.append(head + "| none within | | | | |")
                    continue
                shown = ", ".join(f"{what} {value:,.4g}" for what, value in row["values"].items() if what != "error")
                mean, low, high = row["increase"][:3]
                lines.append(
                    f"{head}| {row['values']['error']:.2f} (float {one['float']:.2f}) | {shown} | {'yes' if row['retrained'] else ''} "
                    f"| {mean:+.2f} ({low:+.2f} … {high:+.2f}) | {row['bytes']:,} |"
                )
    return "\n".join(lines) + "\n"


def keep(kind: str, experiment: str, result: dict) -> None:
    """Beside what is known of other models and experiments."""
    path = HERE / "mohaq.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results.setdefault(kind, {})[experiment] = result
    write_file(path, (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())
    write_file(HERE / "mohaq.md", markdown(results).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=KINDS)
    parser.add_argument("experiment", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--table", action="store_true", help="print what was found, search nothing")
    parser.add_argument("--budget", type=int, default=100, help="candidates in all")
    parser.add_argument(
        "--worse", type=float, default=8.0, help="points of frame error that a candidate may lose at most"
    )
    parser.add_argument("--beacons", action="store_true", help="retrain a few candidates")
    parser.add_argument("--sampling", choices=("default", "mohaq"), default="default")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--ray", help="the address of a cluster, or auto")
    parser.add_argument("--output", type=Path, default=Path("build/mohaq"))
    options = parser.parse_args()
    if options.table:
        print(markdown(json.loads((HERE / "mohaq.json").read_text())), end="")
        return
    if not options.experiment:
        parser.error(f"give a model and an experiment: {', '.join(EXPERIMENTS)}; or --table")
    torch.set_num_threads(1)
    folder = options.output / f"{options.model}-{options.experiment}{'-beacons' * options.beacons}"
    folder.mkdir(parents=True, exist_ok=True)
    task, module = tasks.Mboshi(), network(options.model)
    calibration, search = data_files(task, folder)
    exact = task.evaluate(module, "search")["frame_error"] * 100
    objectives, more = EXPERIMENTS[options.experiment]
    arguments = ["search", f"mohaq:{options.model}", "--calibration", calibration, "--data", search, "-o", folder]
    arguments += ["--budget", options.budget, "--sampling", options.sampling, *more]
    for name in objectives:
        arguments += ["--objective", name]
    arguments += ["--limit", f"error={exact + options.worse:.2f}", "--workers", options.workers]
    if options.experiment == "bitfusion":
        room = MEMORY * 4 * sum(p.numel() for p in module.parameters() if p.ndim > 1)
        arguments += ["--limit", f"weight bytes={room:.0f}"]
    arguments += ["--ray", options.ray] if options.ray else []
    if options.beacons:
        region = f"{exact + 1:.2f},{exact + options.worse:.2f}"
        arguments += ["--retrain", f"mohaq:retrain_{options.model}", "--region", region]
    beside = {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rindle.cli", *map(str, arguments)], env=os.environ | beside, check=True)
    found = json.loads((folder / "search.json").read_text())
    result = {
        "candidates": len(found["records"]),
        "front": [
            {"values": r["values"], "overrides": r["overrides"]}
            for r in found["records"]
            if r["number"] in found["front"]
        ],
        "float": 100 * (1 - found["float"]["value"]),
        "tested": tested(options.model, found, task, folder),
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    keep(options.model, options.experiment + (" with beacons" if options.beacons else ""), result)
    print(markdown({options.model: {options.experiment: result}}), end="")


if __name__ == "__main__":
    main()
