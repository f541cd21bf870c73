from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..export import TARGETS
from ..formats import RindleError
from ..runtime import load
from .app import File, Force, Json, app, show


@app.command()
def export(
    file: File,
    to: Annotated[str, typer.Option(help=f"the target: {', '.join(TARGETS)}")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="a folder, new or empty")],
    name: Annotated[
        str | None, typer.Option(help="what all public names begin with; else made from the file's name")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a model in another language, with a check program and its sizes. A model that the target cannot express is refused.

    Example: rindle export m.rindle --to c -o firmware
    """
    if to not in TARGETS:
        raise RindleError(f"unknown target {to!r}; there are {', '.join(TARGETS)}")
    if name is None:
        name = re.sub(r"\W+", "_", file.stem, flags=re.ASCII).strip("_")
        name = name if name[:1].isalpha() else f"model_{name}".rstrip("_")
    made = TARGETS[to](load(file), output, name=name, force=force)
    table = Table("flash", "bytes", title=f"{made.folder}: {', '.join(made.files)}")
    for kind, size in made.flash.items():
        table.add_row(kind, f"{size:,}")
    table.add_row("all constants", f"{sum(made.flash.values()):,}")
    show(as_json, made, table, f"RAM, the state: {made.ram:,} bytes", f"check it: cd {made.folder} && {made.check}")
