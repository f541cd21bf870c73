"""Which paths cannot bear few bits: `rindle sensitivity` over the four models, beside the paths that the paper names.

    python experiments/rezk-2022/paths.py [lstm gru ligru sru] [--scheme rezk-m1] [--budget 1] [--quick]

A path is the same product in all layers and both directions (its weights, and the codes that they multiply). Of every path is
measured, on the search part: the drift that it adds alone, where all others have 16 bits; and the drift that is taken away
where it alone is spared. The published path (U_c·h, U_h·(r⊙h), U_h·h; of SRU none) is one of them. Four models of each kind
are then measured on test, once: no path at 16 bits, the published one, the one that takes away most per byte here, and
the proposal within the budget (points of frame accuracy of the search part, with its statistical limit).

Writes paths.json, paths.md and paths.svg beside this file. Evaluations are kept in build/rezk-2022, and a killed run goes on.
"""

import argparse
import json
import sys
from pathlib import Path

import altair as alt
import models
import numpy as np
import task as tasks
import torch
import train
from speed import search_part
from table import TITLES

from rindle.files import write_file
from rindle.nn.quantize import calibrated
from rindle.nn.variants.paths import Variants
from rindle.report.page import drawn
from rindle.report.style import PALETTE, Figure, cycle, rows_of
from rindle.scheme import rezk as presets
from rindle.search.choose_paths import measure, overrides_of, paths_of
from rindle.search.sensitivity import Found
from rindle.tasks import metrics

HERE = Path(__file__).parent
NAMED, OTHER = "named by the paper", "other"
SPARED = "taken away where it alone has 16 bits"
HEAD = "| model | path | named by the paper | drift alone | drift taken away | loss alone, points | bytes more | drift per kB |"
TEST = "| model | at 16 bits | bytes of the file | phone errors, test % | above float, points (95 %) |"


def study(kind: str, network, task, scheme: str, budget: float, log: Path | None) -> dict:
    """What is measured of one model, as plain data."""
    data = search_part(task, None)
    first = calibrated(models.deploy(network), scheme, [x.transpose(1, 0, 2) for x in task.calibration()])
    variant, paths = Variants(first), paths_of(first.plan.graph, first.plan.rules, "cell")
    cells = {node.layer.program.cell for node in first.plan.graph.recurrent}
    named = {cell: presets.published(cell, cell)[0] for cell in cells}
    published = {f"{cell} {'.'.join(product)}" for cell, product in named.items() if product}
    found = measure(variant, paths, data, budget, kinds=("both",), log=log, seen=lambda *n: progress(kind, *n))
    kept = {
        "nothing": (),
        "the named path": tuple(published),
        "the best path here": (best_path(found),),
        "the proposal": found.kept,
    }
    float_errors = np.stack(task.edits(network, "test"), 1)
    tested = []
    for name, chosen in kept.items():
        if name == "the named path" and not published:
            continue
        model = variant(overrides_of(frozenset().union(*(paths[one].both for one in chosen))))
        errors = np.stack(task.edits(model, "test"), 1)
        change = metrics.paired_bootstrap(float_errors, errors, metrics.rate_of, draws=2000)
        tested.append(
            {
                "kept": name,
                "paths": list(chosen),
                "bytes": len(model.data),
                "error": metrics.rate_of(errors),
                "increase": [100 * value for value in change],
            }
        )
    rows = [
        {
            "path": one.path,
            "named": one.path in published,
            "alone": one.alone.drift,
            "bought": one.bought,
            "loss": one.alone.error,
            "bytes": one.bytes,
        }
        for one in found.contributions
    ]
    return {
        "scheme": scheme,
        "budget": budget,
        "evaluations": found.evaluations,
        "low": [found.low.error, found.low.drift],
        "float error": metrics.rate_of(float_errors),
        "paths": rows,
        "test": tested,
    }


def best_path(found: Found) -> str:
    """That which takes away most drift per byte."""
    return max(found.of_kind("both"), key=lambda one: one.bought / max(one.bytes, 1)).path


def progress(kind: str, done: int, planned: int) -> None:
    print(f"{kind}: {done} of about {planned} evaluations", file=sys.stderr, flush=True)


def markdown(results: dict) -> str:
    lines = [HEAD, "|" + "---|" * 8]
    for kind, one in results.items():
        for row in one["paths"]:
            lines.append(
                f"| {TITLES[kind]} | {row['path']} | {'yes' if row['named'] else ''} | {row['alone']:.4f} | {row['bought']:.4f} "
                f"| {row['loss']:.2f} | {row['bytes']:,} | {1000 * row['bought'] / max(row['bytes'], 1):.4f} |"
            )
    lines += ["", TEST, "|" + "---|" * 5]
    for kind, one in results.items():
        lines.append(f"| {TITLES[kind]} | float | | {100 * one['float error']:.2f} | |")
        for row in one["test"]:
            names = ", ".join(row["paths"]) or "—"
            mean, low, high = row["increase"][:3]
            lines.append(
                f"| {TITLES[kind]} | {row['kept']}: {names} | {row['bytes']:,} | {100 * row['error']:.2f} "
                f"| {mean:+.2f} ({low:+.2f} … {high:+.2f}) |"
            )
    return "\n".join(lines) + "\n"


def figure(results: dict, scheme: str) -> Figure:
    rows = [
        {
            "path": f"{TITLES[kind]}: {row['path']}",
            "alone": row["alone"],
            "taken away": row["bought"],
            "which": NAMED if row["named"] else OTHER,
            "mark": SPARED,
        }
        for kind, one in results.items()
        for row in sorted(one["paths"], key=lambda row: -row["alone"])
    ]
    y = alt.Y("path:N", sort=[row["path"] for row in rows], title=None)
    bars = (
        alt.Chart(rows_of(rows))
        .mark_bar()
        .encode(
            x=alt.X("alone:Q", title="drift of the posteriors"),
            y=y,
            color=alt.Color("which:N", scale=alt.Scale(domain=[NAMED, OTHER], range=cycle(2)[::-1]), title=None),
        )
    )
    marks = (
        alt.Chart(rows_of(rows))
        .mark_point(filled=True, size=50, color=PALETTE[3])
        .encode(x="taken away:Q", y=y, shape=alt.Shape("mark:N", title=None))
    )
    chart = alt.layer(bars, marks).properties(width="container", height=alt.Step(18))
    return Figure("paths", f"{scheme}: drift of each path where all others have 16 bits, on the search part", "", chart)


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="lstm, gru, ligru, sru (default: all)")
    parser.add_argument("--scheme", default="rezk-m1")
    parser.add_argument("--budget", type=float, default=1.0, help="points of frame accuracy on the search part")
    parser.add_argument("--quick", action="store_true", help="tiny untrained models on noise: to see that it runs")
    parser.add_argument("--output", type=Path, help="a folder for paths.json, paths.md and paths.svg (default: here)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    output, logs = options.output or HERE, Path("build/rezk-2022")
    if options.quick:
        from run import StandIn, tiny

    task = StandIn() if options.quick else tasks.Mboshi()
    results = {}
    for kind in options.models or TITLES:
        network = tiny(kind) if options.quick else train.load(kind)
        log = None if options.quick else logs / f"paths-{kind}-{options.scheme}.jsonl"
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)
        results[kind] = study(kind, network, task, options.scheme, options.budget, log)
    if options.output or not options.quick:
        write_file(output / "paths.json", (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode())
        write_file(output / "paths.md", markdown(results).encode())
        write_file(output / "paths.svg", drawn(figure(results, options.scheme), "svg"))
    print(markdown(results))
    return results


if __name__ == "__main__":
    main()
