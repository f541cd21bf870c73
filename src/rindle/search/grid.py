"""The sweep's candidates: weight bits × activation bits × table size, of one family of formats; or schemes by name."""

from __future__ import annotations

from ..errors import RindleError
from ..numbers.formats import check_bits
from ..scheme.rules import named_scheme
from .workers import Candidate, Space

# family -> rules of (weights, activations); inside always 16 bits
FAMILIES = {
    "int": lambda w, a: {"*": "fixed16 max(1.25)", "weight.*": f"int{w} mmse", "code.*": f"int{a} mmse"},
    "fixed": lambda w, a: named_scheme(f"fixed({w},{a})"),
}
TABLE = "linear {}"  # a rule of so many segments


def grid_space(
    weights: tuple[int, ...],
    activations: tuple[int, ...],
    tables: tuple[int, ...] = (),
    families: tuple[str, ...] = ("int",),
    schemes: tuple[str, ...] = (),
) -> Space:
    """schemes: names, in place of families and bits. tables: segments; none leaves them as the scheme has them."""
    for family in families:
        if family not in FAMILIES:
            raise RindleError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    for bits in (*weights, *activations):
        check_bits(bits, "the sweep: a format")
    space: Space = (
        {"scheme": schemes} if schemes else {"family": families, "weights": weights, "activations": activations}
    )
    return space | ({"table": tables} if tables else {})


def scheme_of(candidate: Candidate) -> tuple[str | dict[str, str], dict[str, str]]:
    """The scheme and the overrides of a candidate: plain data."""
    overrides = {"table.*": TABLE.format(candidate["table"])} if "table" in candidate else {}
    if "scheme" in candidate:
        return candidate["scheme"], overrides
    return FAMILIES[candidate["family"]](candidate["weights"], candidate["activations"]), overrides
