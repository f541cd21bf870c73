"""The words at the end of weight rules that speak of rounding."""

from __future__ import annotations

from ...calibrate.plan import Plan


def words_of(plan: Plan, name: str, term) -> frozenset[str]:
    """Of a term of a lowered layer: all its gates have one rule."""
    return plan.rules[name, f"weight.{term.gates[0]}.{term.source}"].modifiers
