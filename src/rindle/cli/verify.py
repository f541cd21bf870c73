from __future__ import annotations

import numpy as np
import typer
from rich.table import Table

from ..formats import decode
from ..runtime import Model, load
from .app import File, Json, app, show


@app.command()
def verify(file: File, as_json: Json = False) -> None:
    """Replay the golden vector in every engine there is; exit code 1 if one disagrees.

    Example: rindle verify m.rindle
    """
    model = load(file)
    golden = model.artifact.golden
    table = Table("engine", "golden outputs", title=f"{file}, {golden.inputs.shape[0]} golden sequences")
    wrong: dict[str, int | None] = {}
    what = "values" if model.artifact.output_format is None else "codes"
    for name, replay in _engines(model):
        try:
            wrong[name] = int(np.count_nonzero(_differs(replay(), golden.outputs)))
        except ModuleNotFoundError as error:
            wrong[name] = None
            table.add_row(name, f"not run: {error.name} is not installed")
            continue
        table.add_row(name, f"{wrong[name]} of {golden.outputs.size} {what} differ" if wrong[name] else "equal")
    failed = any(wrong.values())
    result = {"file": file, "id": model.id, "codes": golden.outputs.size, "differ": wrong, "equal": not failed}
    show(as_json, result, table)
    raise typer.Exit(1 if failed else 0)


def _differs(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where two outputs are not equal; of float nodes, not as close as docs/format.md asks."""
    if wanted.dtype != np.float32:
        return found != wanted
    return ~(np.abs(found - wanted) <= 1e-5 * np.maximum(1, np.abs(wanted)))


def _engines(model: Model):
    golden = model.artifact.golden
    inputs, run = _inputs(model), model.run_codes if model.artifact.output_format else model.run
    yield f"runtime ({model.kernel} kernel)", lambda: run(inputs, golden.lengths)
    if model.artifact.graph.whole_sequence is None:
        yield "runtime, frame by frame", lambda: _stepped(model)
    yield "reference (NumPy)", lambda: run(inputs, golden.lengths, "reference")
    yield "simulation (torch)", lambda: _simulated(model)


def _inputs(model: Model) -> np.ndarray:
    """The golden inputs; where the output is a float node, as the values that become these codes by the input rule."""
    golden, fmt = model.artifact.golden, model.artifact.input_format
    return golden.inputs if model.artifact.output_format or fmt is None else decode(golden.inputs, fmt)


def _simulated(model: Model) -> np.ndarray:
    from ..nn.simulate import run

    return run(model.artifact, model.artifact.golden.inputs, model.artifact.golden.lengths).codes


def _stepped(model: Model) -> np.ndarray:
    """The golden inputs, streamed."""
    golden = model.artifact.golden
    outputs, stream = np.zeros_like(golden.outputs), model.stream()
    step = stream.step_codes if model.artifact.output_format else stream.step
    for row, (frames, length) in enumerate(zip(_inputs(model), golden.lengths)):
        stream.reset()
        for t in range(length):
            y = step(frames[t])
            if model.is_sequence:
                outputs[row, t] = y
        if not model.is_sequence:
            outputs[row] = y
    return outputs
