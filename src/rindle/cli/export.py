from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..errors import RindleError
from ..export import REPORTS, TARGETS
from ..file.dataset import load_data
from .app import File, Force, Json, MaybeData, Part, app, opened, plain, progress, show


@app.command()
def export(
    file: File,
    to: Annotated[str, typer.Option(help=f"the target: {', '.join(TARGETS)}")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="a folder, new or empty")],
    name: Annotated[
        str | None,
        typer.Option(help="what all public names begin with; else made from the file's name, and the part's"),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="compile it for every core whose tools are installed, replay it, count instructions"
        ),
    ] = False,
    data: MaybeData = None,
    part: Part = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a model in another language, with a check program and its sizes. A model that the target cannot express is refused.

    With --report, what it takes on Cortex-M3, M4 and M55, RV32 and this computer: flash and RAM, and instructions per step,
    which an emulator counts; they are not cycles. A model with thresholds is measured dense and held, on frames of --data or of
    the golden vector.

    Examples: rindle export m.rindle --to c -o firmware

    rindle export m.rindle --to c -o firmware --report --data test.npz
    """
    if to not in TARGETS:
        raise RindleError(f"unknown target {to!r}; there are {', '.join(TARGETS)}")
    if name is None:
        name = re.sub(r"\W+", "_", "_".join(filter(None, (file.stem, part))), flags=re.ASCII).strip("_")
        name = name if name[:1].isalpha() else f"model_{name}".rstrip("_")
    if report and to not in REPORTS:
        raise RindleError(f"there is no --report for the target {to!r}; there is for {', '.join(REPORTS)}")
    if data is not None and not report:
        raise RindleError("--data is what --report measures on; give both, or none")
    sequences = None if data is None else load_data(data)
    model = opened(file, part)
    made = TARGETS[to](model, output, name=name, force=force)
    table = Table("flash", "bytes", title=f"{made.folder}: {', '.join(made.files)}")
    for kind, size in made.flash.items():
        table.add_row(kind, f"{size:,}")
    table.add_row("all constants", f"{sum(made.flash.values()):,}")
    measured = None
    if report:
        with progress() as bar:
            line = bar.add_task("measuring", total=None)
            measured = REPORTS[to](model, sequences, seen=lambda text: bar.update(line, description=text))
    result = plain(made) | ({"report": plain(measured)} if report else {})
    more = _report(measured) if report else ()
    show(
        as_json,
        result,
        table,
        f"RAM, the state: {made.ram:,} bytes",
        f"check it: cd {made.folder} && {made.check}",
        *more,
    )


def _report(measured) -> list:
    """What was measured, and what was not and why."""
    table = Table("target", "form", "frames", "density", "instructions per step", "code", "constants", "state", "stack")
    for target in measured.targets:
        for form in target.forms:
            for i, step in enumerate(form.steps):
                sizes = (form.flash["code"], form.flash["constants"], form.state, form.stack)
                table.add_row(
                    target.label if i == 0 and form is target.forms[0] else "",
                    form.form if i == 0 else "",
                    step.frames,
                    f"{step.density:.1%}",
                    _number(step.instructions),
                    *(_number(size) if i == 0 else "" for size in sizes),
                )
    lines = [
        table,
        f"instructions per step: {measured.instructions}",
        f"flash: {measured.flash}",
        f"RAM: {measured.ram}",
    ]
    for target in measured.targets:
        if target.missing:
            tools = ", ".join(f"{tool} (apt-get install {package})" for tool, package in target.missing.items())
            lines.append(f"{target.machine} was not measured; not installed: {tools}")
        elif target.problem:
            lines.append(f"{target.machine} was not measured: {target.problem}")
        elif len(target.forms) > 1 and target.break_even is not None:
            lines.append(
                f"{target.machine}: held takes fewer instructions than dense below a density of {target.break_even:.0%}"
            )
    return lines


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.0f}"
