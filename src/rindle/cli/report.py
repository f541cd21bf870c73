from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..engines.files import load
from ..engines.model import Model
from ..errors import RindleError, needs
from ..file.dataset import load_data
from ..files import write_file
from .app import Data, Force, Json, app, check_output, notes, show
from .bench import rivals_of


@app.command()
def report(
    files: Annotated[
        list[Path],
        typer.Argument(help=".rindle files of one task; without targets the first is the reference", metavar="FILE..."),
    ],
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="the page, one .html file")] = Path("report.html"),
    bench: Annotated[
        bool, typer.Option("--bench/--no-bench", help="time the models, against torch where it is installed")
    ] = True,
    slices: Annotated[int, typer.Option(min=1, help="time slices, as of `rindle bench`")] = 41,
    plot: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE=FILE", help="also save one figure as .svg or .png; may be given again"),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure models on data, and write one page that shows what they gave and what they cost. It opens without a network.

    The metric against bytes and eliminated operations (with the front that `rindle delta` walked, where a file has one),
    density along the sequences, saturation and noise of every path, time per step against torch, and what was run. --json
    prints the numbers; the page has them inside, too.

    Example: rindle report dense.rindle sparse.rindle --data test.npz -o report.html --plot operations=plot.svg
    """
    with needs("the report", "report"):
        from ..report.collect import collect
        from ..report.page import image, render
    plots = [_plot(one) for one in plot or ()]
    for path in (output, *(path for _, path in plots)):
        check_output(path, force)
    models = _named(files)
    sequences = load_data(data)
    command = shlex.join(["rindle", *sys.argv[1:]])

    rivals = rivals_of if bench else None
    found = collect(
        models, sequences, command=command, rivals=rivals, slices=slices, step=lambda t: notes.print(f"{t}…")
    )
    made = [(output, render(found).encode())]
    made += [(path, image(found, name, path.suffix[1:])) for name, path in plots]
    for path, content in made:
        try:
            write_file(path, content)
        except OSError as error:
            raise RindleError(f"{path} cannot be written: {error.strerror}") from None
    show(as_json, found, *(f"{path}: {len(content):,} bytes" for path, content in made))


def _plot(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or Path(path).suffix not in (".svg", ".png"):
        raise RindleError(f"--plot is {text!r}; write FIGURE=FILE.svg or FIGURE=FILE.png")
    return name, Path(path)


def _named(files: list[Path]) -> dict[str, Model]:
    """Models by the shortest names that tell their files apart."""
    resolved = [path.resolve() for path in files]
    if len(set(resolved)) < len(resolved):
        twice = next(path for path in resolved if resolved.count(path) > 1)
        raise RindleError(f"{twice} is given twice")
    for parts in range(1, max(len(path.parts) for path in resolved) + 1):
        names = ["/".join([*path.parts[-parts:-1], path.stem]) for path in resolved]
        if len(set(names)) == len(names):
            break
    else:
        names = [str(path) for path in resolved]
    return {name: load(path) for name, path in zip(names, files)}
