from __future__ import annotations

import numpy as np
import typer
from rich.table import Table

from ..engines.files import load
from ..engines.model import Model
from .app import File, Json, app, show


@app.command()
def verify(file: File, as_json: Json = False) -> None:
    """Replay the golden vector, of every part, in every engine there is; exit code 1 if one disagrees.

    Example: rindle verify m.rindle
    """
    whole = load(file)
    found = {name: _verified(f"{file}, {name}", part) for name, part in whole.parts.items()}
    if not found:
        result, table = _verified(str(file), whole)
        result, tables = {"file": file, **result}, [table]
    else:
        parts, tables = {name: one for name, (one, _) in found.items()}, [table for _, table in found.values()]
        result = {"file": file, "id": whole.id, "parts": parts, "equal": all(one["equal"] for one in parts.values())}
    show(as_json, result, *tables)
    raise typer.Exit(0 if result["equal"] else 1)


def _verified(name: str, model: Model) -> tuple[dict, Table]:
    golden = model.artifact.golden
    table = Table("engine", "golden outputs", title=f"{name}, {golden.inputs.shape[0]} golden sequences")
    wrong: dict[str, int | None] = {}
    for engine, replay in _engines(model):
        try:
            wrong[engine] = model.disagreements(replay())
        except ModuleNotFoundError as error:
            wrong[engine] = None
            table.add_row(engine, f"not run: {error.name} is not installed")
            continue
        same, values = ("close", "values") if model.is_float else ("equal", "codes")
        table.add_row(engine, f"{wrong[engine]} of {golden.outputs.size} {values} differ" if wrong[engine] else same)
    return {"id": model.id, "codes": golden.outputs.size, "differ": wrong, "equal": not any(wrong.values())}, table


def _engines(model: Model):
    yield f"runtime ({model.kernel} kernel)", model.replay
    if model.artifact.graph.whole_sequence is None:
        yield "runtime, frame by frame", lambda: _stepped(model)
    yield "reference (NumPy)", lambda: model.replay("reference")
    yield "simulation (torch)", lambda: _simulated(model)


def _simulated(model: Model) -> np.ndarray:
    from ..nn.simulate import run

    return run(model.artifact, model.artifact.golden.inputs, model.artifact.golden.lengths).codes


def _stepped(model: Model) -> np.ndarray:
    """The golden inputs, streamed."""
    golden = model.artifact.golden
    outputs, stream = np.zeros_like(golden.outputs), model.stream()
    inputs, step = (model.golden_frames, stream.step) if model.is_float else (golden.inputs, stream.step_codes)
    for row, (frames, length) in enumerate(zip(inputs, golden.lengths)):
        stream.reset()
        for t in range(length):
            y = step(frames[t])
            if model.is_sequence:
                outputs[row, t] = y
        if not model.is_sequence:
            outputs[row] = y
    return outputs
