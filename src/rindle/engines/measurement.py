"""What a run cost: operations and weight bytes, from measured activity. Design, section 6."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..program.products import terms_of_node


@dataclass(frozen=True)
class Input:
    """One product input of a layer over a measured run.

    hidden: it is the layer's own state, or made of it within the frame (r ⊙ h); else it comes from below. theta: None if dense. macs, weight_bits: of the
    products that read it, per frame. density: share of its elements that changed, 1 if dense. frames: real ones.
    """

    node: str
    path: str
    hidden: bool
    size: int
    theta: int | np.ndarray | None
    macs: int
    weight_bits: int
    density: float
    frames: int

    @property
    def name(self) -> str:
        return f"{self.node}/{self.path}"


@dataclass(frozen=True)
class Measurement:
    """output: what ``Model.run`` gives. inputs: every product input of the recurrent layers. saturations: (node,
    operation) -> elements that were clipped; ("input", "input") is the model's own input. others: product inputs of the
    layers without a state.
    """

    output: np.ndarray
    inputs: tuple[Input, ...]
    saturations: dict[tuple[str, str], int]
    others: tuple[Input, ...] = ()

    def eliminated(self, hidden: bool | None = None) -> float:
        """Share of the recurrent multiply-accumulates that no changed element asked for: of all products in the
        recurrent layers; hidden True or False: of those on the state, or on the input, alone.
        """
        return self._share("macs", hidden)

    def eliminated_weight_bytes(self) -> float:
        """Share of the recurrent layers' weight bytes that need not be read."""
        return self._share("weight_bits", None)

    def _share(self, what: str, hidden: bool | None) -> float:
        chosen = [one for one in self.inputs if hidden in (None, one.hidden)]
        whole = sum(getattr(one, what) * one.frames for one in chosen)
        spared = sum(getattr(one, what) * one.frames * (1 - one.density) for one in chosen)
        return spared / whole if whole else 0.0


def measured_inputs(
    artifact, changes: dict[tuple[str, str], tuple[int, int]], lengths, recurrent: bool = True
) -> tuple[Input, ...]:
    """changes: (node, held code) -> (elements changed, frames). lengths: real frames of each row of the run. recurrent: of the
    recurrent layers, or of all others.
    """
    names = {key: name.split("/", 1)[1] for name, key in artifact.held_codes().items()}
    rows = []
    for node in artifact.graph.programs:
        if bool(node.layer.program.states) != recurrent:
            continue
        layer = node.layer
        frames = sum(artifact.graph.frames(node.name, int(length)) for length in lengths if length)
        for code in layer.program.codes:
            readers = [one for one in terms_of_node(node) if one.term.code == code]
            size = layer.program.sizes[code]
            changed, seen = changes.get((node.name, code), (size * frames, frames))
            density = changed / (size * seen) if seen else 1.0
            rows.append(
                Input(
                    node.name,
                    names[node.name, code],
                    readers[0].hidden,
                    size,
                    layer.thetas.get(code),
                    sum(one.macs for one in readers),
                    sum(one.bits for one in readers),
                    density,
                    seen,
                )
            )
    return tuple(rows)
