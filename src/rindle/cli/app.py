"""What every verb shares: the application, its consoles, options that mean the same everywhere, and arrays in files."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..engines.files import load
from ..engines.model import Model
from ..errors import RindleError
from ..files import write_file

app = typer.Typer(
    help="Quantized recurrent networks: make, thin out, evaluate, time, report on, run, verify and inspect .rindle files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts are data too: [N, T, I] is a shape
    context_settings={"max_content_width": 120},
)
# Names and errors are data: their brackets are no styles. In a file or a pipe there is no screen to fit.
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
console = Console(markup=False, highlight=False, width=WIDTH)
notes = Console(stderr=True, markup=False, highlight=False)  # progress and remarks: never part of what is printed

File = Annotated[Path, typer.Argument(help="a .rindle file", metavar="FILE", show_default=False)]
Data = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="sequences: a .npz file with x (float32 [N, T, I]), and if there are any lengths [N] and y (labels or targets); "
        "or a .npy file, x alone",
    ),
]
MaybeData = Annotated[Path | None, *Data.__metadata__]
Task = Annotated[
    str | None,
    typer.Option(
        help="labels or targets: what the outputs are, where the data have no y or floats of 0 and 1",
        show_default=False,
    ),
]
Decide = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="where one output, or a label per output, becomes a yes: half, zero (logits) or a number; default: half where the "
        "model ends in a sigmoid or all outputs lie in 0..1, else zero",
        show_default=False,
    ),
]
Part = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="which model of a file that has several", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="overwrite the output file")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object, and nothing else")]


def show(as_json: bool, result, *renderables) -> None:
    """The one thing that a verb prints: its result as JSON, or what makes it readable."""
    if as_json:
        print(json.dumps(plain(result), ensure_ascii=False, allow_nan=False))
        return
    for one in renderables:
        console.print(one)


def plain(value):
    """Arrays, dataclasses and paths as JSON's own kinds; what is not finite becomes null, which JSON has."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, type(None))) else str(value)


def progress() -> Progress:
    """A bar on stderr, where that is a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal)


def opened(file: Path, part: str | None) -> Model:
    """One model: the file's, or the part of it that is named. RindleError where the one has parts, or the other none."""
    model = load(file)
    if part is not None:
        return model.part(part)
    if model.parts:
        raise RindleError(f"{file} has several models, the parts {', '.join(model.parts)}; name one with --part")
    return model


def check_output(path: Path, force: bool) -> None:
    """Before long work: refuses to overwrite, and a folder that is not there."""
    if path.exists() and not force:
        raise RindleError(f"{path} exists; give --force to overwrite it")
    if not path.parent.is_dir():
        raise RindleError(f"{path} cannot be written: there is no folder {path.parent}")


def read_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RindleError(f"{path} is not a readable .npy file: {error}") from None


def write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    try:
        write_file(path, buffer.getvalue())
    except OSError as error:
        raise RindleError(f"{path} cannot be written: {error.strerror}") from None
