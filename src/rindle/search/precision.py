"""Mixed precision as a search space: bits for every layer's weights and codes, path by path, and thresholds.

As in MOHAQ (Rezk et al., arXiv 2108.01192), with a finer grain where it is wanted. A variable's name is the pattern of the
scheme's paths that it decides, so a candidate becomes overrides without anything to look up:

    "rnn.l0/weight.*.h": 4        the recurrent weights
    "rnn.l0/code.*.x": 8          the codes that the input weights multiply
    "rnn.l0/both.*.h": 8          weights and codes alike, for hardware with one width
    "θ rnn.l0/h": 0.125           the threshold, a share of its codes' range; 0 skips what did not change at all
"""

from __future__ import annotations

import math

from ..errors import RindleError
from ..numbers.formats import check_bits
from .workers import Candidate, Space

THETA = "θ "
GRAINS = ("layer", "source", "gate")
BITS = (2, 4, 8, 16)
RULES = {
    ("weight", 16): "fixed16 max",
    ("code", 16): "fixed16 max(1.25)",
}  # what the literature calls 16-bit fixed point


def rule(kind: str, bits: int) -> str:
    """kind: "weight" or "code"."""
    return RULES.get((kind, bits), f"int{bits} mmse")


def space_of(
    paths: dict[str, list[str]],
    weights: tuple[int, ...] = BITS,
    codes: tuple[int, ...] = BITS,
    grain: str = "source",
    tied: bool = False,
    thetas: tuple[float, ...] = (),
    held: tuple[str, ...] = (),
) -> Space:
    """paths: layer -> its paths, as schemes name them. grain: one variable per layer, per multiplied source (W and U apart), or per
    gate and source. tied: weights and codes of one width, of ``weights``. thetas: choices of every threshold, for the inputs in
    ``held`` ("layer/source").
    """
    if grain not in GRAINS:
        raise RindleError(f"unknown grain {grain!r}; there are {', '.join(GRAINS)}")
    for bits in (*weights, *codes):
        check_bits(bits, "the search: a format")
    if any(not 0 <= theta < 1 for theta in thetas):
        raise RindleError(f"the thresholds {thetas} are shares of the codes' range; give 0 up to less than 1")
    kinds = {"both": weights} if tied else {"weight": weights, "code": codes}
    space: Space = {}
    for layer, names in paths.items():
        pairs = [name.split(".")[1:] for name in names if name.startswith("weight.")]
        for kind, choices in kinds.items():
            for gate, source in pairs:
                ends = {"layer": "*", "source": f"*.{source}", "gate": f"{gate}.{source}"}
                space[f"{layer}/{kind}.{ends[grain]}"] = choices
    if thetas:
        space |= {f"{THETA}{name}": thetas for name in held}
    if not space:
        raise RindleError("the model has no products whose precision could be searched")
    return space


def overrides_of(candidate: Candidate) -> dict[str, str]:
    """The scheme's overrides, path -> rule: plain data."""
    found = {}
    for name, bits in candidate.items():
        if name.startswith(THETA):
            continue
        layer, path = name.rsplit("/", 1)
        kind, rest = path.split(".", 1)
        for one in ("weight", "code") if kind == "both" else (kind,):
            found[f"{layer}/{one}.{rest}"] = rule(one, bits)
    return found


def shares_of(candidate: Candidate) -> dict[str, float]:
    """ "layer/source" -> θ as a share of the codes' range."""
    return {name.removeprefix(THETA): share for name, share in candidate.items() if name.startswith(THETA)}


def uniform(space: Space) -> list[Candidate]:
    """The candidates that any search should know: everything as wide as it can be, a choice narrower, and so on; nothing held."""
    depth = max(len(choices) for name, choices in space.items() if not name.startswith(THETA))

    def choice(name: str, choices: tuple, k: int):
        return choices[0] if name.startswith(THETA) else sorted(choices)[-1 - min(k, len(choices) - 1)]

    return [{name: choice(name, choices, k) for name, choices in space.items()} for k in range(depth)]


def distance(one: Candidate, other: Candidate) -> float:
    """Σ over the weights' variables of |code(a) − code(b)|, code = log2(bits) + 1; codes and θ do not count (MOHAQ)."""
    names = [name for name in one if "/weight." in name or "/both." in name]
    return sum(abs(math.log2(one[name]) - math.log2(other[name])) for name in names)
