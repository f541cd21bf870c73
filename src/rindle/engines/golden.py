"""Golden vectors: what a file's outputs have to be. The reference computes them when they are first read, not when an artifact is
made, so that a search over thresholds does not pay for files that nobody writes."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from ..file.artifact import Artifact, Golden
from .reference import run


class Computed(Golden):
    """A golden vector whose outputs the reference computes when they are first read."""

    def __init__(self, inputs: np.ndarray, lengths: np.ndarray, outputs: np.ndarray | None = None, artifact=None):
        """artifact: whose outputs they are, where they are not given; ``dataclasses.replace`` gives them."""
        self.__dict__.update(inputs=inputs, lengths=lengths, _artifact=artifact)
        if outputs is not None:
            self.__dict__["outputs"] = outputs

    @cached_property
    def outputs(self) -> np.ndarray:
        artifact = self._artifact
        found = run(artifact, self.inputs, self.lengths).codes
        return found.astype(np.float32 if artifact.graph.is_float(artifact.graph.output) else np.int16)


def with_golden(artifact: Artifact, inputs: np.ndarray, lengths: np.ndarray) -> Artifact:
    """A copy of the artifact whose golden outputs are those of these input codes [B, T, I], or ids [B, T]. lengths: int [B]."""
    wide = np.int32 if artifact.graph.vocabulary else np.int16
    alone = replace(artifact, golden=None)
    return replace(artifact, golden=Computed(inputs.astype(wide), lengths.astype(np.int32), artifact=alone))


def with_thresholds(artifact: Artifact, thresholds: dict, unit: str = "code") -> Artifact:
    """A copy of the artifact whose inputs are held with these thresholds; see ``Artifact.held_graph``. The golden inputs stay."""
    held = replace(artifact, graph=artifact.held_graph(thresholds, unit))
    return with_golden(held, artifact.golden.inputs, artifact.golden.lengths)
