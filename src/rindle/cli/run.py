from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import File, Force, Json, Part, app, check_output, opened, read_array, show, write_array


@app.command()
def run(
    file: File,
    input: Annotated[Path, typer.Option(help="float32 [T, I] or [B, T, I], or ids [T] or [B, T], a .npy file")],
    output: Annotated[Path, typer.Option(help="where the float32 outputs go, a .npy file")],
    lengths: Annotated[Path | None, typer.Option(help="real frames of each row, integers [B], a .npy file")] = None,
    part: Part = None,
    engine: Annotated[str, typer.Option(help="runtime or reference: the same bits")] = "runtime",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run a model on sequences from a file.

    Example: rindle run m.rindle --input x.npy --output y.npy
    """
    check_output(output, force)
    model = opened(file, part)
    y = model.run(read_array(input), None if lengths is None else read_array(lengths), engine)
    write_array(output, y)
    result = {"output": output, "shape": y.shape, "dtype": "float32", "engine": engine}
    show(as_json, result, f"{output}: float32 {list(y.shape)}")
