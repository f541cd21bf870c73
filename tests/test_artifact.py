"""Hostile files: each breaks one rule of docs/format.md, and Python and C++ both refuse it, naming the field."""

import itertools
import json
import struct
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
from hostile import both, find, good, good2, header, identity, join, parts, put, spoiled
from hostile_graphs import RULES
from hostile_version3 import good3
from hostile_version4 import good4, version4
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import rindle
from rindle import RindleError
from rindle import _core as core
from rindle.file.container import dumps, loads, model_id


def python_refuses(data: bytes, words):
    with pytest.raises(RindleError) as refused:
        loads(data, "bad.rindle")
    message = str(refused.value)
    assert message.startswith("bad.rindle is not a valid .rindle file: ")
    assert all(word in message for word in words), message
    assert len(message) < 1000


def core_refuses(data: bytes, words):
    with pytest.raises(ValueError) as refused:
        core.Model(data, None)
    message = str(refused.value)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("good", [good, good2, good3, good4])
def test_the_good_files_are_good(good):
    artifact = loads(good())
    assert dumps(artifact) == good()
    rindle.Model(artifact)
    document, tensors = parts(good())
    assert document["id"] == identity(document, tensors) == model_id(artifact)
    assert model_id(loads(join(document, tensors))) == model_id(artifact)  # any order of keys


@pytest.mark.parametrize("name", RULES)
def test_python_refuses(name):
    words, change, good = RULES[name]
    python_refuses(spoiled(change, good()), words)


@pytest.mark.parametrize("name", RULES)
def test_the_core_refuses(name):
    words, change, good = RULES[name]
    core_refuses(spoiled(change, good()), words)


def test_a_file_has_the_oldest_version_that_can_say_it():
    assert [parts(data)[0]["version"] for data in (good(), good2(), good3(), good4())] == [1, 2, 3, 4]
    document, tensors = parts(good())
    document["version"] = 2  # which says no more than 1
    document["id"] = identity(document, tensors)
    artifact = loads(join(document, tensors))
    rindle.Model(artifact, join(document, tensors))
    assert parts(dumps(artifact))[0]["version"] == 1


FEATURES = {"flags": lambda artifact: True, "wheels": lambda artifact: artifact.graph.input_size == 5}


def test_a_feature_is_named_and_makes_version_4(monkeypatch):
    """As a later version of this package would read and write it; what needs nothing is written as before."""
    monkeypatch.setattr("rindle.file.needs.FEATURES", FEATURES)
    artifact = loads(good())
    document, _ = parts(dumps(artifact))
    old, _ = parts(good())
    assert (document["version"], document["needs"], document["outputs"]) == (4, ["flags", "wheels"], ["fc"])
    assert document["nodes"] == old["nodes"] and "output" not in document
    assert dumps(loads(dumps(artifact))) == dumps(artifact)
    assert document["id"] == model_id(artifact) != old["id"]
    core_refuses(dumps(artifact), ["needs", "this file needs 'flags'; update rindle to read it"])


FORMS = {
    "two": (["wheels", "flags"], dict(outputs=["fc"]), ["needs", "sorted"]),
    "one twice": (["flags", "flags"], dict(outputs=["fc"]), ["needs", "each once"]),
    "one too few": (["flags"], dict(outputs=["fc"]), ["needs", "'wheels'"]),
    "no output": (["flags", "wheels"], dict(outputs=[]), ["outputs", "0"]),
    "two outputs": (["flags", "wheels"], dict(outputs=["fc", "rnn.l0"]), ["outputs", "2"]),
    "an output unknown": (["flags", "wheels"], dict(outputs=["nothing"]), ["output", "nothing"]),
    "an output that is a number": (["flags", "wheels"], dict(outputs=[1]), ["outputs"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of_version_4(name, monkeypatch):
    monkeypatch.setattr("rindle.file.needs.FEATURES", FEATURES)
    needs, outputs, words = FORMS[name]
    python_refuses(spoiled(version4(*needs, **outputs)), words)


def test_what_is_needed_is_used(monkeypatch):
    monkeypatch.setattr("rindle.file.needs.FEATURES", FEATURES | {"wings": lambda artifact: False})
    python_refuses(spoiled(version4("flags", "wheels", "wings")), ["needs", "'wings'"])


def set_document(text):
    return join(text, parts(good())[1])


def text_of(change=None):
    document, _ = parts(good())
    if change:
        change(document)
    return json.dumps(document)


def entry_of(head, name="golden/inputs"):
    return head[name]


@cache
def length() -> int:
    """Of the good file's header."""
    return struct.unpack("<Q", good()[:8])[0]


CONTAINERS = {
    "empty": lambda: b"",
    "seven bytes": lambda: good()[:7],
    "only the length": lambda: good()[:8],
    "truncated header": lambda: good()[: length() // 2],
    "header without tensors": lambda: good()[: 8 + length()],
    "truncated tensors": lambda: good()[:-1],
    "truncated in the middle": lambda: good()[: (8 + length() + len(good())) // 2],
    "bytes too many": lambda: good() + b"\0",
    "a zip file": lambda: b"PK\x03\x04" + good(),
    "length of zero": lambda: b"\0" * 8 + good()[8:],
    "length enormous": lambda: b"\xff" * 8 + good()[8:],
    "length one too many": lambda: struct.pack("<Q", length() + 1) + good()[8:],
    "header not JSON": lambda: header("{" * 40),
    "header not UTF-8": lambda: header(b'{"\xff": 1}'),
    "header a list": lambda: header("[]"),
    "header deep": lambda: header("[" * 100000),
    "header with a key twice": lambda: header('{"__metadata__": {"rindle": "{}"}, "a": 1, "a": 2}'),
    "no metadata": lambda: header(lambda head: head.pop("__metadata__")),
    "metadata without rindle": lambda: header(lambda head: head.__setitem__("__metadata__", {"format": "pt"})),
    "metadata with another key": lambda: header(lambda head: head["__metadata__"].__setitem__("format", "pt")),
    "metadata not text": lambda: header(lambda head: head["__metadata__"].__setitem__("rindle", {})),
    "tensor of an unknown type": lambda: header(lambda head: entry_of(head).__setitem__("dtype", "BF16")),
    "tensor of no type": lambda: header(lambda head: entry_of(head).pop("dtype")),
    "tensor with negative shape": lambda: header(lambda head: entry_of(head).__setitem__("shape", [-6, 12, 5])),
    "tensor whose shape overflows": lambda: header(lambda head: entry_of(head).__setitem__("shape", [2**40, 2**40, 5])),
    "tensor whose shape is too large": lambda: header(lambda head: entry_of(head).__setitem__("shape", [6, 12, 6])),
    "tensor before the start": lambda: header(lambda head: entry_of(head).__setitem__("data_offsets", [-8, 712])),
    "tensor beyond the end": lambda: header(lambda head: entry_of(head).__setitem__("data_offsets", [2**40, 2**40 + 720])),
    "tensor whose end is before its start": lambda: header(lambda head: entry_of(head)["data_offsets"].reverse()),
    "tensors that overlap": lambda: header(lambda head: head["rnn.l0/v"].__setitem__("data_offsets", [0, 12])),
    "document empty": lambda: set_document(""),
    "document not JSON": lambda: set_document("{version: 1}"),
    "document a list": lambda: set_document("[1]"),
    "document a number": lambda: set_document("1"),
    "document deep": lambda: set_document("[" * 33 + "]" * 33),
    "document very deep": lambda: set_document("[" * 200000),
    "provenance deep": lambda: set_document(text_of().replace('"provenance": {', '"provenance": {"z": ' + '{"a":' * 40 + "1" + "}" * 40 + ", ")),
    "document with a key twice": lambda: set_document(text_of().replace('"version": 1', '"version": 1, "version": 1')),
    "NaN": lambda: set_document(text_of().replace('"provenance": {', '"provenance": {"z": NaN, ')),
    "Infinity": lambda: set_document(text_of().replace('"provenance": {', '"provenance": {"z": -Infinity, ')),
    "a number beyond float64": lambda: set_document(text_of().replace('"provenance": {', '"provenance": {"z": 1e999, ')),
    "text after the document": lambda: set_document(text_of() + " {}"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_broken_containers(name):
    data = CONTAINERS[name]()
    python_refuses(data, [])
    core_refuses(data, [])


def test_truncation_anywhere_is_refused():
    """At every 97th byte, and around the seams."""
    data = good()
    seams = [0, 1, 8, 9, 7 + length(), 8 + length(), 9 + length(), len(data) - 1]
    for end in {*range(0, len(data), 97), *seams}:
        python_refuses(data[:end], [])
        core_refuses(data[:end], [])


def test_a_newer_version_says_so():
    data = spoiled(both(put("version", 7), put("brand", "new")))
    for refuses in (python_refuses, core_refuses):
        refuses(data, ["version", "7", "update"])


@pytest.mark.parametrize("what", ["id missing", "id short", "id of another", "id upper case"])
def test_identity(what):
    document, tensors = parts(good())
    if what == "id missing":
        del document["id"]
    else:
        document["id"] = {"id short": "0" * 63, "id of another": "0" * 64, "id upper case": document["id"].upper()}[
            what
        ]
    python_refuses(join(document, tensors), ["id"])
    if what != "id of another":  # C++ does not recompute it
        core_refuses(join(document, tensors), ["id"])


@pytest.mark.parametrize("name", ["rnn.l0/weight.a.x", "rnn.l0/bias.a_b", "table/tanh.0.base", "rnn.l0/v"])
def test_an_edited_tensor_does_not_fit_the_id(name):
    document, tensors = parts(good())
    tensors[name].view(np.uint8).reshape(-1)[0] ^= 1
    python_refuses(join(document, tensors), ["id does not match the contents"])


def test_an_edited_golden_vector_still_loads():
    """It is not part of what the model computes: `verify` is what finds it."""
    document, tensors = parts(good())
    tensors["golden/outputs"][0, 0] += 1
    document["provenance"]["note"] = "edited"
    assert model_id(loads(join(document, tensors))) == document["id"]


def both_agree(data: bytes):
    """Neither raises anything but its refusal; what Python takes, C++ takes."""
    try:
        artifact = loads(data)
    except RindleError:
        artifact = None
    try:
        core.Model(data, None)
    except ValueError:
        assert artifact is None
    else:
        return artifact


FILES = st.sampled_from([good, good2, good4])


@examples(300)
@given(FILES, st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_raise_nothing_but_a_refusal(good, flips):
    data = bytearray(good())
    for place, mask in flips:
        data[int(place * len(data))] ^= mask
    both_agree(bytes(data))


VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    41,
    2**20,
    2**31,
    2**63,
    2**64,
    -(2**63),
    1.5,
    1e300,
    "",
    "x",
    "h",
    "\ud800",
    [],
    {},
]


@examples(500)
@given(FILES, st.data())
def test_any_edit_of_the_document_is_refused_by_both_or_taken_by_both(good, data):
    """One value anywhere in the document replaced, removed or doubled, with an identity that fits."""
    document, tensors = parts(good())
    places = [((), document)]
    for steps, here in places:
        children = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
        places += [((*steps, key), child) for key, child in children]
    steps, old = data.draw(st.sampled_from(places[1:]))
    new = data.draw(st.sampled_from([*VALUES, "remove", "neighbour", "nudge"]))
    parent = find(document, steps[:-1])
    if new == "remove":
        del parent[steps[-1]]
    elif new == "neighbour":
        parent[steps[-1]] = deepcopy(data.draw(st.sampled_from([child for _, child in places[1:]])))
    elif new == "nudge":
        parent[steps[-1]] = old + data.draw(st.sampled_from([-1, 1])) if isinstance(old, (int, float)) else [old]
    else:
        parent[steps[-1]] = new
    if isinstance(document.get("id"), str):
        document["id"] = identity(document, tensors)
    spoilt = join(document, tensors)
    artifact = both_agree(spoilt)
    if artifact is None:
        with pytest.raises(RindleError):
            loads(spoilt)
        return
    golden = artifact.golden
    model = rindle.Model(artifact)
    found = model.run_codes(golden.inputs, golden.lengths)
    np.testing.assert_array_equal(found, model.run_codes(golden.inputs, golden.lengths, engine="reference"))


def chained(nodes: int, paths: int, size: int) -> bytes:
    """A file of programs that only requantize, one after the other."""
    fixed = {"size": size, "bits": 16, "frac": 8}
    names = ["x", *(f"p{k}" for k in range(1, paths))]
    ops = [{"op": "requantize", "in": a, "out": b, "multiplier": 1, "shift": 0} for a, b in itertools.pairwise(names)]
    program = {"cell": "chain", "input": "x", "states": [], "output": names[-1], "codes": {}, "vectors": {}, "ops": ops}
    program["paths"] = dict.fromkeys(names, fixed)
    document = {
        "version": 1,
        "input": {"size": size, "format": {"bits": 16, "frac": 8}},
        "output": f"n{nodes - 1}",
        "nodes": [
            {"name": f"n{k}", "kind": "program", "input": f"n{k - 1}" if k else "input", "program": program}
            for k in range(nodes)
        ],
        "tables": {},
        "golden": {part: f"golden/{part}" for part in ("inputs", "lengths", "outputs")},
        "provenance": {},
    }
    frames = np.zeros((1, 1, size), np.int16)
    tensors = {"golden/inputs": frames, "golden/outputs": frames, "golden/lengths": np.ones(1, np.int32)}
    document["id"] = identity(document, tensors)
    return join(document, tensors)


def test_a_long_chain_of_nodes_is_read_and_runs():
    model = rindle.Model(loads(chained(1024, 2, 3)))
    x = np.array([[1.0, -2.5, 127.99]], np.float32)
    np.testing.assert_array_equal(model.run(x), model.run(x, engine="reference"))
    np.testing.assert_array_equal(model.run(x), np.round(x * 256) / 256)


def test_the_elements_of_all_paths_are_bounded():
    rindle.Model(loads(chained(1, 16, 2**20)))
    python_refuses(chained(1, 17, 2**20), ["nodes[0]", str(17 * 2**20), str(2**24)])
    core_refuses(chained(1, 17, 2**20), ["nodes[0]", str(17 * 2**20), str(2**24)])
