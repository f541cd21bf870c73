"""What every verb shares: the application, its console, and arrays in files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from ..container import write_file
from ..formats import RindleError

app = typer.Typer(
    help="Quantized recurrent networks: run, verify and inspect .rindle files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(markup=False, highlight=False)  # names and errors are data: their brackets are no styles
File = Annotated[Path, typer.Argument(help="a .rindle file", metavar="FILE", show_default=False)]


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
