"""The products of a captured model as the paper sees them: of which layer, in which part, and what shares a scale."""

from __future__ import annotations

from dataclasses import dataclass

from rindle.errors import RindleError
from rindle.scheme import rezk as presets


@dataclass(frozen=True)
class Product:
    """One weight block: W's rows of a gate. layer: how many recurrent layers are below it. role: "x", "h" (of SRU the
    projection) or "fc". unit: what shares a clipping threshold and a scale: a gate's matrix; of SRU and of the read-out all of it.
    """

    node: str
    layer: int
    gate: str
    source: str
    role: str
    unit: str


def base_of(name: str) -> str:
    """Both directions of a layer are two nodes, and one layer."""
    return name.removesuffix("_reverse")


def products_of(graph) -> list[Product]:
    """Every product of the recurrent layers and of the linear nodes, with its part in the study."""
    if not graph.recurrent:
        raise RindleError("the model has no recurrent layer; the study is of those")
    depths, below = presets.depths_of(graph), presets.below_recurrent(graph)
    found = []
    for node in graph.programs:
        program = node.layer.program
        joint = not program.states or program.cell.startswith("sru")
        for gate, source in program.blocks:
            if not program.states:
                role = "h" if node.name in below else "fc"
            else:
                role = "h" if source in program.hidden or presets.is_projection(program, gate) else "x"
            unit = source if joint else f"{gate}.{source}"
            found.append(Product(node.name, depths[node.name], gate, source, role, unit))
    return found
