"""Everything that the report shows, measured on real frames, as plain data: what JSON holds and the page is drawn from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..engines.model import Model
from ..errors import RindleError
from ..file.dataset import Dataset
from ..measure.analysis import analyse, few, over_time
from ..measure.bench import bench, machine
from ..measure.cost import sizes
from ..measure.evaluate import Judge, judge_of
from ..program.nodes import INPUT
from ..program.program import NEXT

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
        with _named(name):
            data.check_fits(model.artifact.graph)
    first, reference = next(iter(models.items()))
    with _named(first):
        judge = judge_of(data, reference.run(data.x, data.lengths), reference.artifact.graph)
    made = []
    for name, model in models.items():
        with _named(name):
            step(f"{name}: quality and activity")
            one = _model(name, model, data, judge)
            if rivals and not data.has_ids:  # steps over ids are not timed yet
                step(f"{name}: time")
                forms, missing = rivals(model)
                frames = np.ascontiguousarray(data.x[data.real])
                one["bench"] = bench(model, forms, frames, data.name, slices=slices, missing=missing).document()
            made.append(one)
    plain = {
        "command": command,
        "machine": machine(),
        "torch": next(
            (m["bench"]["machine"]["torch"] for m in made if m["bench"] and "torch" in m["bench"]["machine"]), None
        ),
        "data": {
            "file": data.name,
            "name": Path(data.name).name,
            "sha256": data.sha256,
            "rows": len(data),
            "frames": data.frames,
            "longest": int(data.lengths.max()),
            "targets": "none; the first model is the reference" if data.y is None else judge.task,
            "judged": str(judge),
        },
        "metric": made[0]["metric"] | {"reference": None if data.y is not None else made[0]["name"]},
        "models": made,
    }
    return json.loads(json.dumps(plain, allow_nan=False))  # lists, not tuples: exactly what a reader of the JSON gets


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except RindleError as error:
        raise RindleError(f"{name}: {error}") from None


def _model(name: str, model: Model, data: Dataset, judge: Judge) -> dict:
    measured = model.measure(data.x, data.lengths)
    found = judge.score(measured.output)
    held = {one.name: 0 for one in measured.inputs}
    at_zero = model.with_thresholds(held).measure(data.x, data.lengths)
    dense = judge.score(at_zero.output)
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
        "lost": _finite(found.lost(dense)),
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
        "delta": _search(provenance.get("delta")),
        "bench": None,
        **_analysis(model, data),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _search(story) -> dict | None:
    """What ``rindle delta`` wrote into the file: the front it walked. Provenance is free-form: None if it reads otherwise."""
    try:
        inputs = [str(name) for name in story["inputs"]]
        front = [
            {"thetas": dict(zip(inputs, map(int, thetas))), "lost": lost, "error": error, "eliminated": eliminated}
            for thetas, lost, error, eliminated in (
                (thetas, *map(float, numbers)) for thetas, *numbers in story["front"]
            )
        ]
        if not np.isfinite([[p["lost"], p["error"], p["eliminated"]] for p in front]).all():
            return None
        data = {"sha256": str(story["data"]["sha256"])}
        return {"budget": float(story["budget"]), "metric": str(story["metric"]), "data": data, "front": front}
    except (KeyError, TypeError, ValueError):
        return None


def _scheme(scheme) -> str:
    return scheme if isinstance(scheme, str) else "custom" if scheme else "unknown"


def _theta(theta) -> int | str | None:
    """A number, "lo…hi" for one per element, or None for dense."""
    return f"{theta.min()}…{theta.max()}" if isinstance(theta, np.ndarray) else theta


def _layer(artifact, node) -> dict:
    reads = node.source if len(node.sources) == 1 else node.sources
    return {"name": node.name, "kind": node.label, "reads": reads, "size": artifact.graph.size_of(node.name)}


def activity(model: Model, data: Dataset, points: int = POINTS) -> list[dict]:
    """Share of each recurrent input's elements that changed, along the sequence: {input, from, to, density, frames}.

    Frames count from 0; a span holds from..to−1, and the real frames of all rows that reach it. Inputs without a θ are held
    with θ = 0, which changes no integer, so that their own rest is seen. Exact: the core's counters over all rows cut off
    at the span's end, less those at its start. What depends on frames to come, by a reversed layer or a window, has one span.
    """
    held = {one.name: 0 for one in model.measure(data.x[:1], data.lengths[:1]).inputs if one.theta is None}
    counted = model.with_thresholds(held) if held else model
    longest = int(data.lengths.max())
    least = min(model.artifact.graph.least_frames, longest)
    edges = np.unique(np.linspace(least - 1, longest, min(points, longest - least + 1) + 1).astype(int))
    edges[0] = 0
    inputs = {name: key for name, key in model.artifact.held_codes().items() if key in _recurrent(model)}
    before, spans = dict.fromkeys(inputs, (0, 0)), []
    for start, end in pairwise(edges):
        changes = _changes(counted, data, int(end))
        for name, key in inputs.items():
            node, code = key
            if _looks_ahead(model.artifact.graph, node):
                if end < longest:
                    continue
                start = 0
            size = model.artifact.graph.program(node).layer.program.sizes[code]
            changed, frames = (now - was for now, was in zip(changes[key], before[name]))
            before[name] = changes[key]
            if not frames:  # a strided window makes none of these
                continue
            density = changed / (size * frames)
            spans.append({"input": name, "from": int(start), "to": int(end), "density": density, "frames": frames})
    return spans


def _looks_ahead(graph, name: str) -> bool:
    """Whether a node's value at a frame depends on later ones: then the first frames of a row are no row of their own."""
    if name == INPUT:
        return False
    node = graph.node(name)
    return bool(node.why_whole) or any(_looks_ahead(graph, source) for source in node.sources)


def _recurrent(model: Model) -> set[tuple[str, str]]:
    return {(node.name, code) for node in model.artifact.graph.recurrent for code in node.layer.program.codes}


def _changes(model: Model, data: Dataset, end: int) -> dict:
    """(node, code) -> (elements changed, frames) over the first ``end`` frames of every row."""
    rows = model._inputs.rows(data.x[:, :end], np.float32, np.minimum(data.lengths, end))
    return model._counts(model._runtime(rows, np.float32)[1])[1]


def _analysis(model: Model, data: Dataset) -> dict:
    """Per path: format, share of the range in use, share of values that were clipped (None: a table or a clip, which cannot
    be), and signal-to-quantization-noise ratio in dB (None: no noise, or no signal). growth: the ratio along the rows, of
    each recurrent layer's output and states and of the model's output.
    """
    found = analyse(model.artifact, few(data))
    followed = over_time(model.artifact, found)
    paths, growth = [], []
    for one in found.paths:
        paths.append(
            {
                "node": one.node,
                "path": one.path,
                "format": str(one.format),
                "made_by": one.kind,
                "used": one.used,
                "saturated": None if one.saturated is None else one.saturation_rate,
                "snr_db": one.sqnr if np.isfinite(one.sqnr) else None,
            }
        )
        if one in followed and one.growth:
            growth += [
                {"path": one.name.removesuffix(NEXT), "position": position, "snr_db": ratio}
                for position, ratio in zip(found.positions, one.growth)
                if np.isfinite(ratio)
            ]
    return {"paths": paths, "growth": growth, "analysed": {"rows": found.rows, "frames": found.frames}}
