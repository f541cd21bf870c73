"""The rules of version 4 of the file format, broken one at a time. See test_artifact.py."""

from hostile import both, drop, put


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
}
