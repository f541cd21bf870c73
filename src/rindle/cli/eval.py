from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from ..engines.measurement import Measurement, measured_inputs
from ..engines.model import Model
from ..errors import RindleError, needs
from ..file.dataset import Dataset, load_data
from ..measure.decide import ending_of
from ..measure.evaluate import Judge, judge_of
from ..measure.rezk import FORMULAS, check_formula, executed_of, size_of
from ..numbers.formats import decode
from .app import Data, Decide, Json, Part, Task, app, notes, opened, progress, show

ENGINES = ("runtime", "reference", "simulation")


@app.command("eval")
def evaluate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help=".rindle files; several make a table", show_default=False)
    ],
    data: Data,
    engine: Annotated[str, typer.Option(help=f"{', '.join(ENGINES)}: the same bits, the first is fast")] = "runtime",
    part: Part = None,
    reference: Annotated[
        Path | None, typer.Option(help="a .rindle file whose answers stand for y, where the data have none")
    ] = None,
    task: Task = None,
    decision: Decide = None,
    require: Annotated[
        float | None,
        typer.Option(
            help="exit code 1 if a file's accuracy, in per cent, is below, or its NMSE, in dB, above",
            show_default=False,
        ),
    ] = None,
    formula: Annotated[
        str | None, typer.Option(help=f"also size and operations by a published convention: {', '.join(FORMULAS)}")
    ] = None,
    as_json: Json = False,
) -> None:
    """How good models are on data, and what they save: metric, eliminated operations, densities, saturations.

    Accuracy for labels, MSE and NMSE (relative to the targets' variance) for float targets, agreement with --reference where the
    data have no y; and what a model that looks at nothing would score. Only real frames count, for everything. Eliminated: the share of the recurrent layers' multiply-accumulates that no changed
    input asked for, and in brackets what θ = 0 alone would eliminate.

    With --formula rezk also the size and the eliminated operations of Rezk et al. 2022: linear layers included, shared directions
    counted once, 16-bit inputs as 97 % dense, and θ = 0 where an input has none.

    Example: rindle eval dense.rindle sparse.rindle --data test.npz
    """
    if engine not in ENGINES:
        raise RindleError(f"unknown engine {engine!r}; there are {', '.join(ENGINES)}")
    check_formula(formula)
    sequences = load_data(data)
    models = {str(file): opened(file, part) for file in files}
    if sequences.y is None and reference is None and len(models) < 2:
        raise RindleError(
            f"{data} has no y; give --reference FILE, or several FILEs, the first of which is the reference"
        )
    known = opened(reference, part) if reference else next(iter(models.values()))
    judge = judge_of(sequences, known.run(sequences.x, sequences.lengths), known.artifact.graph, task, decision)
    results, failed = [], False
    with progress() as bar:
        for file, model in bar.track(models.items(), description="evaluating"):
            seen = measure(model, sequences, engine)
            own = _judge(judge, known, model, file, sequences, seen.output, task, decision)
            found = own.score(seen.output)
            results.append(_result(file, model, sequences, seen, own))
            if formula:
                results[-1][formula] = published(model, sequences)
            if require is not None:
                failed |= (
                    found.value < require / 100 if found.higher_is_better else not found.more["NMSE dB"] <= require
                )
    title = f"{data}: {len(sequences)} sequences, {sequences.frames:,} frames; {engine}"
    for line in dict.fromkeys(one["judged"] for one in results):
        notes.print(line)
    show(
        as_json,
        {"data": data, "sha256": sequences.sha256, "engine": engine, "files": results},
        *_tables(results, title),
    )
    raise typer.Exit(1 if failed else 0)


def _judge(judge: Judge, known: Model, model: Model, file: str, data: Dataset, output, task, decision) -> Judge:
    """The reference's judge, or with labels a model's own where its outputs are of another kind."""
    kinds = [ending_of(one.artifact.graph) for one in (known, model)]
    if kinds[0] == kinds[1] and known.output_size == model.output_size:
        return judge
    if not judge.agreement:
        return judge_of(data, output, model.artifact.graph, task, decision)
    if "sigmoid" in kinds and kinds[0] != kinds[1] and (judge.decision is None or judge.decision.threshold is not None):
        raise RindleError(f"{file}: the outputs are {kinds[1]}, the reference's {kinds[0]}: they cannot be compared")
    return judge


def measure(model: Model, data: Dataset, engine: str) -> Measurement:
    """``Model.measure`` in any engine."""
    if engine == "runtime":
        return model.measure(data.x, data.lengths)
    if engine == "reference":
        from ..engines.reference import run
    else:
        with needs("the simulation", "torch"):
            from ..nn.simulate import run
    model.run(data.x[:1], data.lengths[:1])  # the reference trusts its input; the model checks that it fits
    found = run(model.artifact, data.x, data.lengths)
    inputs, others = (measured_inputs(model.artifact, found.changes, data.lengths, one) for one in (True, False))
    y = found.codes if model.is_float else decode(found.codes, model.artifact.output_format)
    return Measurement(y, inputs, found.saturations, others)


def published(model: Model, data: Dataset) -> dict[str, float]:
    """Size and operations as Rezk et al. 2022 count them: every input held, which leaves the integers as they are."""
    size = size_of(model.artifact)
    dense = {name: 0 for name, theta in model.thresholds.items() if theta is None}
    done = executed_of(model.artifact, model.with_thresholds(dense).measure(data.x, data.lengths))
    return {
        "megabytes": size.megabytes,
        "float_megabytes": size.float_megabytes,
        "compression": size.compression,
        "executed": done,
        "eliminated": 1 - done,
    }


def _result(file: str, model: Model, data: Dataset, seen: Measurement, judge: Judge) -> dict:
    found = judge.score(seen.output)
    names = [one.name for one in seen.inputs]
    # Held with θ = 0 the integers are the dense model's, whichever engine: the fast one counts.
    still = model.with_thresholds(dict.fromkeys(names, 0)).measure(data.x, data.lengths) if names else seen
    clipped = {f"{node}/{op}": count for (node, op), count in seen.saturations.items() if count}
    return {
        "file": file,
        "id": model.id,
        "bytes": len(model.data),
        "metric": found.metric,
        "value": found.value,
        **found.more,
        "judged": str(judge),
        "trivial": judge.trivial,
        "eliminated": _eliminated(seen),
        "eliminated_at_theta_0": _eliminated(still),
        "eliminated_weight_bytes": seen.eliminated_weight_bytes(),
        "inputs": [
            {
                "name": one.name,
                "hidden": one.hidden,
                "theta": one.theta,
                "macs_per_frame": one.macs,
                "density": one.density,
                "density_at_theta_0": at_zero.density,
            }
            for one, at_zero in zip(seen.inputs, still.inputs)
        ],
        "saturations": clipped,
        "shown": str(found),
        "shown_trivial": judge.shown(judge.trivial.value),
    }


def _eliminated(seen: Measurement) -> dict[str, float]:
    return {"input": seen.eliminated(False), "hidden": seen.eliminated(True), "both": seen.eliminated()}


def _tables(results: list[dict], title: str):
    several = len({result["metric"] for result in results}) > 1
    files = Table("file", "metric" if several else results[0]["metric"], title=title)
    for name in ("trivial", "bytes", "eliminated of x", "of h", "of both", "saturated"):
        files.add_column(name, justify="right")
    inputs = Table("file", "input", title="inputs of the recurrent layers")
    for name in ("θ", "changed", "at θ = 0", "MACs/frame"):
        inputs.add_column(name, justify="right")
    unique = len({Path(result["file"]).name for result in results}) == len(results)
    for result in results:
        name = Path(result["file"]).name if unique else result["file"]
        shares = [
            f"{result['eliminated'][k]:.1%} ({result['eliminated_at_theta_0'][k]:.1%})"
            for k in ("input", "hidden", "both")
        ]
        value = f"{result['shown']} {result['metric']}" if several else result["shown"]
        files.add_row(
            name,
            value,
            result["shown_trivial"],
            f"{result['bytes']:,}",
            *shares,
            f"{sum(result['saturations'].values()):,}",
        )
        for one in result["inputs"]:
            theta = (
                "dense"
                if one["theta"] is None
                else "by element"
                if isinstance(one["theta"], np.ndarray)
                else str(one["theta"])
            )
            changed = f"{one['density']:.1%}", f"{one['density_at_theta_0']:.1%}"
            inputs.add_row(name, one["name"], theta, *changed, f"{one['macs_per_frame']:,}")
    more = [_published(results, formula) for formula in FORMULAS if formula in results[0]]
    return files, inputs, *more


def _published(results: list[dict], formula: str) -> Table:
    table = Table("file", title=f"as {formula} counts: MB of 2^20 bytes, no overhead; operations of all layers")
    for name in ("MB", "float MB", "compression", "eliminated"):
        table.add_column(name, justify="right")
    for result in results:
        one = result[formula]
        sizes = (f"{one[key]:.4g}" for key in ("megabytes", "float_megabytes"))
        table.add_row(result["file"], *sizes, *(f"{one[key]:.1%}" for key in ("compression", "eliminated")))
    return table
