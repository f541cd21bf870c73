from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..engines.files import load, save
from ..engines.model import Model
from ..errors import RindleError
from ..file.artifact import UNITS
from ..file.dataset import load_data
from ..search.choose_thresholds import choose_thresholds, entry, parse_threshold, set_thresholds, thinned
from .app import Decide, File, Force, Json, MaybeData, Part, Task, app, check_output, notes, opened, progress, show

Unit = StrEnum("Unit", {name: name for name in UNITS})


@app.command()
def delta(
    file: File,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="the new file; default: FILE's name with -delta, beside it", show_default=False
        ),
    ] = None,
    data: MaybeData = None,
    part: Part = None,
    budget: Annotated[
        float | None,
        typer.Option(help="what may be lost: points of accuracy, or per cent of the MSE", show_default=False),
    ] = None,
    theta: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT=θ", help="sets one by hand, without data; may be repeated", show_default=False),
    ] = None,
    unit: Annotated[
        Unit,
        typer.Option(
            help="of --theta: code, a whole number of code units; value, in units of the input, whatever its width"
        ),
    ] = Unit.code,
    clear: Annotated[bool, typer.Option("--clear", help="makes every input dense first")] = False,
    task: Task = None,
    decision: Decide = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Skip what did not change: set the thresholds of a delta network, by data and a budget or by hand.

    With --data and --budget, the thresholds that eliminate the most operations within the budget, against the dense model
    on the same rows. Give validation data, never test data. The budget bounds the loss of accuracy (or the growth of the
    MSE) and a statistical limit of its smooth form, since few rows cannot tell accuracies apart; without y, the dense
    model's decisions are the labels, or its outputs the targets. A model whose outputs stand still is never chosen. The evaluations are kept in OUTPUT.search.jsonl: a search that was killed goes on
    from there, and another budget costs only what is new.

    Examples: rindle delta m.rindle --data validation.npz --budget 0.5 -o sparse.rindle

    rindle delta m.rindle --theta rnn.l0/h=8 --theta rnn.l0/x=4

    rindle delta m.rindle --theta rnn.l0/h=0.05 --unit value
    """
    by_hand = bool(theta) or clear
    if by_hand and (data is not None or budget is not None):
        raise RindleError(
            "--theta and --clear set thresholds by hand, --data and --budget by a search: give one or the other"
        )
    if unit is not Unit.code and not theta:
        raise RindleError("--unit is that of --theta, and there is none; a search chooses θ in code units")
    if not by_hand and (data is None or budget is None):
        raise RindleError("give --data and --budget for a search, or --theta INPUT=θ (or --clear) to set by hand")
    output = output or file.with_name(f"{file.stem}-delta{file.suffix}")
    check_output(output, force)
    model = opened(file, part)
    if by_hand:
        wanted = dict.fromkeys(model.thresholds) if clear else {}
        given = dict(parse_threshold(one, unit.value) for one in theta or [])
        made = set_thresholds(model, wanted | given, unit.value)
        _save(file, part, made, output)
        result = {"file": output, "id": made.id, "thresholds": made.thresholds, "values": made.threshold_values}
        show(as_json, result, _thresholds(made, str(output)))
        return
    sequences = load_data(data)
    log = output.with_name(f"{output.name}.search.jsonl")
    with progress() as bar:
        line = bar.add_task("searching", total=None)

        def seen(point, number):
            one = point.evaluation
            text = f"{number} evaluated; {one.eliminated:.1%} eliminated costs {one.error:.2f} points"
            bar.update(line, description=text)

        chosen = choose_thresholds(model, sequences, budget, task=task, decision=decision, log=log, seen=seen)
    made, found, judge = chosen.model, chosen.found, chosen.judge
    _save(file, part, made, output)
    notes.print(f"{len(found.points)} evaluations, kept in {log}; {judge}")
    refused = [point for point in found.points if point.evaluation.still]
    if refused:
        notes.print(f"{len(refused)} never to be chosen; the first: {refused[0].evaluation.still}")
    result = {
        "file": output,
        "id": made.id,
        "metric": chosen.dense.metric,
        "judged": str(judge),
        "dense": chosen.dense.value,
        "trivial": judge.trivial,
        "budget": budget,
        "thresholds": found.chosen.thetas,
        "values": made.threshold_values,
        "chosen": entry(found.chosen),
        "front": [entry(point) for point in found.front],
        "walk": [entry(point) for point in found.walk],
        "evaluations": len(found.points),
    }
    show(as_json, result, _front(chosen, f"{output}, budget {budget:g}, {len(sequences)} sequences"))


def _save(file: Path, part: str | None, made: Model, output: Path) -> None:
    """The model; of a file of parts all of them, one of which it is."""
    save(made if part is None else {**load(file).parts, part: made}, output)


def _thresholds(model: Model, title: str) -> Table:
    table = Table("input", "θ", "as a value", title=title)
    for name, value in model.threshold_values.items():
        theta = model.thresholds[name]
        shown = (
            ("dense", "")
            if theta is None
            else (str(theta), f"{value:.4g}")
            if isinstance(theta, int)
            else ("one per element", "")
        )
        table.add_row(name, *shown)
    return table


def _front(chosen, title: str) -> Table:
    found, metric = chosen.found, chosen.dense.metric
    names = list(found.chosen.thetas)
    table = Table(*(f"θ {name}" for name in names), metric, "lost", "with its limit", "eliminated", "", title=title)
    for point in thinned(found, 20):
        one = point.evaluation
        value = chosen.judge.shown(one.more["value"])
        mark = "chosen" if point == found.chosen else ""
        shown = (value, f"{one.more['lost']:.2f}", f"{one.error:.2f}", f"{one.eliminated:.1%}", mark)
        table.add_row(*(str(point.thetas[name]) for name in names), *shown)
    trivial = chosen.judge.trivial
    table.add_row(
        *("" for _ in names), chosen.judge.shown(trivial.value), "", "", "", f"trivial: always {trivial.what}"
    )
    return table
