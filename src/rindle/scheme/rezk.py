"""Schemes that look at a model's layers: the precision grid and the path skipping of Rezk et al. 2022, as plain rules.

    "rezk-m1"             a row of the grid: bits of the first recurrent layer, of the others, and of the layers behind them
    "rezk-m1 skip=all"    and the published path of every layer left at 16 bits: skip=all, first (layers alone) or none
    "int8 skip=first"     any scheme may leave them so

A scheme of `rindle.scheme` knows names of paths; these also ask which layer comes first and which product reads a state.
So they are functions of a graph, and what they give is a dict of rules like any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..errors import RindleError
from ..program.graph import Graph
from ..program.nodes import INPUT, ProgramNode
from ..program.program import Program
from .rules import named_scheme

MODES = ("none", "all", "first")
# Of a skipped path, and of layers before the first recurrent one. Two of the weights' bits stay unused: the shift that a
# product of 16 by 16 bits needs must leave room for the multipliers of coarse ones in the same affine, numerics (8a).
WEIGHT, CODE = "fixed16 max(4)", "fixed16 max(1.25)"


@dataclass(frozen=True)
class Row:
    """Bits, of the first recurrent layer and of the others: of weights and codes on the input (x), and on the state (h) or,
    for a cell without such products, of its projection. fc: of weights and codes in the layers after the recurrent ones.
    """

    weights_x: tuple[int, int]
    weights_h: tuple[int, int]
    codes_x: tuple[int, int]
    codes_h: tuple[int, int]
    fc: tuple[int, int]


REZK = {
    "rezk-uniform8": Row((8, 8), (8, 8), (8, 8), (8, 8), (8, 8)),
    "rezk-uniform4": Row((4, 4), (4, 4), (4, 4), (4, 4), (4, 4)),
    "rezk-8-4": Row((8, 4), (4, 4), (8, 4), (4, 4), (4, 4)),
    "rezk-m1": Row((8, 2), (2, 2), (8, 8), (8, 8), (8, 8)),
    "rezk-m2": Row((8, 2), (2, 2), (8, 8), (8, 8), (4, 4)),
    "rezk-m3": Row((8, 2), (2, 2), (8, 8), (8, 8), (2, 8)),
    "rezk-m4": Row((2, 2), (2, 2), (8, 8), (8, 8), (2, 8)),
    "rezk-m5": Row((2, 2), (2, 2), (2, 2), (2, 2), (2, 4)),
    "rezk-m6": Row((8, 2), (2, 2), (8, 4), (4, 4), (4, 4)),
    "rezk-m7": Row((8, 2), (2, 2), (8, 4), (4, 4), (2, 4)),
    "rezk-m8": Row((4, 2), (4, 2), (4, 4), (4, 4), (2, 4)),
}

# cell -> its skipped product (gate, source), and how many first layers the mode "first" means
SKIPPED: dict[str, tuple[tuple[str, str] | None, int]] = {
    "lstm*": (("g", "h"), 2),
    "gru": (("nh", "h"), 3),
    "gru_reset_before": (("n", "rh"), 3),
    "ligru": (("a", "h"), 3),
    "sru*": (None, 0),  # no product reads a state
}


def rules(scheme, graph: Graph):
    """The plain rules of a scheme for this graph: "layer/path" -> rule. What needs no graph is returned as it is.

    Raises RindleError for an unknown name or mode, and where nothing is published of a cell that is to be skipped.
    """
    if not is_preset(scheme):
        return scheme
    name, mode = _parts(scheme)
    if name.startswith("rezk") and name not in REZK:
        near = get_close_matches(name, REZK, 1)
        raise RindleError(f"unknown scheme {name!r}; did you mean {near[0]!r}? There are {', '.join(REZK)}")
    base = rezk(REZK[name], graph) if name in REZK else named_scheme(name)
    return {**base, **skip(graph, mode)}


def is_preset(scheme) -> bool:
    """Whether a scheme is one of this file: a string that rindle.scheme does not know."""
    return isinstance(scheme, str) and ("skip=" in scheme or scheme.startswith("rezk"))


def rezk(row: Row, graph: Graph) -> dict[str, str]:
    """A row of the grid: MMSE weights, MMSE codes by the median over calibration sequences (of the layers behind, 0.8 of the
    largest value), 16-bit fixed point elsewhere.
    """
    found, depths, below = {"*": "fixed16 max(1.25)"}, depths_of(graph), below_recurrent(graph)
    for node in graph.programs:
        depth, program = depths[node.name], node.layer.program
        for gate, source in program.blocks:
            weight, code = WEIGHT, CODE
            if program.states:
                later = int(depth > 0)
                on_state = source in program.hidden or is_projection(program, gate)
                bits = (row.weights_h, row.codes_h) if on_state else (row.weights_x, row.codes_x)
                weight, code = f"int{bits[0][later]} mmse", f"int{bits[1][later]} mmse median"
            elif depth > 0 and node.name in below:  # the projection of an SRU layer, as a Linear
                weight, code = f"int{row.weights_h[1]} mmse", f"int{row.codes_h[1]} mmse median"
            elif depth > 0:
                weight, code = f"int{row.fc[0]} mmse", f"int{row.fc[1]} max(0.8) median"
            found[f"{node.name}/weight.{gate}.{source}"] = weight
            found[f"{node.name}/code.{gate}.{source}"] = code
    return found


def skip(graph: Graph, mode: str) -> dict[str, str]:
    """Rules that leave the published path of each recurrent layer at 16 bits: of all layers, of the first ones, of none."""
    if mode not in MODES:
        raise RindleError(f"skip is {mode!r}; there are {', '.join(MODES)}")
    found, depths = {}, depths_of(graph)
    for node in graph.recurrent if mode != "none" else ():
        product, first = published(node.layer.program.cell, node.name)
        if product is None or (mode == "first" and depths[node.name] >= first):
            continue
        found |= at_16_bits(node.name, *product)
    return found


def at_16_bits(layer: str, gate: str, source: str) -> dict[str, str]:
    """A path that skips quantization: its weights and the code that they multiply in 16-bit fixed point."""
    return {f"{layer}/weight.{gate}.{source}": WEIGHT, f"{layer}/code.{gate}.{source}": CODE}


def depths_of(graph: Graph) -> dict[str, int]:
    """Node -> how many recurrent layers stand before it, on the longest way."""
    recurrent = {node.name for node in graph.recurrent}
    depths = {INPUT: 0}
    for node in graph.nodes:
        depths[node.name] = max(depths[source] + (source in recurrent) for source in node.sources)
    return depths


def below_recurrent(graph: Graph) -> set[str]:
    """The nodes that a recurrent layer depends on."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if node.name in found or (isinstance(node, ProgramNode) and node.layer.program.states):
            found |= set(node.sources)
    return found


def is_projection(program: Program, gate: str) -> bool:
    """Whether a product's result is read by products alone."""
    readers = [op.kind for op in program.ops if gate in op.args]
    return bool(readers) and set(readers) == {"requantize"} and gate != program.output


def published(cell: str, layer: str) -> tuple[tuple[str, str] | None, int]:
    """The skipped product (gate, source) of a cell, and how many first layers "first" means. RindleError, which names the layer, where
    nothing is published of it.
    """
    for pattern, entry in SKIPPED.items():
        if fnmatchcase(cell, pattern):
            return entry
    raise RindleError(
        f"{layer}: no path of the cell {cell!r} is published as one to skip; name it in overrides, as "
        f'"{layer}/weight.GATE.SOURCE" and "{layer}/code.GATE.SOURCE", or let rindle sensitivity propose what to skip'
    )


def _parts(scheme: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*(\S.*?)(?:\s+skip=(\S+))?\s*", scheme)
    if not match:
        raise RindleError(f'the scheme is {scheme!r}; write a name, or for example "rezk-m1 skip=all"')
    return match[1], match[2] or "none"
