"""Everything that the report shows, measured on real frames, as plain data: what JSON holds and the page is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from .. import _core
from ..bench import bench, machine
from ..cost import sizes
from ..dataset import Dataset
from ..evaluate import score, task_of
from ..formats import RindleError
from ..graph import INPUT
from ..runtime import Model

POINTS = 40  # of a curve along the sequence


def collect(
    models: dict[str, Model],
    data: Dataset,
    *,
    command: str = "",
    rivals: Callable[[Model], tuple] | None = None,
    slices: int = 41,
    step: Callable[[str], None] = lambda text: None,
) -> dict:
    """models: name -> model, all of the same task; the first is the reference where the data have no y.

    rivals: gives (torch's forms or None, why none) for a model, and asks for timing; None: no times. step: is told what is
    done next. Returns plain data; see the keys below.
    """
    for name, model in models.items():
        if data.has_ids or data.x.shape[-1] != model.input_size:
            raise RindleError(
                f"{data.name}: x is {data.x.dtype} {list(data.x.shape)}; {name} takes float32 [N, T, {model.input_size}]"
            )
    reference = next(iter(models.values()))
    task = task_of(data, reference.output_size)
    agreed = None if data.y is not None else reference.run(data.x, data.lengths)
    made = []
    for name, model in models.items():
        with _named(name):
            step(f"{name}: quality and activity")
            one = _model(name, model, data, agreed, task)
            if rivals:
                step(f"{name}: time")
                forms, missing = rivals(model)
                frames = np.ascontiguousarray(data.x[data.real])
                one["bench"] = bench(model, forms, frames, data.name, slices=slices, missing=missing).document()
            made.append(one)
    return {
        "command": command,
        "machine": machine(),
        "data": {
            "file": data.name,
            "sha256": data.sha256,
            "rows": len(data),
            "frames": data.frames,
            "longest": int(data.lengths.max()),
            "targets": "none; the first model is the reference" if data.y is None else task,
        },
        "noise_note": None,
        "metric": made[0]["metric"] | {"reference": None if data.y is not None else made[0]["name"]},
        "models": made,
    }


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except RindleError as error:
        raise RindleError(f"{name}: {error}") from None


def _model(name: str, model: Model, data: Dataset, agreed, task: str) -> dict:
    measured = model.measure(data.x, data.lengths)
    found = score(measured.output, data, agreed, task)
    held = {one.name: 0 for one in measured.inputs}
    at_zero = model.with_thresholds(held).measure(data.x, data.lengths)
    dense = score(at_zero.output, data, agreed, task)
    artifact, provenance = model.artifact, model.artifact.provenance
    by_kind = sizes(artifact)
    return {
        "name": name,
        "id": model.id,
        "kernel": model.kernel,
        "scheme": _scheme(provenance.get("scheme")),
        "layers": [_layer(artifact, node) for node in artifact.graph.nodes],
        "bytes": len(model.data),
        "bytes_by_kind": by_kind,
        "metric": {"name": found.metric, "higher_is_better": found.higher_is_better},
        "score": found.value,
        "more": found.more,
        "lost": found.lost(dense),
        "eliminated": measured.eliminated(),
        "eliminated_input": measured.eliminated(hidden=False),
        "eliminated_hidden": measured.eliminated(hidden=True),
        "eliminated_at_zero": at_zero.eliminated(),
        "eliminated_weight_bytes": measured.eliminated_weight_bytes(),
        "held": any(one.theta is not None for one in measured.inputs),
        "macs": sum(one.macs for one in measured.inputs),
        "inputs": [
            {
                "name": one.name,
                "hidden": one.hidden,
                "size": one.size,
                "macs": one.macs,
                "theta": _theta(one.theta),
                "density": one.density,
                "density_at_zero": zero.density,
            }
            for one, zero in zip(measured.inputs, at_zero.inputs)
        ],
        "over_time": activity(model, data),
        "paths": _paths(model, measured.saturations, data),
        "delta": provenance.get("delta"),
        "bench": None,
    }


def _scheme(scheme) -> str:
    return scheme if isinstance(scheme, str) else "custom" if scheme else "unknown"


def _theta(theta) -> int | str | None:
    """A number, "lo…hi" for one per element, or None for dense."""
    return f"{theta.min()}…{theta.max()}" if isinstance(theta, np.ndarray) else theta


def _layer(artifact, node) -> dict:
    kind = node.layer.program.cell if node.layer else node.kind
    return {"name": node.name, "kind": kind, "reads": node.source, "size": artifact.graph.size_of(node.name)}


def activity(model: Model, data: Dataset, points: int = POINTS) -> list[dict]:
    """Share of each recurrent input's elements that changed, along the sequence: {input, from, to, density, frames}.

    Frames count from 0; a span holds from..to−1, and the real frames of all rows that reach it. Inputs without a θ are held
    with θ = 0, which changes no integer, so that their own rest is seen. Exact: the core's counters over all rows cut off
    at the span's end, less those at its start.
    """
    held = {one.name: 0 for one in model.measure(data.x[:1], data.lengths[:1]).inputs if one.theta is None}
    counted = model.with_thresholds(held) if held else model
    longest = int(data.lengths.max())
    edges = np.unique(np.linspace(0, longest, min(points, longest) + 1).astype(int))
    inputs = {name: key for name, key in model.artifact.held_codes().items() if key in _recurrent(model)}
    before, spans = dict.fromkeys(inputs, (0, 0)), []
    for start, end in pairwise(edges):
        changes = _changes(counted, data, int(end))
        for name, key in inputs.items():
            node, code = key
            size = model.artifact.graph.node(node).layer.program.sizes[code]
            changed, frames = (now - was for now, was in zip(changes[key], before[name]))
            before[name] = changes[key]
            density = changed / (size * frames)
            spans.append({"input": name, "from": int(start), "to": int(end), "density": density, "frames": frames})
    return spans


def _recurrent(model: Model) -> set[tuple[str, str]]:
    return {(node.name, code) for node in model.artifact.graph.recurrent for code in node.layer.program.codes}


def _changes(model: Model, data: Dataset, end: int) -> dict:
    """(node, code) -> (elements changed, frames) over the first ``end`` frames of every row."""
    stream = _core.Stream(model._core)
    x = np.ascontiguousarray(data.x[:, :end])
    stream.run(x, model._empty(x, np.float32), np.minimum(data.lengths, end).astype(np.int32))
    return model._counts(stream)[1]


def _paths(model: Model, saturations: dict, data: Dataset) -> list[dict]:
    """Every path of every program: its format, and the share of its elements that were clipped to its range (None: a
    table or a clip, which cannot be).
    """
    artifact, rows, frames = model.artifact, len(data), data.frames
    clipped = saturations[INPUT, INPUT] / (frames * model.input_size)
    first = {
        "node": INPUT,
        "path": INPUT,
        "format": str(artifact.input_format),
        "made_by": "input",
        "saturated": clipped,
    }
    paths = [first]
    for node in artifact.graph.programs:
        layer, program = node.layer, node.layer.program
        times = frames if artifact.graph.is_sequence(node.source) else rows
        for op in program.ops:
            elements = sum(program.sizes[path] for path in op.out) * times
            for path in op.out:
                one = {"node": node.name, "path": path, "format": str(layer.formats[path]), "made_by": op.kind}
                count = saturations.get((node.name, op.out[0]))  # an affine's gates are counted together
                paths.append(one | {"saturated": None if count is None else count / elements})
    return paths
