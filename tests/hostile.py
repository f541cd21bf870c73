"""A small file that has everything a file can have, and ways to spoil it. See test_artifact.py."""

import hashlib
import json
import struct
import warnings

import numpy as np
import safetensors.numpy
import torch
from kept import kept
from support import sequences

import rindle
from rindle import Model, Recurrent, cell
from rindle.engines.golden import with_thresholds


@cell(states=("h", "c"))
def everything(n, x, h, c):
    """Every kind of operation."""
    a, b = n.affine("a b", x, h)
    z = n.sigmoid(a)
    u = n.tanh(n.add(b, n.mul(n.vector("v"), c)))
    s = n.clip(n.sub(u, h), -0.5, 0.5)
    c = n.sum_of_products(z, u, z, s)
    return n.lerp(z, c, n.path("copy", n.requantize(u))), c


class Everything(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = Recurrent(everything, 5, 6, batch_first=True)
        self.fc = torch.nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0].mean(1))


OVERRIDES = {"weight.a.x": "fixed8", "weight.b.h": "int3 max", "code.b.h": "fixed(7,6)", "fc/weight.*": "int12 max"}


@kept
def _good() -> Model:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        artifact = rindle.quantize(Everything().eval(), "int8", sequences(4, 9), OVERRIDES).artifact
    held = {"rnn.l0/x": 3, "rnn.l0/h.code.a": np.arange(6)}
    return Model(with_thresholds(artifact, held))


def good() -> bytes:
    """The file."""
    return _good().data


class Both(torch.nn.Module):
    """Ids, both directions, and every way to end."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 3)
        self.rnn = torch.nn.GRU(3, 4, batch_first=True, bidirectional=True)
        self.fc = torch.nn.Linear(24, 2)

    def forward(self, ids):
        y, h = self.rnn(self.embedding(ids))
        return self.fc(torch.cat([h[0], h[1], y[:, -1], y.mean(1)], 1))


@kept
def _good2() -> Model:
    torch.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, 7, (4, 9))
    artifact = rindle.quantize(Both().eval(), "int8", ids, {"rnn.*/code.*.x": "int5 max"}).artifact
    return Model(with_thresholds(artifact, {"rnn.l0_reverse/h": 3}))


def good2() -> bytes:
    """A file of version 2: its nodes by their places are NODES2."""
    return _good2().data


NODES2 = ("embedding", "rnn.l0", "rnn.l0_reverse", "rnn.l0.concat", "rnn.l0.last", "rnn.l0_reverse.first")


def identity(document: dict, tensors: dict) -> str:
    """docs/format.md, "Identity", read a second time."""
    described = {key: value for key, value in document.items() if key not in ("id", "golden", "provenance")}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    golden = document["golden"].values() if isinstance(document.get("golden"), dict) else ()
    digest = hashlib.sha256(text.encode("ascii"))
    for name in sorted(set(tensors) - {name for name in golden if isinstance(name, str)}):
        digest.update(name.encode() + b"\0" + tensors[name].tobytes())
    return digest.hexdigest()


def parts(data: bytes) -> tuple[dict, dict]:
    (length,) = struct.unpack("<Q", data[:8])
    text = json.loads(data[8 : 8 + length])["__metadata__"]["rindle"]
    return json.loads(text), dict(safetensors.numpy.load(data))


def join(document, tensors: dict, metadata: dict | None = None) -> bytes:
    text = document if isinstance(document, str) else json.dumps(document)
    return safetensors.numpy.save(tensors, {"rindle": text} if metadata is None else metadata)


def spoiled(change, data: bytes | None = None) -> bytes:
    """The file after change(document, tensors), with an identity that fits: an attacker computes it too."""
    document, tensors = parts(good() if data is None else data)
    change(document, tensors)
    if "id" in document:
        document["id"] = identity(document, tensors)
    return join(document, {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})


def find(document, steps):
    """Follows keys and indices; "op:clip" is the first clip, "op:clip.1" the second."""
    here = document
    for step in steps:
        if isinstance(step, str) and step.startswith("op:"):
            kind, _, number = step[3:].partition(".")
            here = [op for op in here["ops"] if op["op"] == kind][int(number or 0)]
        else:
            here = here[step]
    return here


def put(*steps_and_value):
    *steps, key, value = steps_and_value
    return lambda document, tensors: find(document, steps).__setitem__(key, value)


def drop(*steps):
    return lambda document, tensors: find(document, steps[:-1]).__delitem__(steps[-1])


def tensor(name: str, change):
    """Replaces a tensor by change(it); name may be that of a key that names it."""

    def apply(document, tensors):
        tensors[name] = change(tensors[name].copy())

    return apply


def named(steps, change):
    """As :func:`tensor`, of the tensor that the document names at ``steps``."""
    return lambda document, tensors: tensor(find(document, steps), change)(document, tensors)


def at(index, value):
    def change(array):
        array[index] = value
        return array

    return change


def both(*changes):
    def apply(document, tensors):
        for change in changes:
            change(document, tensors)

    return apply


def header(change, data: bytes | None = None) -> bytes:
    """The file with another safetensors header: change(header dict) in place, or text in its stead."""
    data = good() if data is None else data
    (length,) = struct.unpack("<Q", data[:8])
    if isinstance(change, (bytes, str)):
        text = change.encode() if isinstance(change, str) else change
    else:
        head = json.loads(data[8 : 8 + length])
        change(head)
        text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


# --------------------------------------------------------------------------------------------- one broken rule each

P = ("nodes", 0, "program")
PATHS, CODES, VECTORS = (*P, "paths"), (*P, "codes"), (*P, "vectors")
AFFINE, TERM = (*P, "op:affine"), (*P, "op:affine", "terms", 0)
REQUANTIZE, CLIP, TABLE, LERP = ((*P, f"op:{kind}") for kind in ("requantize", "clip", "table", "lerp"))
SIGMOID = ("tables", "sigmoid.0")
BIG = 10**400


def op(**entry):
    """Appends an operation to the first program."""
    return lambda document, tensors: find(document, P)["ops"].append(entry)


def path(name, group="paths", **entry):
    fmt = {"size": 6, "bits": 16, "frac": 14} | entry
    return lambda document, tensors: find(document, P)[group].__setitem__(name, fmt)


def call(old, new):
    """Another name for a path, wherever it stands."""

    def apply(document, tensors):
        program = json.loads(json.dumps(find(document, P)).replace(json.dumps(old), json.dumps(new)))
        document["nodes"][0]["program"] = program

    return apply


def rename(document, tensors):
    tensors["rnn.l0/w"] = tensors.pop("rnn.l0/v")


def extra(document, tensors):
    tensors["leftover"] = np.zeros(1, np.int16)


def everything_negative(array):
    array[:] = 0xFF
    return array


def shared_lengths(document, tensors):
    document["golden"]["lengths"] = next(name for name in tensors if name.endswith(".multiplier"))
    del tensors["golden/lengths"]


# Words that both messages must have: the field, and where it helps the value. Then what spoils the file.
SPOILED = {
    "newer version": (["version", "5"], put("version", 5)),
    "version 0": (["version", "0"], put("version", 0)),
    "version is text": (["version"], put("version", "1")),
    "version is true": (["version"], put("version", True)),
    "version missing": (["version"], drop("version")),
    "unknown key": (["colour"], put("colour", "red")),
    "no nodes": (["nodes"], put("nodes", [])),
    "nodes missing": (["nodes"], drop("nodes")),
    "nodes not a list": (["nodes"], put("nodes", {})),
    "too many nodes": (["nodes", "1025"], put("nodes", [{"name": "a", "kind": "last", "input": "input"}] * 1025)),
    "output unknown": (["output", "nothing"], put("output", "nothing")),
    "output is the input": (["output"], put("output", "input")),
    "output missing": (["output"], drop("output")),
    "provenance missing": (["provenance"], drop("provenance")),
    "provenance a list": (["provenance"], put("provenance", [])),
    "input missing": (["input"], drop("input")),
    "input size 0": (["input.size", "0"], put("input", "size", 0)),
    "input size too large": (["input.size", "1048577"], put("input", "size", 2**20 + 1)),
    "input size negative": (["input.size"], put("input", "size", -5)),
    "input size overflows": (["input.size"], put("input", "size", 2**64 + 5)),
    "input size a float": (["input.size"], put("input", "size", 5.0)),
    "input size true": (["input.size"], put("input", "size", True)),
    "input extra key": (["input", "colour"], put("input", "colour", 1)),
    # formats
    "format of 1 bit": (["input.format.bits", "1"], put("input", "format", "bits", 1)),
    "format of 17 bits": (["input.format.bits", "17"], put("input", "format", "bits", 17)),
    "format with frac and scale": (["input.format"], put("input", "format", "frac", 3)),
    "format with neither": (["input.format"], drop("input", "format", "scale")),
    "scale 0": (["input.format"], put("input", "format", "scale", 0)),
    "scale negative": (["input.format"], put("input", "format", "scale", -0.5)),
    "scale not a float32": (["input.format"], put("input", "format", "scale", 0.1)),
    "scale without finite reciprocal": (["input.format"], put("input", "format", "scale", 2.0**-140)),
    "scale enormous": (["input.format"], put("input", "format", "scale", 2.0**65)),
    "scale overflows": (["range of float64"], put("input", "format", "scale", BIG)),
    "scale is text": (["input.format.scale"], put("input", "format", "scale", "0.5")),
    "frac out of range": (["a", "frac", "65"], put(*PATHS, "a", "frac", 65)),
    "frac too low": (["a", "frac", "-65"], put(*PATHS, "a", "frac", -65)),
    "frac a float": (["a", "frac"], put(*PATHS, "a", "frac", 1.5)),
    "element-wise path with a scale": (["a"], put(*PATHS, "a", {"size": 6, "bits": 16, "scale": 0.5})),
    "element-wise path unsigned": (["a"], put(*PATHS, "a", {"size": 6, "bits": 7, "frac": 1, "signed": False})),
    "unsigned code of 8 bits": (["h.code.a"], put(*CODES, "h.code.a", "signed", False)),
    "signed is true": (["signed"], put(*CODES, "h.code.a", "signed", True)),
    "signed is a number": (["signed"], put(*CODES, "h.code.b", "signed", 0)),
    "input format changed": (["x"], put("input", "format", "bits", 7)),
    # nodes
    "node name taken": (["name", "rnn.l0"], put("nodes", 2, "name", "rnn.l0")),
    "node called input": (["name", "input"], put("nodes", 1, "name", "input")),
    "node name empty": (["name"], put("nodes", 1, "name", "")),
    "control character in a name": (["name"], put("nodes", 1, "name", "a\x07b")),
    "C1 control in a name": (["name"], put("nodes", 1, "name", "a\x85b")),
    "bidi override in a name": (["name"], put("nodes", 1, "name", "a\u202eb")),
    "bidi isolate in a name": (["name"], put("nodes", 1, "name", "a\u2067b")),
    "zero width space in a name": (["name"], put("nodes", 1, "name", "\u200b")),
    "byte order mark in a name": (["name"], put("nodes", 1, "name", "\ufeffa")),
    "node name too long": (["name"], put("nodes", 1, "name", "n" * 257)),
    "node name not a string": (["name"], put("nodes", 1, "name", 3)),
    "node of unknown kind": (["kind"], put("nodes", 1, "kind", "middle")),
    "a kind of version 2": (["kind"], put("nodes", 1, "kind", "first")),
    "a direction of version 2": (["reverse"], put("nodes", 0, "reverse", True)),
    "ids of version 2": (["input"], put("input", {"vocabulary": 7})),
    "node reads what comes later": (["input", "fc"], put("nodes", 1, "input", "fc")),
    "node reads itself": (["input", "rnn.l0"], put("nodes", 0, "input", "rnn.l0")),
    "node extra key": (["colour"], put("nodes", 1, "colour", 1)),
    "node is a number": (["nodes"], put("nodes", 1, 3)),
    "mean of a vector": (["rnn.l0.mean"], lambda d, t: d["nodes"].insert(2, {"name": "again", "kind": "mean", "input": "rnn.l0.mean"})),
    "states on a vector": (["states"], both(put("nodes", 0, "input", "last"), lambda d, t: d["nodes"].insert(0, {"name": "last", "kind": "last", "input": "input"}))),
    "last with a program": (["program"], put("nodes", 1, "program", {})),
    "program missing": (["program"], drop(*P)),
    # programs
    "program extra key": (["colour"], put(*P, "colour", 1)),
    "program without cell": (["cell"], drop(*P, "cell")),
    "program input unknown": (["x"], put(*P, "input", "q")),
    "program output unknown": (["output", "q"], put(*P, "output", "q")),
    "program output is a code": (["output"], put(*P, "output", "x.code")),
    "no operations": (["ops"], put(*P, "ops", [])),
    "too many operations": (["ops", "257"], lambda d, t: find(d, P).__setitem__("ops", find(d, P)["ops"][:1] * 257)),
    "operation not an object": (["ops"], put(*P, "ops", 0, "affine")),
    "unknown operation": (["op", "exec"], put(*CLIP, "op", "exec")),
    "operation without op": (["op"], drop(*CLIP, "op")),
    "operation extra key": (["colour"], put(*CLIP, "colour", 1)),
    "size differs from the input": (["x"], put(*PATHS, "x", "size", 4)),
    "path size 0": (["a", "size"], put(*PATHS, "a", "size", 0)),
    "path size too large": (["a", "size"], put(*PATHS, "a", "size", 2**20 + 1)),
    "path written twice": (["b.add.tanh", "written"], put(*P, "op:requantize.3", "out", "b.add.tanh")),
    "path read before it is written": (["read", "before"], lambda d, t: find(d, P)["ops"].sort(key=lambda one: one["op"] != "add")),
    "input path overwritten": (["h"], put(*CLIP, "out", "h")),
    "path never used": (["spare"], path("spare")),
    "path never read": (["spare"], both(path("spare"), op(op="requantize", out="spare", **{"in": "h"}, multiplier=1, shift=0))),
    "path in two groups": (["a"], path("a", "vectors", tensor="rnn.l0/v")),
    "path name empty": (["path"], path("")),
    "path called nothing": (["path"], call("copy", "")),
    "path called something long": (["path"], call("copy", "n" * 257)),
    "path name too long": (["paths"], path("n" * 257)),
    "path name a lone surrogate": ([], path("\ud800")),
    "vector overwritten": (["v"], put(*P, "op:mul", "out", "v")),
    "state without next": (["states"], put(*P, "states", 0, ["h"])),
    "state a string": (["states"], put(*P, "states", 0, "h")),
    "state unknown": (["states", "q"], put(*P, "states", 0, ["q", "h.next"])),
    "state twice": (["states", "h"], put(*P, "states", 1, ["h", "c.next"])),
    "state is the input": (["states"], put(*P, "states", 1, ["x", "c.next"])),
    "two states, one next value": (["states"], put(*P, "states", 1, 1, "h.next")),
    "state and next of other formats": (["states"], put(*PATHS, "c", "frac", 13)),
    "next value never written": (["h.next"], lambda d, t: find(d, P)["ops"].pop()),
    "next value is a code": (["states"], put(*P, "states", 0, 1, "h.code.a")),
    # codes and thresholds
    "theta negative": (["h.code.b", "-1"], put(*CODES, "h.code.b", "theta", -1)),
    "theta too large": (["h.code.b", "63"], put(*CODES, "h.code.b", "theta", 63)),
    "theta a float": (["h.code.b"], put(*CODES, "h.code.b", "theta", 1.5)),
    "theta true": (["h.code.b"], put(*CODES, "h.code.b", "theta", True)),
    "theta overflows": (["range of float64"], put(*CODES, "h.code.b", "theta", BIG)),
    "theta's tensor missing": (["nothing"], put(*CODES, "h.code.b", "theta", "nothing")),
    "theta's tensor negative": (["h.code.a"], named((*CODES, "h.code.a", "theta"), at(2, -1))),
    "theta's tensor too large": (["h.code.a"], named((*CODES, "h.code.a", "theta"), at(2, 127))),
    "theta's tensor of another shape": (["theta"], named((*CODES, "h.code.a", "theta"), lambda one: one[:5])),
    "theta's tensor of another type": (["theta"], named((*CODES, "h.code.a", "theta"), lambda one: one.astype(np.int32))),
    "theta on a path": (["theta"], put(*PATHS, "a", "theta", 1)),
    "a code written by a table": (["x.code"], put(*TABLE, "out", "x.code")),
    "a code read by add": (["h.code.a"], put(*P, "op:add", "in", 0, "h.code.a")),
    "an int path read by add": (["x"], both(put("input", "size", 6), put(*PATHS, "x", "size", 6), put(*P, "op:add", "in", 0, "x"))),
    # affine
    "gate unknown": (["out", "q"], put(*AFFINE, "out", ["q", "b"])),
    "gate twice": (["a"], both(put(*AFFINE, "out", ["a", "b", "a"]), named((*AFFINE, "bias"), lambda one: np.resize(one, 18)))),
    "no gates": (["out"], put(*AFFINE, "out", [])),
    "gates not strings": (["out"], put(*AFFINE, "out", [1, 2])),
    "no terms": (["terms"], put(*AFFINE, "terms", [])),
    "too many terms": (["terms", "65"], lambda d, t: find(d, AFFINE).__setitem__("terms", find(d, AFFINE)["terms"][:1] * 65)),
    "shift 41": (["shift", "41"], put(*AFFINE, "shift", 41)),
    "shift negative": (["shift", "-1"], put(*AFFINE, "shift", -1)),
    "bias missing": (["bias"], drop(*AFFINE, "bias")),
    "bias names nothing": (["bias", "nothing"], put(*AFFINE, "bias", "nothing")),
    "bias of another shape": (["bias"], named((*AFFINE, "bias"), lambda one: one[:-1])),
    "bias of two dimensions": (["bias"], named((*AFFINE, "bias"), lambda one: one[None])),
    "bias int32": (["bias"], named((*AFFINE, "bias"), lambda one: one.astype(np.int32))),
    "bias breaks (8b)": (["2^52"], named((*AFFINE, "bias"), at(3, 2**52 - 2**30))),
    "bias is the least int64": (["2^52"], named((*AFFINE, "bias"), at(3, -(2**63)))),
    "bias is the largest int64": (["2^52"], named((*AFFINE, "bias"), at(3, 2**63 - 1))),
    "term reads a path": (["in", "h"], put(*TERM, "in", "h")),
    "term reads nothing": (["in", "q"], put(*TERM, "in", "q")),
    "term's gates not neighbours": (["gates"], put(*TERM, "gates", ["b", "a"])),
    "term's gates unknown": (["gates"], put(*TERM, "gates", ["q"])),
    "term's gates empty": (["gates"], put(*TERM, "gates", [])),
    "term's gates more than there are": (["weight"], put(*TERM, "gates", ["a", "b"])),
    "weight names nothing": (["weight", "nothing"], put(*TERM, "weight", "nothing")),
    "weight of another shape": (["weight"], named((*TERM, "weight"), lambda one: one[:, :-1])),
    "weight with a row more": (["weight"], named((*TERM, "weight"), lambda one: np.concatenate([one, one[:1]]))),
    "weight of another width": (["weight"], put(*TERM, "bits", 7)),
    "weight of 17 bits": (["bits", "17"], put(*TERM, "bits", 17)),
    "weight int8": (["weight"], named((*TERM, "weight"), lambda one: one.view(np.int8).astype(np.int16))),
    "weight code -128": (["weight"], named((*TERM, "weight"), at((2, 1), 0x80))),
    "weight code -4 of 3 bits": (["weight"], named((*AFFINE, "terms", 3, "weight"), at((0, 0), 0b100))),
    "weight with bits in the padding": (["weight"], named((*AFFINE, "terms", 3, "weight"), everything_negative)),
    "weights unsigned": (["signed"], put(*TERM, "signed", False)),
    "weights with frac and scales": (["frac"], put(*AFFINE, "terms", 1, "frac", 3)),
    "weights without scale": (["frac"], drop(*TERM, "frac")),
    "multiplier negative": (["multiplier"], named((*TERM, "multiplier"), at(1, -1))),
    "multiplier 2^22": (["multiplier"], named((*TERM, "multiplier"), at(1, 2**22))),
    "multiplier of another shape": (["multiplier"], named((*TERM, "multiplier"), lambda one: one[:5])),
    "multiplier int64": (["multiplier"], named((*TERM, "multiplier"), lambda one: one.astype(np.int64))),
    "scales 0": (["scales"], named((*AFFINE, "terms", 1, "scales"), at(0, 0.0))),
    "scales NaN": (["scales"], named((*AFFINE, "terms", 1, "scales"), at(0, np.nan))),
    "scales negative": (["scales"], named((*AFFINE, "terms", 1, "scales"), at(0, -1.0))),
    "scales float64": (["F64"], named((*AFFINE, "terms", 1, "scales"), lambda one: one.astype(np.float64))),
    # the other operations
    "requantize multiplier 2^22": (["multiplier", "4194304"], put(*REQUANTIZE, "multiplier", 2**22)),
    "requantize multiplier negative": (["multiplier", "-1"], put(*REQUANTIZE, "multiplier", -1)),
    "requantize multiplier missing": (["multiplier"], drop(*REQUANTIZE, "multiplier")),
    "requantize shift 41": (["shift", "41"], put(*REQUANTIZE, "shift", 41)),
    "requantize of a code": (["in", "h.code.a"], put(*P, "op:requantize.2", "in", "h.code.a")),
    "requantize of a vector": (["v"], put(*P, "op:requantize.3", "in", "v")),
    "operands of two sizes": (["v.mul"], put(*PATHS, "v.mul", "size", 5)),
    "too few operands": (["in"], put(*LERP, "in", ["a.sigmoid", "h"])),
    "too many operands": (["in"], put(*LERP, "in", ["a.sigmoid", "h", "h", "h"])),
    "operands a string": (["in"], put(*LERP, "in", "abc")),
    "operand a list": (["in"], put(*CLIP, "in", ["h"])),
    "all operands vectors": (["v"], put(*P, "op:mul", "in", ["v", "v"])),
    "a table of a vector": (["v"], put(*TABLE, "in", "v")),
    "a clip of a vector": (["v"], put(*CLIP, "in", "v")),
    "products too far apart": (["2^52"], put(*PATHS, "v.mul", "frac", 64)),
    "lerp weight without fraction": (["ops[12]"], both(put(*LERP, "in", 0, "copy"), put(*PATHS, "copy", "frac", -1))),
    "clip upside down": (["hi"], put(*CLIP, "lo", 16385)),
    "clip outside the range": (["hi", "32768"], put(*CLIP, "hi", 32768)),
    "clip to another format": (["clip"], put(*PATHS, "b.add.tanh.sub.clip", "frac", 14)),
    "table unknown": (["table", "gelu"], put(*TABLE, "table", "gelu")),
    # tables
    "table not used": (["tables", "spare"], lambda d, t: d["tables"].__setitem__("spare", dict(d["tables"]["tanh.0"]))),
    "table extra key": (["colour"], put(*SIGMOID, "colour", 1)),
    "table degree 2": (["degree", "2"], put(*SIGMOID, "degree", 2)),
    "table degree 0 with a slope": (["slope"], put(*SIGMOID, "degree", 0)),
    "table without slope": (["slope"], drop(*SIGMOID, "slope")),
    "table flag": (["flag"], put(*SIGMOID, "flag", "even")),
    "table x0 with a flag": (["x0"], put(*SIGMOID, "x0", 1)),
    "table x0 overflows": (["x0"], both(put(*SIGMOID, "flag", "none"), put(*SIGMOID, "x0", 2**31))),
    "table p 16": (["p", "16"], put(*SIGMOID, "p", 16)),
    "table q 31": (["q", "31"], put(*SIGMOID, "q", 31)),
    "table q negative": (["q", "-1"], put(*SIGMOID, "q", -1)),
    "table of 100 segments": (["base", "100"], both(named((*SIGMOID, "base"), lambda one: one[:100]), named((*SIGMOID, "slope"), lambda one: one[:100]))),
    "table of 512 segments": (["base", "512"], both(named((*SIGMOID, "base"), lambda one: np.tile(one, 4)), named((*SIGMOID, "slope"), lambda one: np.tile(one, 4)))),
    "table base and slope differ": (["slope"], named((*SIGMOID, "slope"), lambda one: one[:64])),
    "table base int32": (["base"], named((*SIGMOID, "base"), lambda one: one.astype(np.int32))),
    "table error negative": (["max_error"], put(*SIGMOID, "max_error", -1)),
    "table error overflows": (["range of float64"], put(*SIGMOID, "max_error", BIG)),
    "table error missing": (["max_error"], drop(*SIGMOID, "max_error")),
    "golden tensor serves elsewhere": (["golden.lengths", "alone"], shared_lengths),
    "sigmoid into frac 31": (["sigmoid"], both(put(*PATHS, "a.sigmoid", "frac", 31))),
    "degree 0 beyond its format": (["sigmoid.0"], both(put(*SIGMOID, "degree", 0), drop(*SIGMOID, "slope"), lambda d, t: t.pop("table/sigmoid.0.slope"), put(*PATHS, "a.sigmoid", {"size": 6, "bits": 8, "frac": 7}))),
    # vectors and tensors
    "vector of another shape": (["v"], named((*VECTORS, "v", "tensor"), lambda one: one[:5])),
    "vector outside its range": (["v", "-128"], both(put(*VECTORS, "v", "bits", 8), named((*VECTORS, "v", "tensor"), lambda one: one * 0 - 128))),
    "vector without tensor": (["tensor"], drop(*VECTORS, "v", "tensor")),
    "missing tensor": (["rnn.l0/v"], rename),
    "extra tensor": (["leftover"], extra),
    # golden
    "golden missing": (["golden"], drop("golden")),
    "golden part missing": (["golden", "outputs"], drop("golden", "outputs")),
    "golden extra key": (["golden", "colour"], put("golden", "colour", 1)),
    "golden inputs of another width": (["golden.inputs"], named(("golden", "inputs"), lambda one: one[:, :, :4])),
    "golden inputs of two dimensions": (["golden.inputs"], named(("golden", "inputs"), lambda one: one[0])),
    "golden input out of range": (["golden.inputs", "-128"], named(("golden", "inputs"), at((0, 0, 0), -128))),
    "golden too long": (["golden.inputs"], named(("golden", "inputs"), lambda one: np.tile(one, (1, 1000, 1)))),
    "golden length 0": (["golden.lengths"], named(("golden", "lengths"), at(0, 0))),
    "golden length too long": (["golden.lengths"], named(("golden", "lengths"), at(0, 13))),
    "golden lengths of another batch": (["golden.lengths"], named(("golden", "lengths"), lambda one: one[:-1])),
    "golden lengths int64": (["golden.lengths"], named(("golden", "lengths"), lambda one: one.astype(np.int64))),
    "golden outputs of another size": (["golden.outputs"], named(("golden", "outputs"), lambda one: one[:, :2])),
    "golden without rows": (["golden"], named(("golden", "inputs"), lambda one: one[:0])),
}  # fmt: skip
