"""The tables of Rezk et al. 2022 on open speech, theirs and ours side by side; README.md has the numbers.

    python experiments/rezk-2022/run.py [--models lstm gru ligru sru] [--quick]

Every model is quantized in every row and skip mode by both methods: "published" is a float simulation of the authors' code
(published.py), "rindle" the same widths by Rindle's schemes, in integers in the C++ runtime. Both are calibrated on the
same training utterances; rows and thresholds are chosen on the search utterances of the validation part, and what was
chosen is then measured on the test part. A finished cell is a line of the log and is not computed again.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import models
import numpy as np
import table
import task as tasks
import torch
import train
from grid import ROWS, SKIPS, Precision
from study import METHODS, Log, Study

from rindle.container import write_file

HERE = Path(__file__).parent
KINDS = ("lstm", "gru", "ligru", "sru")


class StandIn(tasks.Mboshi):
    """Noise of the task's shape, to see that all runs: nothing about speech follows from it."""

    def __init__(self, utterances: int = 4, frames: int = 30):
        random = np.random.default_rng(0)

        def utterance(i: int):
            return SimpleNamespace(
                id=str(i),
                codes=random.normal(size=(frames - i, self.inputs)).astype(np.float32),
                labels=random.integers(self.outputs, size=frames - i),
            )

        self.parts = {part: [utterance(i) for i in range(utterances)] for part in ("calibration", "search", "test")}
        self.priors = np.full(self.outputs, -np.log(self.outputs))
        self.bigram = self.priors, np.tile(self.priors, (self.outputs, 1))
        self.fold = np.arange(self.outputs)

    def features(self, one) -> np.ndarray:
        return one.codes


def study_of(kind: str, network, task, log: Log, options) -> dict:
    """All cells of one model; what was chosen by which rule."""
    study = Study(kind, network, task, log, say=lambda line: print(line, file=sys.stderr, flush=True))
    skips = ["none"] if kind == "sru" else options.skips
    study.float_cell("search")
    rows = dict.fromkeys(METHODS, options.rows) | {"published": options.published_rows or options.rows}
    chosen = {}
    for method in METHODS[::-1]:
        if method not in options.methods:
            continue
        for row in rows[method]:
            for skip in skips:
                study.cell(method, Precision(row, skip), "search")
        picked = study.choose(method, rows[method], skips, options.budget)
        chosen[method] = {"budget": options.budget, "precision": picked and [picked.row, picked.skip]}
    if "published" in options.methods:
        for row in options.matched:
            study.cell("published", Precision(row), "search", rescale="max")
    if options.thresholds:
        for method, one in chosen.items():
            precision = Precision(*(one["precision"] or ("uniform8", "none")))
            base = study.cell(method, precision, "search")
            if method == "published":
                cells = study.combinations(precision)
                best = max(
                    (cell for cell in cells if 100 * (cell["error"] - base["error"]) <= options.delta_budget),
                    key=lambda cell: cell["eliminated"],
                )
                thetas = best["key"].get("thetas", {})
            else:
                found = study.walk(method, precision, options.delta_budget)
                cells, thetas = found.points, found.chosen.thetas
            one |= {"thetas": thetas, "evaluations": len(cells), "of": [precision.row, precision.skip]}
    if options.test:
        study.float_cell("test")
        for method, one in chosen.items():
            for row in options.test_rows:
                study.cell(method, Precision(row), "test")
            if one["precision"]:
                study.cell(method, Precision(*one["precision"]), "test")
            if "thetas" in one:
                study.cell(method, Precision(*one["of"]), "test")
                study.cell(method, Precision(*one["of"]), "test", one["thetas"])
    return {"chosen": chosen, "cells": summary(study)}


def earlier(output: Path | None, parts: dict) -> dict:
    """The other models of a results file that was written on the same utterances."""
    found = json.loads(output.read_text()) if output and output.exists() else {}
    return found["models"] if found.get("parts") == parts else {}


def summary(study: Study) -> list[dict]:
    """The cells without the errors of each utterance (of candidates of thresholds: and without densities, which are many), with
    the 95 % interval of their increase, in points.
    """
    found = []
    for cell in study.log.cells.values():
        key = cell["key"]
        if key["model"] != study.kind or key["utterances"] != study.counts(key["part"]):
            continue
        left_out = {"errors", "lengths"} | ({"densities"} if "thetas" in key and key["part"] != "test" else set())
        row = {name: value for name, value in cell.items() if name not in left_out}
        if cell["key"]["method"] != "float":
            increase = study.increase(cell)
            row["increase"] = {name: round(100 * getattr(increase, name), 3) for name in ("mean", "low", "high")}
        found.append(row)
    return found


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS[:2], help="gptq takes minutes a row")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument(
        "--published-rows", nargs="+", choices=ROWS, help="of the simulation, which is slow (default: --rows)"
    )
    parser.add_argument("--skips", nargs="+", choices=SKIPS, default=SKIPS)
    parser.add_argument(
        "--matched", nargs="*", choices=ROWS, default=["uniform8"], help="rows also with matched maxima"
    )
    parser.add_argument(
        "--test-rows", nargs="*", choices=ROWS, default=["uniform8"], help="tested besides what is chosen"
    )
    parser.add_argument(
        "--budget", type=float, default=1.0, help="points of error that a row may cost on the search set"
    )
    parser.add_argument("--delta-budget", type=float, default=1.0, help="points that thresholds may cost more")
    parser.add_argument("--no-thresholds", dest="thresholds", action="store_false")
    parser.add_argument("--no-test", dest="test", action="store_false", help="the test part is not looked at")
    parser.add_argument("--utterances", type=int, help="to calibrate on, and to search on, evenly spread (default: 72)")
    parser.add_argument("--test-utterances", type=int, help="evenly spread (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the simulation")
    parser.add_argument("--quick", action="store_true", help="tiny untrained models on noise: seconds")
    parser.add_argument("--log", type=Path, default=Path("build/rezk-2022/study.jsonl"))
    parser.add_argument("--output", type=Path, help="results as JSON (default: results.json beside this file)")
    parser.add_argument("--report", type=Path, help="an HTML page of tables and plots")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        if options.quick:
            options.log, task = Path(scratch) / "log", StandIn()
            options.rows, options.skips, options.published_rows = ["uniform8", "M8"], ["none", "all"], None
            # more than any row may cost on noise, so that all that follows a choice runs, too
            options.budget = options.delta_budget = 200.0
            networks = {kind: tiny(kind) for kind in options.models}
        else:
            task = tasks.Mboshi()
            for part in ("calibration", "search", "test"):
                count = options.test_utterances if part == "test" else options.utterances
                task.parts[part] = tasks.spread(task.parts[part], count or len(task.parts[part]))
            networks = {kind: train.load(kind) for kind in options.models}
        log = Log(options.log)
        output = options.output or (None if options.quick else HERE / "results.json")
        parts = {part: len(task.parts[part]) for part in ("calibration", "search", "test")}
        results = {"parts": parts, "models": earlier(output, parts)}
        for kind, network in networks.items():
            results["models"][kind] = study_of(kind, network, task, log, options)
            if output:
                write_file(output, json.dumps(results, indent=1).encode())
    if options.report:
        write_file(options.report, table.page(results).encode())
    print("\n".join(table.markdown(results)))
    return results


def tiny(kind: str):
    """An untrained model of two layers of 8 units, of SRU behind a projection to 6."""
    torch.manual_seed(0)
    changes = {"projection": 6} if kind == "sru" else {}
    return models.network(kind, "small", layers=2, units=8, **changes).eval()


if __name__ == "__main__":
    main()
