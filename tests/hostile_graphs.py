"""The rules of version 2 of the file format, broken one at a time, and those of both versions together. See test_artifact.py."""

import numpy as np
from hostile import NODES2, SPOILED, at, both, drop, good, good2, named, put
from hostile_version3 import SPOILED3, good3
from hostile_version4 import NEEDS, SPOILED4, good4

E, R, C, F = (
    ("nodes", NODES2.index(name)) for name in ("embedding", "rnn.l0_reverse", "rnn.l0.concat", "rnn.l0_reverse.first")
)
WEIGHT = (*E, "weight")


def node(**entry):
    """A node after the first concat."""
    return lambda document, tensors: document["nodes"].insert(4, {"name": "new"} | entry)


def shared_embedding(document, tensors):
    document["golden"]["inputs"] = document["nodes"][0]["weight"]
    del tensors["golden/inputs"]


# The same for good2().
SPOILED2 = {
    "unknown kind": (["kind", "embed"], put(*E, "kind", "embed")),
    "vocabulary 0": (["vocabulary", "0"], put("input", "vocabulary", 0)),
    "vocabulary negative": (["vocabulary", "-7"], put("input", "vocabulary", -7)),
    "vocabulary too large": (["vocabulary", "1048577"], put("input", "vocabulary", 2**20 + 1)),
    "vocabulary a float": (["vocabulary"], put("input", "vocabulary", 7.0)),
    "vocabulary true": (["vocabulary"], put("input", "vocabulary", True)),
    "vocabulary smaller than the embedding": (["weight"], put("input", "vocabulary", 6)),
    "vocabulary larger than the embedding": (["weight"], put("input", "vocabulary", 8)),
    "vocabulary and size": (["input", "size"], put("input", "size", 1)),
    "vocabulary and format": (["input", "format"], put("input", "format", {"bits": 16, "frac": 3})),
    "frames into an embedding": (["embedding"], put("input", {"size": 1, "format": {"bits": 16, "frac": 3}})),
    "an embedding of a sequence": (["ids"], both(node(kind="embedding", size=3, format={"bits": 5, "frac": 1}, weight="embedding/embedding", input="rnn.l0"))),
    "ids into a program": (["ids"], put("nodes", 1, "input", "input")),
    "ids into a concat": (["ids"], put(*C, "input", 0, "input")),
    "ids into last": (["ids"], node(kind="last", input="input")),
    "ids into mean": (["ids"], node(kind="mean", input="input")),
    "embedding without weight": (["weight"], drop(*WEIGHT)),
    "embedding extra key": (["colour"], put(*E, "colour", 1)),
    "embedding with a program": (["program"], put(*E, "program", {})),
    "embedding of size 0": (["size", "0"], put(*E, "size", 0)),
    "embedding of another size": (["weight"], put(*E, "size", 7)),
    "embedding too wide": (["size"], put(*E, "size", 2**20 + 1)),
    "embedding of another width": (["weight"], put(*E, "format", "bits", 9)),
    "embedding of 17 bits": (["bits", "17"], put(*E, "format", "bits", 17)),
    "embedding unsigned": (["signed"], put(*E, "format", "signed", False)),
    "embedding with frac and scale": (["format"], put(*E, "format", "frac", 2)),
    "embedding with neither": (["format"], drop(*E, "format", "scale")),
    "embedding names nothing": (["weight", "nothing"], put(*WEIGHT, "nothing")),
    "embedding int8": (["weight"], named(WEIGHT, lambda one: one.view(np.int8).astype(np.int16))),
    "embedding with a row less": (["weight"], named(WEIGHT, lambda one: one[:-1])),
    "embedding code -16 of 5 bits": (["weight"], named(WEIGHT, at((2, 0), 0b10000))),
    "embedding code -32768": (["weight", "-"], both(put(*E, "format", {"bits": 16, "frac": 1}), named(WEIGHT, lambda one: at((0, 1), 0x80)(np.zeros((7, 6), np.uint8))))),
    "embedding with bits in the padding": (["weight"], named(WEIGHT, at((6, 1), 0x80))),
    "reverse false": (["reverse"], put(*R, "reverse", False)),
    "reverse a number": (["reverse"], put(*R, "reverse", 1)),
    "reverse null": (["reverse"], put(*R, "reverse", None)),
    "reverse of a vector": (["reverse"], lambda d, t: d["nodes"][-1].__setitem__("reverse", True)),
    "reverse of a concat": (["reverse"], put(*C, "reverse", True)),
    "reverse of last": (["reverse"], put(*F, "reverse", True)),
    "concat of one": (["input", "1"], put(*C, "input", ["rnn.l0"])),
    "concat of none": (["input", "0"], put(*C, "input", [])),
    "concat of 65": (["input", "65"], put(*C, "input", ["rnn.l0"] * 65)),
    "concat of a name": (["input"], put(*C, "input", "rnn.l0")),
    "concat of a number": (["input"], put(*C, "input", 1, 3)),
    "concat of what comes later": (["input", "fc"], put(*C, "input", 1, "fc")),
    "concat of itself": (["input", "rnn.l0.concat"], put(*C, "input", 1, "rnn.l0.concat")),
    "concat of a sequence and a vector": (["sequence", "vector"], put("nodes", -2, "input", 1, "rnn.l0")),
    "concat of two formats": (["embedding", "rnn.l0"], put(*C, "input", 1, "embedding")),
    "concat too wide": (["features", "1081344"], both(*(node(name=f"c{k}", kind="concat", input=[f"c{k - 1}" if k else "rnn.l0.concat"] * n) for k, n in reversed(list(enumerate((64, 64, 33))))))),
    "other nodes read one": (["input"], put(*F, "input", ["rnn.l0_reverse"])),
    "first of a vector": (["rnn.l0.last", "sequence"], put(*F, "input", "rnn.l0.last")),
    "first extra key": (["colour"], put(*F, "colour", 1)),
    "golden ids int16": (["golden.inputs"], named(("golden", "inputs"), lambda one: one.astype(np.int16))),
    "golden ids of three dimensions": (["golden.inputs"], named(("golden", "inputs"), lambda one: one[..., None])),
    "golden id negative": (["golden.inputs", "-1"], named(("golden", "inputs"), at((0, 0), -1))),
    "golden id too large": (["golden.inputs", "7"], named(("golden", "inputs"), at((0, 0), 7))),
    "golden ids too long": (["golden.inputs"], named(("golden", "inputs"), lambda one: np.tile(one, (1, 1000)))),
    "golden ids serve elsewhere": (["golden.inputs", "alone"], shared_embedding),
    "as version 1": (["input"], put("version", 1)),
}  # fmt: skip

# name -> words, change, the good file
RULES = {name: (*rule, good) for name, rule in SPOILED.items()}
RULES |= {f"2: {name}": (*rule, good2) for name, rule in SPOILED2.items()}
RULES |= {f"3: {name}": (*rule, good3) for name, rule in SPOILED3.items()}
RULES |= {f"4: {name}": (*rule, good) for name, rule in NEEDS.items()}
RULES |= {f"4, levels: {name}": (*rule, good4) for name, rule in SPOILED4.items()}
