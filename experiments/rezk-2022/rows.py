"""The rows of the study: bits of which matrices and vectors, by names that `rindle.quantize` knows, and Rindle's own ones."""

from __future__ import annotations

import re

from rindle.errors import RindleError
from rindle.scheme import rezk as presets
from rindle.scheme.paths import keys_of
from rindle.scheme.rezk import Row
from rindle.scheme.rules import Rule, resolve

# The paper's grid. rezk-m5, with codes of 2 bits throughout, is switched off in the authors' list.
PAPER = tuple(name for name in presets.REZK if name != "rezk-m5")
# Beyond it: widths that the paper has not, the first layer's W and the read-out as in M1.
OWN: dict[str, Row] = {
    "w5": Row((8, 5), (5, 5), (8, 8), (8, 8), (8, 8)),
    "w4": Row((8, 4), (4, 4), (8, 8), (8, 8), (8, 8)),
    "w4-fc4": Row((8, 4), (4, 4), (8, 8), (8, 8), (4, 8)),
    "w3": Row((8, 3), (3, 3), (8, 8), (8, 8), (8, 8)),
    "w3-fc4": Row((8, 3), (3, 3), (8, 8), (8, 8), (4, 8)),
}
ROWS = (*PAPER, "rezk-m5", *OWN)
# What is applied to the rows: the paper's method; a scheme as it is; and with weights of few bits rounded by docs/rounding.md.
METHODS = ("published", "rindle", "rindle gptq", "rindle learned")
FEW = 4  # bits


def scheme_of(row: str, skip: str, graph) -> str | dict[str, str]:
    """What `rindle.quantize` takes: a preset's name, or of a row of Rindle's own its rules."""
    if row in presets.REZK:
        return f"{row} skip={skip}"
    if row not in OWN:
        raise RindleError(f"there is no row {row!r}; there are {', '.join(ROWS)}")
    return presets.rezk(OWN[row], graph) | presets.skip(graph, skip)


def overrides_of(row: str, skip: str, graph, method: str) -> dict[str, str]:
    """The weights of at most FEW bits with the method's word."""
    _, _, word = method.partition(" ")
    rules = presets.rules(scheme_of(row, skip, graph), graph)
    few = re.compile(rf"int[2-{FEW}] ")
    return {key: f"{rule} {word}" for key, rule in rules.items() if word and "/weight." in key and few.match(rule)}


def rules_of(row: str, skip: str, graph, method: str = "rindle") -> dict[tuple[str, str], Rule]:
    """(node, path) -> the rule of every weight, code and element-wise path."""
    rules = presets.rules(scheme_of(row, skip, graph), graph)
    return resolve(rules, overrides_of(row, skip, graph, method), keys_of(graph))


def rows_of(method: str, chosen: list[str] | None, graph) -> list[str]:
    """The rows of a method: the paper's by the published one; Rindle's own beside them; with a word, those that have weights
    of few bits. chosen: the only ones asked for, or None.
    """
    rows = PAPER if method == "published" else (*PAPER, *OWN)
    if chosen:
        rows = [row for row in chosen if row not in OWN or method != "published"]
    return [row for row in rows if " " not in method or overrides_of(row, "none", graph, method)]
