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

UNITS = ("code", "value")  # of thresholds
VERSION = 4  # the newest that this package knows; a file has the oldest that can say what it says


@dataclass(frozen=True, eq=False)
class Layer:
    """One program node, converted.

    program: with sizes as numbers. formats: path -> Format, codes and vectors included. constants: an operation's first
    result -> Affine, Rescale, Table or clip bounds in codes. vectors: name -> int64 codes [n].
    thetas: held code path -> θ, an int or an int64 array [n]. initial: state -> int64 codes [n] before the first frame, of
    those that do not begin at zero.
    """

    program: Program
    formats: dict[str, Format]
    constants: dict[str, object]
    vectors: dict[str, np.ndarray]
    thetas: dict[str, int | np.ndarray] = field(default_factory=dict)
    initial: dict[str, np.ndarray] = field(default_factory=dict)


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

    def held_graph(self, thresholds: dict, unit: str = "code") -> Graph:
        """The graph with these thresholds, "node/source" -> None (dense), one θ, or one per element; inputs that are not named keep
        theirs. What the golden vector says no longer holds then: ``engines.golden.with_thresholds`` gives the artifact.

        unit: "code": θ is in code units, 0 <= θ < the code's largest value; 0 gives the integers of the dense model. "value": in
        those of the input itself; a change that is not larger is skipped.
        """
        if unit not in UNITS:
            raise RindleError(f"unknown unit {unit!r} of thresholds; there are {', '.join(UNITS)}")
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
                check = check_theta if unit == "code" else theta_of_value
                thetas[node][code] = check(theta, layer.formats[code], layer.program.sizes[code], name)
        nodes = tuple(
            replace(node, layer=replace(node.layer, thetas=ordered(node.layer.program, thetas[node.name])))
            if isinstance(node, ProgramNode)
            else node
            for node in self.graph.nodes
        )
        return replace(self.graph, nodes=nodes)


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


def theta_of_value(value, fmt: Format, size: int, where: str) -> int | np.ndarray:
    """A threshold in units of the value -> θ, checked: |Δ| · scale > value is |Δ| > floor(value / scale) for codes."""
    values = np.asarray(value)
    if values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)) or np.any(values < 0):
        raise RindleError(f"{where}: the threshold is {value!r}; in units of the value it is a number, 0 or more")
    if np.any(values >= fmt.hi * fmt.scale):
        raise RindleError(
            f"{where}: the threshold is {value!r}; it must be below {fmt.hi * fmt.scale:g}, the largest value of {fmt}, "
            "so that a change can exceed it"
        )
    return check_theta(np.floor(values / fmt.scale), fmt, size, where)
