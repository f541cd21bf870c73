"""The published choice of thresholds: three groups of vectors, a few levels, all combinations; the Pareto front of them.

Rezk et al. 2022: x (of all layers but the first), h (likewise) and the read-out's input share a θ each; for every level the
seven combinations in which at least one group has it, and the row of zeros. 22 for 8 bits, 15 for 4.
"""

from __future__ import annotations

from itertools import product

from products import base_of, products_of

LEVELS = {8: (8, 16, 32), 4: (1, 2), 2: (1,)}  # θ in codes: of 8 bits 1/16, 1/8 and 1/4 of the range
GROUPS = ("x", "h", "fc")


def groups(graph, held: dict[tuple[str, str], int]) -> dict[tuple[str, str], str]:
    """(layer, source) -> its group, of the vectors in ``held`` that may have a θ: those of the first layer have none."""
    found = {}
    for one in products_of(graph):
        key = base_of(one.node), one.source
        if key in held and one.layer:
            found[key] = one.role
    return found


def combinations(graph, held: dict[tuple[str, str], int]) -> list[dict[tuple[str, str], int]]:
    """Every candidate, θ = 0 everywhere first. held: (layer, source) -> bits of its codes; wider than 8 bits stays at 0."""
    of = {key: group for key, group in groups(graph, held).items() if held[key] in LEVELS}
    found = [dict.fromkeys(of, 0)]
    for level in range(max((len(LEVELS[held[key]]) for key in of), default=0)):
        for chosen in product((False, True), repeat=len(GROUPS)):
            on = {group for group, one in zip(GROUPS, chosen) if one}
            thetas = {
                key: LEVELS[held[key]][min(level, len(LEVELS[held[key]]) - 1)] if group in on else 0
                for key, group in of.items()
            }
            if thetas not in found:
                found.append(thetas)
    return found


def pareto(points: list[dict]) -> list[dict]:
    """Of points with "error" and "eliminated": those that no other beats in both, by rising error."""
    best, front = -1.0, []
    for one in sorted(points, key=lambda p: (p["error"], -p["eliminated"])):
        if one["eliminated"] > best:
            best = one["eliminated"]
            front.append(one)
    return front
