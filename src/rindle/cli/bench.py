from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from ..engines.model import Model
from ..errors import RindleError, install_hint
from ..file.dataset import load_data
from ..measure.bench import OURS, Bench, Race
from ..measure.bench import bench as measure
from .app import File, Json, MaybeData, Part, app, notes, opened, show

Frames = Annotated[int, typer.Option(min=1, help="frames of the timed sequences")]
Batch = Annotated[int, typer.Option(min=1, help="rows of the second timed sequence; the first has one")]
Slices = Annotated[
    int, typer.Option(min=1, help="time slices of each contender, in turns; medians and bests are over them")
]


@app.command()
def bench(
    file: File,
    data: MaybeData = None,
    part: Part = None,
    frames: Frames = 200,
    batch: Batch = 16,
    slices: Slices = 41,
    torch: Annotated[bool, typer.Option("--torch/--no-torch", help="compare with torch, where it is installed")] = True,
    as_json: Json = False,
) -> None:
    """Time a model per step and per sequence, against torch float and torch dynamic int8 in the same run.

    Everything is timed in turns on one pinned core; torch has the file's own weights and its fastest eager form counts. With
    --data the timed steps walk through its real frames, which is what thresholds gain by; without, every input changes at
    every frame.

    Example: rindle bench sparse.rindle --data test.npz
    """
    model = opened(file, part)
    inputs = None if data is None else real_frames(model, data)
    rivals, missing = rivals_of(model, torch)
    notes.print(f"{file}: id {model.id[:16]}…, kernel {model.kernel}; timing…")
    found = measure(model, rivals, inputs, str(data), frames, batch, slices, missing=missing)
    show(as_json, {"file": file} | found.document(), *_shown(found))


def real_frames(model: Model, path: Path) -> np.ndarray:
    """float32 [N, I]: the real frames of a data file, row after row."""
    loaded = load_data(path)
    if loaded.has_ids or loaded.x.shape[-1] != model.input_size:
        shape = list(loaded.x.shape)
        raise RindleError(
            f"{path}: x is {loaded.x.dtype} {shape}; bench takes float32 [N, T, {model.input_size}], and no ids yet"
        )
    return np.ascontiguousarray(loaded.x[loaded.real])


def rivals_of(model: Model, wanted: bool = True):
    """torch's forms of the model, or None and the reason why there are none."""
    if not wanted:
        return None, "torch was not asked for"
    try:
        from ..nn.back.dequantize import NoTorchForm
        from ..nn.back.rivals import Rivals
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None, f"torch is not installed: {install_hint('torch')}"
    try:
        return Rivals(model.artifact), None
    except NoTorchForm as error:
        return None, f"no comparison with torch: {error}"


def _shown(found: Bench) -> list:
    made = ["This model needs whole sequences, so it has no step."]
    if found.step:
        made = [_race(found.step, "one frame, batch 1")]
    for race in found.sequences:
        made.append(_race(race, f"sequences of {race.frames} frames, batch {race.batch}: per frame"))
    if found.missing:
        made.append(found.missing)
    if found.bound:
        made.append(_bound(found))
    if found.deviation:
        off = max(found.deviation.values())
        made.append(f"Same function: outputs of all torch forms are within {off:.2g} of ours.")
    machine = found.machine
    torch = f"torch {machine['torch']}, " if "torch" in machine else ""
    made.append(
        f"{machine['cpu']}, pinned to core {machine['pinned to']}, one thread; kernel {found.kernel}; {torch}"
        f"numpy {machine['numpy']}, {machine['date']}. Inputs: {found.inputs}. Only ratios of one run travel."
    )
    return made


def _race(race: Race, title: str) -> Table:
    table = Table("", "form", title=title)
    for name in ("µs, median", "µs, best", "rindle is faster"):
        table.add_column(name, justify="right")
    kind = None
    for row in race.rows:
        best = row == race.best(row.kind)
        faster = f"{race.speedup(row.kind):.2f} ×" if best and row.kind != OURS else ""
        shown = row.kind if row.kind != kind else ""
        table.add_row(shown, row.form, f"{row.median:.2f}", f"{row.best:.2f}", faster, style="bold" if best else None)
        kind = row.kind
    return table


def _bound(found: Bench) -> Table:
    bound = found.bound
    table = Table("part of a step", title="what bounds a step (best slices)")
    for name in ("µs", "share", "floor, µs"):
        table.add_column(name, justify="right")
    table.add_column("what it is")
    products = f"{bound.macs_asked:,.0f} of {bound.macs:,} multiply-accumulates, {bound.bytes_asked:,.0f} of {bound.bytes:,} weight bytes"
    rate = f"{bound.mac_gs:.0f} GMAC/s, our kernel in cache" if bound.mac_gs else "rate hidden by noise"
    for name, time, floor, text in (
        ("overhead", bound.call, None, "a model of one unit: Python and the entry into the core"),
        ("element-wise", bound.elementwise, None, "the same model while nothing changes: rounding, tables, states"),
        ("products", bound.products, max(bound.bytes_floor, bound.macs_floor or 0), products),
        (
            "  bytes",
            None,
            bound.bytes_floor,
            f"{bound.read_gbs:.0f} GB/s, reading a buffer of the weights' size (estimate)",
        ),
        ("  operations", None, bound.macs_floor, rate),
        ("whole step", bound.step, None, f"bound by {bound.by}"),
    ):
        share = "" if time is None else f"{time / bound.step:.0%}"
        values = ("" if value is None else f"{value:.2f}" for value in (time, floor))
        first, last = values
        table.add_row(name, first, share, last, text)
    return table
