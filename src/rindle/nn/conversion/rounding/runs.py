"""Calibration rows through a part of a plan: in float, and in the integers as they are so far (the simulation, exact)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from ....numbers.codes import Codes
from ....numbers.formats import encode_input
from ....program.graph import Graph, execute
from ...calibrate.groups import ROWS, batches, pack
from ...calibrate.plan import Plan
from ...numerics import DoubleCodes, Real, RealArrays, in_double
from ..convert import convert_node


class Rows:
    """The calibration rows. Iterating gives packs of at most ROWS of them, whatever their lengths: lists of frames
    [rows still running, I] float32, or ids [rows still running], as ``graph.execute`` takes them.
    """

    def __init__(self, calibration, batch_first: bool):
        self.calibration, self.batch_first = calibration, batch_first

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        waiting: list[np.ndarray] = []
        for batch in batches(self.calibration, self.batch_first):
            waiting += list(batch.reshape(*batch.shape[:2], -1) if batch.ndim > 3 else batch)
            while len(waiting) >= ROWS:
                yield pack(waiting[:ROWS])
                del waiting[:ROWS]
        if waiting:
            yield pack(waiting)


def until(graph: Graph, name: str) -> Graph:
    """What a node's value depends on, and the node."""
    needed = {name}
    for node in reversed(graph.nodes):
        needed |= set(node.sources) if node.name in needed else set()
    return replace(graph, nodes=tuple(node for node in graph.nodes if node.name in needed), output=name)


Watch = Callable[[object, tuple, tuple], None]  # of an affine: the operation, its inputs and its results


class _Watched:
    """Numerics that show what goes into and comes out of every affine."""

    watch: Watch | None = None

    def affine(self, op, *codes):
        results = super().affine(op, *codes)
        if self.watch:
            self.watch(op, codes, results)
        return results


class _Floats(_Watched, Real):
    pass


class _Integers(_Watched, Codes):
    pass


@torch.no_grad()
def run_float(graph: Graph, name: str, rows: Rows, watch: Watch | None = None) -> Iterator[dict]:
    """Of every pack, the values of what ``name`` depends on, in float64. watch: is shown the affines of ``name``."""
    part = in_double(until(graph, name))
    numerics = {node.name: _Floats(node.layer) for node in part.programs}
    numerics[name].watch = watch
    for frames in rows:
        yield execute(part, numerics, RealArrays, frames if graph.vocabulary else [frame.double() for frame in frames])


@torch.no_grad()
def run_codes(plan: Plan, name: str, rows: Rows, watch: Watch | None = None) -> Iterator[dict]:
    """Of every pack, the codes (in float64) of what ``name`` depends on, by the plan as it is now. watch: as above."""
    part = until(plan.graph, name)
    part = replace(part, nodes=tuple(convert_node(node, plan) for node in part.nodes))
    numerics = {node.name: _Integers(node.layer, DoubleCodes) for node in part.programs}
    numerics[name].watch = watch
    for frames in rows:
        codes = frames
        if not plan.graph.vocabulary:
            codes = [torch.from_numpy(encode_input(frame.numpy(), plan.input_format)[0]).double() for frame in frames]
        yield execute(part, numerics, DoubleCodes, codes)
