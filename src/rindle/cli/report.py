from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..container import write_file
from ..dataset import load_data
from ..formats import RindleError
from ..runtime import Model, load
from .app import app, console
from .bench import rivals_of


@app.command()
def report(
    files: Annotated[
        list[Path],
        typer.Argument(help=".rindle files of one task; without targets the first is the reference", metavar="FILE..."),
    ],
    data: Annotated[Path, typer.Option(help="sequences, lengths and targets to measure on: .npz, or .npy of x alone")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the page, one .html file")] = Path("report.html"),
    bench: Annotated[
        bool, typer.Option("--bench/--no-bench", help="time the models, against torch where it is installed")
    ] = True,
    slices: Annotated[int, typer.Option(min=1, help="time slices, as of `rindle bench`")] = 41,
    plot: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE=FILE", help="also save one figure as .svg or .png; may be given again"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite the output files")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="also print all numbers as JSON")] = False,
) -> None:
    """Measure models on data and write one page that shows what they cost and gave; it needs no network."""
    try:
        from ..report.collect import collect
        from ..report.page import image, render
    except ModuleNotFoundError as error:
        raise RindleError(f"the report needs {error.name}: pip install 'rindle[report]'") from None
    plots = [_plot(one) for one in plot or ()]
    for path in (output, *(path for _, path in plots)):
        if path.exists() and not force:
            raise RindleError(f"{path} exists; give --force to overwrite it")
    models = _named(files)
    sequences = load_data(data)
    command = shlex.join(["rindle", *sys.argv[1:]])

    def say(text: str) -> None:
        if not as_json:
            console.print(f"{text}…")

    found = collect(models, sequences, command=command, rivals=rivals_of if bench else None, slices=slices, step=say)
    made = [(output, render(found).encode())]
    made += [(path, image(found, name, path.suffix[1:])) for name, path in plots]
    for path, content in made:
        try:
            write_file(path, content)
        except OSError as error:
            raise RindleError(f"{path} cannot be written: {error.strerror}") from None
        if not as_json:
            console.print(f"{path}: {len(content):,} bytes")
    if as_json:
        print(json.dumps(found))


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
