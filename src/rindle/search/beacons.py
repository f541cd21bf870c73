"""Beacon-based search (MOHAQ, arXiv 2108.01192): a few candidates are retrained, and their neighbours borrow the parameters.

Quantization after training says too little of what narrow weights can do, and to retrain every candidate is too dear. So a
candidate from a useful region that is further than ``apart`` from every beacon becomes a beacon itself: it is retrained. Every
candidate of that region is evaluated once more with the parameters of the nearest beacon, quantized at its own widths; the better of
the two counts.

A beacon is a file, written whole: what was retrained is there after a kill, and for every process that searches in the same folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from ..errors import RindleError
from ..files import write_file
from .precision import distance
from .workers import Candidate, Outcome

APART = 5.0  # in the distance of ``precision.distance``, as published

Parameters = dict[str, np.ndarray]


@dataclass(frozen=True)
class Beacon:
    candidate: Candidate
    path: Path

    def parameters(self) -> Parameters:
        return safetensors.numpy.load_file(self.path)


@dataclass(frozen=True)
class Beacons:
    """An evaluation with beacons, for a study. Can be pickled where its callables can.

    evaluate: (candidate, parameters) -> Outcome, None for the trained ones. retrain: candidate -> parameters by name, trained
    under that candidate's quantization. useful: whether an outcome's region is worth a beacon. objective: the one that
    retraining lowers. folder: of the beacons' files; it must exist.
    """

    evaluate: Callable[[Candidate, Parameters | None], Outcome]
    retrain: Callable[[Candidate], Parameters]
    useful: Callable[[Outcome], bool]
    folder: Path
    objective: str = "error"
    apart: float = APART

    def __call__(self, candidate: Candidate) -> Outcome:
        plain = self.evaluate(candidate, None)
        if not self.useful(plain):
            return plain
        near = self.nearest(candidate)
        if near is None or distance(candidate, near.candidate) > self.apart:
            near = self._lit(candidate)
        borrowed = self.evaluate(candidate, near.parameters())
        story = {
            "beacon": near.path.name,
            "distance": distance(candidate, near.candidate),
            "after training": plain.values[self.objective],
            "with beacon": borrowed.values[self.objective],
        }
        better = min(plain, borrowed, key=lambda one: one.values[self.objective])
        return replace(better, more=better.more | story)

    def known(self) -> list[Beacon]:
        """All that stand in the folder, in a fixed order."""
        return [_read(path) for path in sorted(self.folder.glob("beacon-*.safetensors"))]

    def nearest(self, candidate: Candidate) -> Beacon | None:
        return min(self.known(), key=lambda one: distance(candidate, one.candidate), default=None)

    def _lit(self, candidate: Candidate) -> Beacon:
        parameters = {name: np.ascontiguousarray(values) for name, values in self.retrain(candidate).items()}
        text = json.dumps(candidate, sort_keys=True)
        path = self.folder / f"beacon-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
        try:
            write_file(path, safetensors.numpy.save(parameters, {"candidate": text}))
        except OSError as error:
            raise RindleError(f"the beacon {path} cannot be written: {error.strerror}") from None
        return Beacon(candidate, path)


def _read(path: Path) -> Beacon:
    try:
        with safe_open(path, "numpy") as file:
            return Beacon(json.loads(file.metadata()["candidate"]), path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RindleError(f"{path} is not a beacon: {error}; remove it to retrain that candidate") from None
