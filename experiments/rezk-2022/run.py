"""The study of Rezk et al. 2022 on open speech, their method and ours side by side; README.md has the numbers.

    python experiments/rezk-2022/run.py --models lstm sru     # and beside it, on another core: --models gru ligru
    python experiments/rezk-2022/table.py --write             # from the logs of all: results.json, tables, plots, report

Every model is quantized in every row and skip mode by both methods: "published" is a float simulation of the authors' code
(published.py), "rindle" the same scheme through `rindle.quantize`, in integers in the C++ runtime. Both are calibrated on the
same training utterances; rows and thresholds are chosen on the search utterances of the validation part, and what was
chosen is then measured on the test part. A finished cell is a line of the model's log and is not computed again.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import findings
import models
import numpy as np
import table
import task as tasks
import torch
import train
from findings import KINDS
from log import Log
from rows import METHODS, ROWS, rows_of
from study import Study

from rindle.files import write_file
from rindle.scheme.rezk import MODES

GPTQ = (
    "rezk-uniform4",
    "rezk-m1",
    "rezk-m3",
    "w4",
    "w4-fc4",
    "w3",
    "w3-fc4",
)  # rows that are rounded with words, by default


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


def run_model(study: Study, options) -> None:
    """All cells of one model: rows, thresholds, then the test part, once."""
    skips = ["none"] if study.kind == "sru" else options.skips  # no product of an SRU reads a state
    study.float_cell("search")
    for method in options.methods:
        asked = options.rows or (GPTQ if " " in method else None)
        for row in rows_of(method, asked, study.graph):
            for skip in skips:
                study.cell(method, row, skip, "search")
    if "published" in options.methods:
        for row in options.matched:
            study.cell("published", row, "none", "search", rescale="max")
    thresholds = [row.partition(":") for row in options.delta_rows]
    for row, _, skip in thresholds:
        choose_thresholds(study, row, skip or "none", options)
    if options.test:
        test(study, [(row, skip or "none") for row, _, skip in thresholds], options)


def choose_thresholds(study: Study, row: str, skip: str, options) -> None:
    """By both methods; Rindle's choices also by phone errors on the search part, for the plot."""
    if "published" in options.methods:
        study.combinations(row, skip)
    if "rindle" in options.methods:
        walk = study.walk("rindle", row, skip, max(options.delta_budgets))
        for budget in options.delta_budgets:
            study.cell("rindle", row, skip, "search", findings.at_budget(walk, budget)["thetas"])


def test(study: Study, delta: list[tuple[str, str]], options) -> None:
    study.float_cell("test")
    cells = study.cells()
    chosen = [(one["key"]["method"], one["key"]["row"], one["key"]["skip"]) for one in findings.chosen_rows(cells)]
    plain = [method for method in options.methods if " " not in method]
    chosen += [(method, row, "none") for method in plain for row in (*options.test_rows, *(one for one, _ in delta))]
    for method, row, skip in dict.fromkeys(chosen):
        study.cell(method, row, skip, "test")
    for row, skip in delta:
        if "published" in plain:
            for one in findings.published_front(cells, row, skip, options.front):
                study.cell("published", row, skip, "test", one["key"].get("thetas"))
        if "rindle" in plain:
            walk = study.walk("rindle", row, skip, max(options.delta_budgets))
            study.cell("rindle", row, skip, "test")
            for budget in options.delta_budgets:
                study.cell("rindle", row, skip, "test", findings.at_budget(walk, budget)["thetas"])


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--size", choices=("small", "paper"), default="small", help="paper: what train.py made of it")
    parser.add_argument("--data", choices=tasks.TASKS, default="mboshi")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS[:3], help="gptq takes minutes a row")
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="default: all; with words those of few bits that count")
    parser.add_argument("--skips", nargs="+", choices=MODES, default=MODES)
    parser.add_argument(
        "--matched", nargs="*", choices=ROWS, default=["rezk-uniform8"], help="rows also with matched maxima"
    )
    parser.add_argument("--delta-rows", nargs="*", default=["rezk-uniform8"], help="for thresholds: ROW or ROW:SKIP")
    parser.add_argument(
        "--delta-budgets", nargs="+", type=float, default=[0.5, 1.0, 2.0], help="points of frame accuracy, of ours"
    )
    parser.add_argument(
        "--front", type=float, default=3.0, help="points above float up to which the published front is tested"
    )
    parser.add_argument(
        "--test-rows",
        nargs="*",
        choices=ROWS,
        default=["rezk-uniform8", "rezk-m1"],
        help="tested besides what is chosen",
    )
    parser.add_argument("--no-test", dest="test", action="store_false", help="the test part is not looked at")
    parser.add_argument("--utterances", type=int, help="to calibrate on, and to search on, evenly spread (default: 72)")
    parser.add_argument("--test-utterances", type=int, help="evenly spread (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny untrained models on noise")
    parser.add_argument(
        "--log", type=Path, default=Path("build/rezk-2022/study"), help="a folder, with a file per model"
    )
    parser.add_argument("--output", type=Path, help="results as JSON, of all models in the folder")
    parser.add_argument("--report", type=Path, help="an HTML page of tables and plots")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if options.quick:
            options.log, task = Path(scratch), StandIn()
            options.rows, options.skips = options.rows or ["rezk-uniform8", "rezk-m8", "w3"], ["none", "all"]
            options.front = 200.0  # more than any may cost on noise, so that all that follows a choice runs, too
            networks = {kind: tiny(kind) for kind in options.models}
        else:
            task = tasks.TASKS[options.data]()
            for part in ("calibration", "search", "test"):
                count = options.test_utterances if part == "test" else options.utterances
                task.parts[part] = tasks.spread(task.parts[part], count or len(task.parts[part]))
            networks = {kind: train.load(kind, options.size, options.data) for kind in options.models}
        for kind, network in networks.items():
            say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
            run_model(Study(kind, network, task, Log(options.log / f"{kind}.jsonl"), say), options)
        results = findings.collect(options.log)
    if options.output:
        write_file(options.output, table.as_json(results))
    if options.report:
        write_file(options.report, table.page(results).encode())
    print("\n".join(table.markdown(results)))
    return json.loads(table.as_json(results))


def tiny(kind: str):
    """An untrained model of two layers of 8 units, of SRU behind a projection to 6."""
    torch.manual_seed(0)
    changes = {"projection": 6} if kind == "sru" else {}
    return models.network(kind, "small", layers=2, units=8, **changes).eval()


if __name__ == "__main__":
    main()
