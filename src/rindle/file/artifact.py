"""The waist: what a converted model is. ``container`` makes it one .rindle file; docs/format.md says what that holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import numpy as np

from ..errors import RindleError
from ..numbers.formats import Format
from ..program.graph import Graph
from ..program.nodes import ProgramNode
from ..program.program import Program
from .needs import features

VERSION = 4  # the newest that this package knows; a file has the oldest that can say what it says


@dataclass(frozen=True, eq=False)
class Layer:
    """One program node, converted.

    program: with sizes as numbers. formats: path -> Format, codes and vectors included. constants: an operation's first
    result -> Affine, Rescale, Table or clip bounds in codes. vectors: name -> int64 codes [n].
    thetas: held code path -> θ, an int or an int64 array [n].
    """

    program: Program
    formats: dict[str, Format]
    constants: dict[str, object]
    vectors: dict[str, np.ndarray]
    thetas: dict[str, int | np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Golden:
    """inputs: int16 [B, T, I], or ids, int32 [B, T]; lengths: int32 [B]; outputs: int16 [B, T', O] or [B, O], T' frames being
    what windows make of T; float32 where the output is a float node.
    """

    inputs: np.ndarray
    lengths: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True, eq=False)
class Artifact:
    """A converted model: all that any backend needs. input_format: None where the input is ids. provenance: free-form,
    for people.
    """

    graph: Graph[Layer]
    input_format: Format | None
    golden: Golden
    provenance: dict = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the features of format version 4 that this model uses, sorted."""
        return features(self)

    @property
    def version(self) -> int:
        """Of the file format: the oldest that has all that this model uses."""
        if self.needs:
            return 4
        return max(node.version for node in self.graph.nodes)

    @property
    def output_format(self) -> Format | None:
        """None where the output is a float node."""
        return self.format_of(self.graph.output)

    @property
    def output_size(self) -> int:
        return self.graph.size_of(self.graph.output)

    def format_of(self, name: str) -> Format | None:
        """Format of a node's value, or of the input."""
        return self.graph.format_of(name, self.input_format)

    def held_codes(self) -> dict[str, tuple[str, str]]:
        """Every input that can have a threshold: "node/source" -> (node, code path); see ``Model.thresholds``."""
        names = {}
        for node in self.graph.programs:
            for code, name in node.layer.program.code_names().items():
                names[f"{node.name}/{name}"] = (node.name, code)
        return names

    def with_thresholds(self, thresholds: dict) -> Artifact:
        """A copy whose inputs are held with these θ. "node/source" -> None (dense), an integer, or one per element.

        θ is in code units, 0 <= θ < the code's largest value; 0 gives the integers of the dense model. Inputs that are
        not named keep theirs. The golden vector is computed anew.
        """
        known = self.held_codes()
        thetas = {node.name: dict(node.layer.thetas) for node in self.graph.programs}
        for name, theta in thresholds.items():
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
                raise RindleError(f"no input named {name!r}{hint}")
            node, code = known[name]
            layer = self.graph.program(node).layer
            thetas[node].pop(code, None)
            if theta is not None:
                thetas[node][code] = check_theta(theta, layer.formats[code], layer.program.sizes[code], name)
        nodes = tuple(
            replace(node, layer=replace(node.layer, thetas=ordered(node.layer.program, thetas[node.name])))
            if isinstance(node, ProgramNode)
            else node
            for node in self.graph.nodes
        )
        changed = replace(self, graph=replace(self.graph, nodes=nodes))
        return changed.with_golden(self.golden.inputs, self.golden.lengths)

    def with_golden(self, inputs: np.ndarray, lengths: np.ndarray) -> Artifact:
        """A copy whose golden outputs the reference computes from these input codes, or ids."""
        from ..engines.reference import run

        outputs = run(self, inputs, lengths).codes
        outputs = outputs.astype(np.float32 if self.graph.is_float(self.graph.output) else np.int16)
        wide = np.int32 if self.graph.vocabulary else np.int16
        return replace(self, golden=Golden(inputs.astype(wide), lengths.astype(np.int32), outputs))


def ordered(program: Program, thetas: dict) -> dict:
    """Held codes in the order in which their requantize operations stand."""
    return {code: thetas[code] for code in program.codes if code in thetas}


def check_theta(theta, fmt: Format, size: int, where: str) -> int | np.ndarray:
    """θ as an int or int64 array [size]; RindleError unless integers in 0..hi-1."""
    values = np.asarray(theta)
    if values.dtype == bool or values.dtype.kind not in "iu":
        if values.dtype.kind != "f" or not np.all(np.isfinite(values)) or np.any(values != np.floor(values)):
            raise RindleError(
                f"{where}: θ is {theta!r}; thresholds are whole numbers in code units (one is {fmt.scale:.4g})"
            )
    if values.shape not in ((), (size,)):
        raise RindleError(
            f"{where}: θ has shape {values.shape}; give one number, or one for each of the {size} elements"
        )
    if np.any(values < 0) or np.any(values >= fmt.hi):
        raise RindleError(
            f"{where}: θ is {theta!r}; it must be 0..{fmt.hi - 1}: codes reach {fmt.hi}, so that a larger one would never fire"
        )
    return int(values) if values.ndim == 0 else values.astype(np.int64)
