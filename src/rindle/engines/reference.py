"""Integer inference in NumPy: the definition of correct."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..numbers.codes import Codes, NumPy
from ..numbers.formats import decode, encode_input
from ..program.graph import execute
from ..program.nodes import INPUT


@dataclass
class Result:
    """codes: int64 [B, T', O] (0 past a row's length) or [B, O]; float32 values where the output is a float node. T' is T,
    unless windows change the number of frames. values: node -> value codes, laid out likewise.

    saturations: (node, operation) -> elements; ("input", "input") for the input rule. changes: (node, code path) ->
    (elements changed, frames).
    """

    codes: np.ndarray
    values: dict[str, np.ndarray]
    saturations: dict[tuple[str, str], int]
    changes: dict[tuple[str, str], tuple[int, int]]


def run(artifact, x: np.ndarray, lengths: np.ndarray | None = None, xp=NumPy, make=Codes, states=None) -> Result:
    """x: float32 values or int codes [B, T, I], or int ids [B, T]; lengths: int [B], 1..T.

    states: "node/state" -> int codes [B, n] before the first frame, in place of the model's own.
    Callers validate: ``Model.run`` does. xp and make choose another namespace for the same integers.
    """
    batch, time = x.shape[:2]
    lengths = np.full(batch, time) if lengths is None else np.asarray(lengths)
    saturated = 0
    order = np.argsort(-lengths, kind="stable")
    if x.dtype.kind == "f":
        codes = np.zeros(x.shape, np.int64)
        for row, length in enumerate(lengths):
            codes[row, :length], outside = encode_input(x[row, :length], artifact.input_format)
            saturated += outside
    else:
        codes = x.astype(np.int64)
    frames = [xp.array(codes[order[lengths[order] > t], t]) for t in range(int(lengths.max()))]
    numerics = {node.name: make(node.layer, xp) for node in artifact.graph.programs}
    for name, start in (states or {}).items():
        node, _, state = name.rpartition("/")
        numerics[node].start[state] = xp.array(np.asarray(start)[order])

    def value_of(name: str, codes) -> np.ndarray:
        return decode(np.asarray(codes), artifact.format_of(name))

    values = execute(artifact.graph, numerics, xp, frames, value_of)
    arrays = {name: _restore(value, order, artifact.graph, name, time) for name, value in values.items()}
    saturations = {(INPUT, INPUT): saturated}
    changes = {}
    for name, one in numerics.items():
        saturations |= {(name, op): count for op, count in one.saturations.items()}
        changes |= {(name, code): (count, one.frames) for code, count in one.changes.items()}
    return Result(arrays[artifact.graph.output], arrays, saturations, changes)


def _restore(value, order: np.ndarray, graph, name: str, time: int) -> np.ndarray:
    """Back from sorted rows and falling batches to [B, T', F] (ids: [B, T]) or [B, F]."""
    dtype = np.float32 if graph.is_float(name) else np.int64
    if not isinstance(value, list):
        sorted_rows = np.asarray(value)
        out = np.zeros_like(sorted_rows)
        out[order] = sorted_rows
        return out.astype(dtype)
    out = np.zeros((len(order), graph.frames(name, time), *value[0].shape[1:]), dtype)
    for t, frame in enumerate(value):
        out[order[: len(frame)], t] = np.asarray(frame)
    return out
