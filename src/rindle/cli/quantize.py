from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..engines.files import save
from ..engines.model import Model
from ..errors import RindleWarning, needs
from ..file.dataset import load_data
from ..measure.analysis import over_time
from ..measure.evaluate import judge_of
from ..scheme.rezk import REZK
from ..scheme.rules import SCHEMES
from .app import Decide, Force, Json, Task, app, check_output, notes, progress, show
from .inspect import growth_table


@app.command()
def quantize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="a .pt2 file of torch.export.save, or package.module:factory, which is imported and called: it EXECUTES CODE, "
            "that of the current directory first",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="the .rindle file to write")],
    calibration: Annotated[
        Path,
        typer.Option(metavar="FILE", help="real sequences, a .npz or .npy file; a hundred or so are usually enough"),
    ],
    scheme: Annotated[
        str,
        typer.Option(help=f"{', '.join((*SCHEMES, *REZK))}, or fixed-W-A: weights of W bits, codes of A, shifts only"),
    ] = "int8",
    skip: Annotated[
        str,
        typer.Option(help="leave the published path of each cell at 16 bits: of all layers, the first ones, or none"),
    ] = "none",
    overrides: Annotated[Path | None, typer.Option(help="path -> rule, a .toml or .json file")] = None,
    accumulator: Annotated[
        int | None, typer.Option(metavar="BITS", help="refuse a product whose partial sums need more bits")
    ] = None,
    search_formats: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="search fraction bits by what they do to the outputs on these sequences; not test data"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="of learned rounding, where the rules ask for it")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="of learned rounding")] = 0,
    weights: Annotated[Path | None, typer.Option(help="a safetensors file of the factory's model.state_dict()")] = None,
    kernel: Annotated[str | None, typer.Option(help="the kernel that evaluates the result")] = None,
    task: Task = None,
    decision: Decide = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Quantize a trained torch model after training. Needs torch.

    If the calibration file has y, the float model and the quantized one are compared on it; without y, how often the
    quantized one decides as the float one does; and how the error grows along the sequences. (These are calibration data: for a figure to report, use rindle eval.)

    Example: rindle quantize nets:speaker --weights speaker.safetensors --calibration train.npz -o speaker.rindle
    """
    with needs("rindle quantize", "torch"):
        from ..nn.capture.source import float_outputs, load_model
        from ..nn.conversion.rounding import Rounding
        from ..nn.quantize import calibrated
        from ..nn.variants import fractions
    check_output(output, force)
    scheme = f"{scheme} skip={skip}" if skip != "none" else scheme
    data = load_data(calibration)
    with progress() as bar, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RindleWarning)
        bar.add_task("loading the model", total=None)
        source = load_model(model, weights)
        line = bar.add_task(f"calibrating on {data.frames:,} frames, converting", total=None)
        rounding = Rounding(steps, seed, lambda text: bar.update(line, description=text))
        planned = calibrated(source, scheme, data, overrides, accumulator=accumulator, rounding=rounding)
        searched = None
        if search_formats is not None:
            line = bar.add_task("searching fraction bits", total=None)
            log = output.with_name(f"{output.name}.formats.jsonl")

            def seen(trial, number):
                bar.update(line, description=f"searching fraction bits: {number} evaluated, drift {trial.drift:.3g}")

            searched = fractions.search_formats(planned, load_data(search_formats), log, seen)
            planned = searched.calibrated
        made = planned.model()
        made = Model(made.artifact, made.data, kernel)
        bar.add_task("comparing with the float model", total=None)
        wanted = float_outputs(planned.plan.graph, data)
        judge = judge_of(data, wanted, planned.plan.graph, task, decision)
        before = None if judge.agreement else judge.base_score
        after = judge.score(made.run(data.x, data.lengths))
        found = planned.analysis(made, data)
    followed = over_time(made.artifact, found)
    save(made, output)
    remarks = [str(one.message) for one in caught if issubclass(one.category, RindleWarning)]
    for remark in remarks:
        notes.print(f"warning: {remark}")
    widened = [str(one) for one in planned.plan.held if one.rule]
    for one in widened:
        notes.print(f"{one} (an override of the code keeps it)")
    notes.print(str(judge))
    result = {
        "file": output,
        "bytes": len(made.data),
        "id": made.id,
        "kernel": made.kernel,
        "scheme": scheme,
        "metric": after.metric,
        "float": before and {"value": before.value, **before.more},
        "quantized": {"value": after.value, **after.more},
        "judged": str(judge),
        "trivial": judge.trivial,
        "rounding": planned.provenance.get("rounding", {}),
        "over_time": {
            "rows": found.rows,
            "frames": found.frames,
            "positions": found.positions,
            "paths": [{"path": one.name, "sqnr": one.sqnr, "growth": one.growth} for one in followed],
        },
        "widened": widened,
        "warnings": remarks,
    }
    if searched:
        start, chosen = searched.found.start.drift, searched.found.chosen.drift
        result["searched"] = {
            "drift": [start, chosen],
            "overrides": searched.overrides,
            "evaluations": len(searched.found.trials),
        }
        notes.print(f"{len(searched.found.trials)} evaluations, kept in {log}: drift {start:.4g} -> {chosen:.4g}")
    table = Table("model", after.metric, "bytes", title=f"{output}, on the calibration data")
    if before:
        table.add_row("float", str(before), "")
    table.add_row(scheme, str(after), f"{len(made.data):,}")
    table.add_row(f"trivial: always {judge.trivial.what}", judge.shown(judge.trivial.value), "")
    show(as_json, result, table, growth_table(found, followed))
