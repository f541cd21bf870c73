"""The paths of a graph that a scheme can choose for, and what is known of their values without data."""

from __future__ import annotations

import numpy as np

from ..errors import RindleError
from ..numbers.tables import DEFAULT, FUNCTIONS, TableRule
from ..program.graph import Graph
from ..program.nodes import INPUT, EmbeddingNode
from ..program.program import Program
from .rules import special


def origin_of(graph: Graph, name: str) -> str | None:
    """INPUT or the embedding whose elements a value consists of, as last, first, gather, window and so on choose them."""
    while name != INPUT:
        node = graph.node(name)
        if not node.keeps_format or len(node.sources) > 1:
            return name if isinstance(node, EmbeddingNode) else None
        name = node.source
    return INPUT


def keys_of(graph: Graph) -> dict[str, list[str]]:
    """Layer -> what a scheme can choose for it: the paths that have a format, its tables and its products' accumulators."""
    keys = {}
    for node in graph.programs:
        program = node.layer.program
        fixed_elsewhere = {op.out[0] for op in program.ops if op.kind == "clip"}
        for source, path in zip(node.sources, program.inputs):
            if origin_of(graph, source) is None:
                fixed_elsewhere.add(path)
        keys[node.name] = [path for path in (*program.paths, *program.vectors) if path not in fixed_elsewhere]
        for path in keys[node.name]:
            if special(path):
                raise RindleError(
                    f"{node.name}: a path named {path!r} cannot be told from a rule of its own; name it otherwise"
                )
        keys[node.name] += [f"{kind}.{gate}.{source}" for kind in ("weight", "code") for gate, source in program.blocks]
        keys[node.name] += [f"table.{op.out[0]}" for op in program.ops if op.kind == "table"]
        keys[node.name] += [f"accumulator.{gate}" for op in program.affines for gate in op.out]
    return keys


def bounds_of(program: Program, start: dict[str, float] | None = None) -> dict[str, float]:
    """Magnitudes that hold whatever the data: of tables' results, and of what is made of them alone.

    Path -> bound, infinite ones left out. A fixed point over the states, which start at 0, or at up to what ``start`` says;
    what still grows in the third round has no bound.
    """
    states, round_ = {state: 0.0 for state, _ in program.states} | (start or {}), 0
    while True:
        known = _propagate(program, states)
        after = {state: max(states[state], known[following]) for state, following in program.states}
        if after == states:
            found: dict[str, float] = {}
            for path, bound in known.items():  # a state and its next value have one format
                found[program.format_name(path)] = max(bound, found.get(program.format_name(path), 0.0))
            return {path: bound for path, bound in found.items() if np.isfinite(bound)}
        round_ += 1
        states = {s: np.inf if round_ > 2 and after[s] > states[s] else after[s] for s in states}


def _propagate(program: Program, states: dict[str, float]) -> dict[str, float]:
    known = {**dict.fromkeys(program.inputs, np.inf), **dict.fromkeys(program.vectors, np.inf), **states}
    unit = set()  # paths within 0..1
    for op in program.ops:
        a = [known[path] for path in op.args]
        bound = np.inf
        if op.kind == "table":
            bound = FUNCTIONS[op.function].bound
            unit |= {op.out[0]} if FUNCTIONS[op.function].flag == "sigmoid" else set()
        elif op.kind in ("add", "sub"):
            bound = a[0] + a[1]
        elif op.kind == "lerp" and op.args[0] in unit:
            bound = max(a[1:])
        elif op.kind in ("clip", "requantize"):
            bound = a[0]
        elif op.kind in ("mul", "sum_of_products") and np.isfinite(a).all():
            bound = a[0] * a[1] + (a[2] * a[3] if op.kind == "sum_of_products" else 0.0)
        known |= dict.fromkeys(op.out, bound)
    return known


def saturating(program: Program, tables: dict[str, TableRule] | None = None) -> dict[str, float]:
    """Path -> where the tables that alone read it are flat: it needs no range beyond. tables: of results, their rules."""
    tables, readers = tables or {}, {}
    for op in program.ops:
        flat = tables.get(op.out[0], DEFAULT).flat_beyond(op.function) if op.kind == "table" else None
        for path in op.args:
            readers.setdefault(program.format_name(path), set()).add(flat)
    kept = {program.output, *(state for state, _ in program.states), *(following for _, following in program.states)}
    return {path: max(ends) for path, ends in readers.items() if None not in ends and path not in kept}
