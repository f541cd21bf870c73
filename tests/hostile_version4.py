"""The rules of version 4 of the file format, broken one at a time. See test_artifact.py."""

from functools import lru_cache

import numpy as np
import torch
from hostile import Everything, at, both, drop, find, named, put
from support import sequences

import rindle
from rindle.engines.golden import with_thresholds
from rindle.file.container import dumps
from rindle.numbers.levels import LEVELS

STATES = {"h": "rnn.l0/h.initial", "c": "rnn.l0/c.initial"}
FIRST = ("nodes", 0, "program", "initial")


def begins(*needs, initial=STATES, codes=None):
    """Says that the first layer begins from these states; its tensors are of 6 elements."""

    def change(document, tensors):
        version4(*needs)(document, tensors)
        document["nodes"][0]["program"]["initial"] = initial
        tensors.update({name: np.array([3, -2, 0, 1, 5, -7], np.int16) for name in STATES.values()})
        tensors.update(codes or {})

    return change


def version4(*needs, outputs=("fc",)):
    """Says that the file is of version 4 and needs these."""
    return both(put("version", 4), put("needs", list(needs)), drop("output"), put("outputs", list(outputs)))


# As SPOILED, of good(), which is of version 1.
NEEDS = {
    "needs of version 1": (["needs"], put("needs", [])),
    "outputs of version 1": (["output"], both(drop("output"), put("outputs", ["fc"]))),
    "needs missing": (["needs"], put("version", 4)),
    "needs nothing": (["needs"], version4()),
    "needs a string": (["needs"], both(version4(), put("needs", "telepathy"))),
    "needs a number": (["needs"], version4(4)),
    "needs an empty name": (["needs"], version4("")),
    "needs what is unknown": (["this file needs 'telepathy'; update rindle to read it"], version4("telepathy")),
    "needs what is unknown, and says more of it": (
        ["this file needs 'telepathy'; update rindle to read it"],
        both(version4("telepathy"), put("telepathy", {"to": 3})),
    ),
    "needs too much": (["needs", "257"], version4(*["telepathy"] * 257)),
    "initial states that nothing has": (["needs", "initial_states"], version4("initial_states")),
    "initial states that are not announced": (["telepathy"], begins("telepathy")),
    "initial states of version 1": (["initial"], both(begins("initial_states"), put("version", 1), drop("needs"), drop("outputs"), put("output", "fc"))),
    "initial states twice announced": (["needs"], begins("initial_states", "initial_states")),
    "initial states of none": (["initial", "empty"], begins("initial_states", initial={})),
    "initial states a list": (["initial"], begins("initial_states", initial=["h", "c"])),
    "initial states a number": (["initial", "h"], begins("initial_states", initial=STATES | {"h": 0})),
    "initial states of another path": (["initial", "z", "no state"], begins("initial_states", initial={"z": STATES["h"], "c": STATES["c"]})),
    "initial states of a next value": (["initial", "h.next"], begins("initial_states", initial={"h.next": STATES["h"], "c": STATES["c"]})),
    "initial states without their tensor": (["initial"], begins("initial_states", initial=STATES | {"h": "rnn.l0/nothing"})),
    "initial states with a tensor too many": (["rnn.l0/c.initial"], begins("initial_states", initial={"h": STATES["h"]})),
    "initial states too few": (["initial"], begins("initial_states", codes={STATES["h"]: np.zeros(5, np.int16)})),
    "initial states of two dimensions": (["initial"], begins("initial_states", codes={STATES["h"]: np.zeros((1, 6), np.int16)})),
    "initial states of int32": (["initial"], begins("initial_states", codes={STATES["c"]: np.zeros(6, np.int32)})),
}  # fmt: skip


@lru_cache
def good4() -> bytes:
    """A file with a matrix of every level set, and integers beside them."""
    torch.manual_seed(0)
    overrides = {"weight.a.x": f"{next(iter(LEVELS))} mmse"} | {
        f"weight.{g}.h": f"{n} max" for g, n in zip("ab", LEVELS)
    }
    artifact = rindle.quantize(Everything().eval(), "int8", sequences(4, 9), overrides).artifact
    return dumps(with_thresholds(artifact, {"rnn.l0/x": 3}))


TERMS = ("nodes", 0, "program", "op:affine", "terms")
SET = (*TERMS, 0)  # the input's weights of gate a
INTEGER = (*TERMS, 1)  # those of gate b


def without_scales(**entry):
    def change(document, tensors):
        term = find(document, SET)
        del tensors[term.pop("scales")]
        term.update(entry)

    return change


# The same of good4().
SPOILED4 = {
    "as version 3": ([], both(put("version", 3), drop("needs"), drop("outputs"), put("output", "fc"))),
    "as version 3, with needs": ([], put("version", 3)),
    "needs missing": (["needs"], drop("needs")),
    "needs twice": (["needs"], put("needs", ["levels", "levels"])),
    "needs unknown beside known": (
        ["this file needs 'wings'; update rindle to read it"],
        put("needs", ["levels", "wings"]),
    ),
    "needs unknown before known": (
        ["this file needs 'arms'; update rindle to read it"],
        put("needs", ["arms", "levels"]),
    ),
    "output instead of outputs": (["output"], both(drop("outputs"), put("output", "fc"))),
    "output beside outputs": (["output"], put("output", "fc")),
    "outputs a name": (["outputs"], put("outputs", "fc")),
    "outputs empty": (["outputs", "0"], put("outputs", [])),
    "outputs two": (["outputs", "2"], put("outputs", ["fc", "rnn.l0.mean"])),
    "outputs unknown": (["output", "nothing"], put("outputs", ["nothing"])),
    "outputs the input": (["output"], put("outputs", ["input"])),
    "outputs a number": (["outputs"], put("outputs", [1])),
    "levels unknown": (["levels", "nonary"], put(*SET, "levels", "nonary")),
    "levels a number": (["levels"], put(*SET, "levels", 2)),
    "levels null": (["levels"], put(*SET, "levels", None)),
    "levels and bits": (["bits"], put(*SET, "bits", 2)),
    "levels of integers": (["levels", "int8"], both(drop(*INTEGER, "bits"), put(*INTEGER, "levels", "int8"))),
    "neither levels nor bits": (["bits"], drop(*SET, "levels")),
    "levels beside integer bits": ([], put(*INTEGER, "levels", next(iter(LEVELS)))),
    "levels of a code": (["levels"], put("nodes", 0, "program", "codes", "x.code", "levels", next(iter(LEVELS)))),
    "levels of a path": (["levels"], put("nodes", 0, "program", "paths", "a", "levels", next(iter(LEVELS)))),
    "levels with a frac": ([], without_scales(frac=3)),
    "levels unsigned": (["signed"], put(*SET, "signed", False)),
    "levels without scale": ([], without_scales()),
    "levels with scale and scales": ([], put(*SET, "scale", 0.5)),
    "levels with scale 0": (["scale"], without_scales(scale=0)),
    "levels with a scale that is no float32": (["scale"], without_scales(scale=0.1)),
    "levels with scales of another size": (["scales"], named((*SET, "scales"), lambda one: one[:-1])),
    "levels with a negative scale": (["scales"], named((*SET, "scales"), at(0, -1))),
    "levels with bits in the padding": (["weight"], named((*SET, "weight"), at((1, -1), 0xFF))),
    "levels of another width": (["weight"], named((*SET, "weight"), lambda one: np.repeat(one, 2, 1))),
    "levels whose sums are too large": (
        ["2^52"],
        both(
            named((*SET, "multiplier"), lambda one: np.full_like(one, 2**22 - 1)),
            named(("nodes", 0, "program", "op:affine", "bias"), lambda one: np.full_like(one, 2**52 - 2**24)),
        ),
    ),
}


def none_used(document, tensors):
    """All weights become integers, and `needs` stays."""
    for term in (
        term
        for node in document["nodes"]
        if "program" in node
        for op in node["program"]["ops"]
        for term in op.get("terms", [])
    ):
        if "levels" in term:
            levels = LEVELS[term.pop("levels")]
            term["bits"] = 2 if levels.bits < 2 else levels.bits
            packed = tensors[term["weight"]]
            columns = document["nodes"][0]["program"]["codes"][term["in"]]["size"]
            tensors[term["weight"]] = np.zeros((len(packed), -(-columns * term["bits"] // 8)), np.uint8)


SPOILED4["needs what nothing uses"] = (["needs", "'levels'"], none_used)
