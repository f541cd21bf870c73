"""Mixed precision search (MOHAQ, arXiv 2108.01192) on the small models: `rindle search` with this file's factories.

    python experiments/rezk-2022/mohaq.py lstm --budget 100 --output build/mohaq [--beacons] [--workers 2] [--ray auto]

Bits of 2, 4, 8 and 16 for the weights and the codes of every layer and source, both directions alike, and a threshold per source;
objectives: frame error on the search part, bytes of the weights, Bitfusion's speedup (a published model) and the operations that
thresholds leave. A candidate counts with an error of at most `--worse` points above float. Of the front, the smallest
candidate within `--budget-points` of float is measured on test, once. With --beacons, candidates in the region between are retrained:
`retrain` trains the deployed form under fake quantization on pieces of training utterances.

`--sampling mohaq` has the published population and operators. A killed search goes on; the same command started twice shares the work.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import task as tasks
import torch
import train
from speed import search_part

import rindle
from rindle import metrics
from rindle.container import write_file
from rindle.data import mboshi

KINDS = ("lstm", "gru", "ligru", "sru")
STEPS, PIECES, FRAMES = 60, 16, 100  # of retraining


def network(kind: str) -> torch.nn.Module:
    """What `rindle search` calls: the trained model with its batch norm folded."""
    return models.deploy(train.load(kind))


def retrain(kind: str, overrides: dict[str, str]) -> dict[str, torch.Tensor]:
    """A short training under the candidate's quantization: parameters by name. Seed 0."""
    torch.manual_seed(0)
    task, random = tasks.Mboshi(), np.random.default_rng(0)
    rows = [u for u in task.parts["train"] if len(u.labels) >= FRAMES]
    prepared = rindle.prepare(network(kind), "int8", [x.transpose(1, 0, 2) for x in task.calibration()[:8]], overrides)
    optimizer = torch.optim.AdamW(prepared.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    prepared.train()
    for step in range(STEPS):
        chosen = [rows[k] for k in random.choice(len(rows), PIECES)]
        starts = [random.integers(len(u.labels) - FRAMES + 1) for u in chosen]
        x = np.stack([task.features(u)[s : s + FRAMES] for u, s in zip(chosen, starts)], 1)
        y = np.stack([u.labels[s : s + FRAMES] for u, s in zip(chosen, starts)], 1).astype(np.int64)
        scores = prepared(torch.from_numpy(x))
        loss = torch.nn.functional.cross_entropy(
            scores.flatten(0, 1), torch.from_numpy(y).flatten(), ignore_index=mboshi.UNLABELLED
        )
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


def tested(kind: str, found: dict, task, points: float, folder: Path) -> dict:
    """The smallest candidate of the front within so many points of float, on test."""
    exact = 100 * (1 - found["float"]["value"])
    inside = [r for r in found["records"] if r["number"] in found["front"] and r["more"]["error"] <= exact + points]
    if not inside:
        return {"float frame error": exact, "chosen": None}
    best = min(inside, key=lambda record: (record["more"]["weight bytes"], record["more"]["error"]))
    from rindle.nn.candidates import load_arrays
    from rindle.objectives import thetas_of

    module = network(kind)
    if best["more"].get("with beacon", np.inf) < best["more"].get("after training", -np.inf):
        from safetensors.numpy import load_file

        load_arrays(module, load_file(folder / "beacons" / best["more"]["beacon"]))
    model = rindle.quantize(module, "int8", [x.transpose(1, 0, 2) for x in task.calibration()], best["overrides"])
    model = model.with_thresholds(thetas_of(model.artifact, best["thresholds"]))
    rows = {
        name: np.stack(task.edits(one, "test"), 1) for name, one in (("float", train.load(kind)), ("quantized", model))
    }
    change = metrics.paired_bootstrap(rows["float"], rows["quantized"], metrics.rate_of, draws=2000)
    return {
        "float frame error": exact,
        "chosen": {name: best[name] for name in ("number", "overrides", "thresholds", "more")},
        "test phone errors": {name: metrics.rate_of(one) for name, one in rows.items()},
        "increase": list(change),
        "bytes": len(model.data),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=KINDS)
    parser.add_argument("--budget", type=int, default=100, help="candidates in all")
    parser.add_argument(
        "--worse", type=float, default=8.0, help="points of frame error that a candidate may lose at most"
    )
    parser.add_argument("--budget-points", type=float, default=1.0, help="points that the chosen one may lose")
    parser.add_argument("--beacons", action="store_true", help="retrain a few candidates")
    parser.add_argument("--sampling", choices=("default", "mohaq"), default="default")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--ray", help="the address of a cluster, or auto")
    parser.add_argument("--output", type=Path, default=Path("build/mohaq"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.output / options.model
    folder.mkdir(parents=True, exist_ok=True)
    task = tasks.Mboshi()
    calibration, search = data_files(task, folder)
    exact = task.evaluate(train.load(options.model), "search")["frame_error"] * 100
    arguments = ["search", f"mohaq:{options.model}", "--calibration", calibration, "--data", search, "-o", folder]
    arguments += ["--budget", options.budget, "--theta", "0,0.0625,0.125", "--sampling", options.sampling]
    for name in ("error", "weight bytes", "bitfusion speedup", "operations"):
        arguments += ["--objective", name]
    arguments += ["--limit", f"error={exact + options.worse:.2f}", "--workers", options.workers]
    arguments += ["--ray", options.ray] if options.ray else []
    if options.beacons:
        region = f"{exact + 1:.2f},{exact + options.worse:.2f}"
        arguments += ["--retrain", f"mohaq:retrain_{options.model}", "--region", region]
    beside = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-m", "rindle.cli", *map(str, arguments)], env=os.environ | beside, check=True)
    found = json.loads((folder / "search.json").read_text())
    result = tested(options.model, found, task, options.budget_points, folder)
    write_file(folder / "tested.json", (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
