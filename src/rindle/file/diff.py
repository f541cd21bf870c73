"""What differs between two models: plain data for ``rindle inspect A --diff B``."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..program.nodes import FloatNode, Node, ProgramNode
from .artifact import Artifact, Layer


@dataclass(frozen=True)
class Difference:
    """where: node/path, or a part of the file. what: "format", "weights", …. a, b: each side, as text; None where it has none."""

    where: str
    what: str
    a: str | None
    b: str | None


def compare(a: Artifact, b: Artifact) -> list[Difference]:
    """Everything that the two compute differently, and their provenance; empty for equal ones. The golden vectors follow from
    the rest.
    """
    left, right = _facts(a), _facts(b)
    found = []
    for where, what in dict.fromkeys((*left, *right)):
        one, other = left.get((where, what)), right.get((where, what))
        if not _equal(one, other):
            found.append(Difference(where, what, *_texts(one, other)))
    return found


def _facts(artifact: Artifact) -> dict[tuple[str, str], object]:
    """(where, what) -> a value or an array."""
    graph, facts = artifact.graph, {}
    facts["input", "size"] = graph.input_size
    facts["input", "format"] = str(artifact.input_format)
    facts["output", "node"] = graph.output
    facts["graph", "order"] = " -> ".join(node.name for node in graph.nodes)
    for node in graph.nodes:
        facts[node.name, "kind"] = node.kind
        facts[node.name, "reads"] = ", ".join(node.sources)
        facts |= FACTS.get(type(node), _field_facts)(node)
    for key, value in artifact.provenance.items():
        facts["provenance", key] = str(value)
    return facts


def _field_facts(node: Node) -> dict:
    """What a kind has beside a name and sources: arrays as they are, all else as text."""
    own = {one.name: getattr(node, one.name) for one in fields(node) if one.name not in ("name", "sources")}
    return {(node.name, key): v if isinstance(v, np.ndarray) else str(v) for key, v in own.items()}


def _float_facts(node: FloatNode) -> dict:
    parameters = {(f"{node.name}/{key}", "value"): value for key, value in node.op.parameters.items()}
    return {(node.name, "operation"): node.op.name} | parameters


def _program_facts(node: ProgramNode[Layer]) -> dict:
    name, layer = node.name, node.layer
    program, facts = layer.program, {}
    facts[name, "reverse"] = str(node.reverse)
    facts[name, "cell"] = program.cell
    facts[name, "states"] = str(program.states)
    facts[name, "output"] = program.output
    for path, size in program.sizes.items():
        facts[f"{name}/{path}", "size"] = size
        facts[f"{name}/{path}", "format"] = str(layer.formats[path])
    for code in program.codes:
        theta = layer.thetas.get(code)
        facts[f"{name}/{code}", "θ"] = "dense" if theta is None else theta
    for state, _ in program.states:
        facts[f"{name}/{state}", "initial"] = layer.initial.get(state, "0")
    for vector in program.vectors:
        facts[f"{name}/{vector}", "codes"] = layer.vectors[vector]
    for op in program.ops:
        where, constant = f"{name}/{'+'.join(op.out)}", layer.constants.get(op.out[0])
        facts[where, "operation"] = " ".join((op.kind, *op.reads))
        if op.kind == "affine":
            facts[where, "shift"], facts[where, "bias"] = constant.shift, constant.bias
            for term, product in zip(op.terms, constant.products):
                weight = f"{name}/weight.{term.key}"
                facts[weight, "convolution"] = str(term.conv)
                facts[weight, "bits"], facts[weight, "weights"] = product.format.bits, product.weight
                facts[weight, "multipliers"] = product.multiplier
                facts[weight, "scales"] = str(product.format) if product.row_scales is None else product.row_scales
        elif op.kind == "requantize":
            facts[where, "multiplier"], facts[where, "shift"] = constant.multiplier, constant.shift
        elif op.kind == "clip":
            facts[where, "bounds"] = f"{constant[0]}..{constant[1]}"
        elif op.kind == "table":
            facts[where, "function"] = f"{constant.function}, degree {constant.degree}, {constant.flag}"
            facts[where, "segments"] = f"x0 {constant.x0}, p {constant.p}, q {constant.q}"
            facts[where, "base"] = constant.base
            if constant.degree:
                facts[where, "slope"] = constant.slope
    return facts


FACTS = {
    ProgramNode: _program_facts,
    FloatNode: _float_facts,
}  # a kind whose fields are not told one by one -> facts of it


def _equal(one, other) -> bool:
    if one is None or other is None:
        return one is other
    return np.shape(one) == np.shape(other) and bool(np.all(np.asarray(one) == np.asarray(other)))


def _texts(one, other) -> tuple[str | None, str | None]:
    both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
    if both and one.shape == other.shape:
        changed = np.count_nonzero(one != other)
        far = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
        return f"{one.size:,}", f"{changed:,} differ ({changed / one.size:.1%}), by {far:g} at most"
    return _text(one), _text(other)


def _text(value) -> str | None:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return None if value is None else shortened(str(value))


def shortened(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
