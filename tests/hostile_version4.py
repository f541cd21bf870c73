"""The rules of version 4 of the file format, broken one at a time. See test_artifact.py."""

import numpy as np
from hostile import both, drop, put

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
