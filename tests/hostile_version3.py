"""The rules of version 3 of the file format, broken one at a time. See test_artifact.py."""

from functools import lru_cache

import numpy as np
from hostile import at, both, drop, find, named, put
from random_models import random_layer
from support import extreme_codes

from rindle import cell, fixed
from rindle.engines.golden import with_golden, with_thresholds
from rindle.file.artifact import Artifact, Golden
from rindle.file.container import dumps
from rindle.numbers.float_ops import FloatOp
from rindle.program.graph import Graph
from rindle.program.nodes import INPUT, FloatNode, GatherNode, MaxNode, ProgramNode, Window, WindowNode
from rindle.program.program import Conv


@cell(states=("h",))
def images(n, x, h):
    """Two channels of 3 x 4 and a state of two channels of 2 x 2."""
    convs = (
        Conv((3, 4), (2, 3), (1, 2), (1, 1), (0, 1), (2, 2), groups=2),
        Conv((2, 2), (3, 1), (1, 1), (1, 1), (1, 0), (2, 2), groups=1),
    )
    return n.tanh(n.conv("a", x, h, geometry=convs))


@cell(width="H")
def gate(n, x, y):
    return n.mul(n.sigmoid(x), y)


def values(*shape) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@lru_cache
def good3() -> bytes:
    """A file with all that is new: its nodes by their places are NODES3."""
    rng, x = np.random.default_rng(3), fixed(16, 12)
    convolution = random_layer(rng, images, {"I": 24, "H": 8}, [x], "conv", level_sets=False)
    h = convolution.formats["h.next"]
    product = random_layer(rng, gate, {"H": 3}, [h, h], "gate", level_sets=False)
    nodes = (
        WindowNode("window", (INPUT,), Window(2, 2, before=2)),
        ProgramNode("conv", ("window",), convolution),
        GatherNode("gather", ("conv",), (7, 0, 0)),
        GatherNode("turned", ("gather",), (2, 1, 0)),
        ProgramNode("gate", ("gather", "turned"), product),
        WindowNode("fewer", ("gate",), Window(2, 1, 2, 0, 1)),
        MaxNode("max", ("fewer",)),
        FloatNode("score", ("gate",), FloatOp("linear", {"weight": values(1, 3), "bias": values(1)})),
        FloatNode("attention", ("score", "gate"), FloatOp("attention")),
        FloatNode("norm", ("max",), FloatOp("layer_norm", {"epsilon": 1e-5, "weight": values(6), "bias": values(6)})),
        FloatNode("down", ("norm",), FloatOp("linear", {"weight": values(3, 6)})),
        FloatNode("sum", ("down", "attention"), FloatOp("add")),
        FloatNode("softmax", ("sum",), FloatOp("softmax", {"groups": 1})),
    )
    artifact = Artifact(Graph(12, nodes, "softmax"), x, Golden(None, None, None), {})
    artifact = with_golden(artifact, extreme_codes(rng, x, (3, 6, 12)), np.array([6, 1, 4]))
    return dumps(with_thresholds(artifact, {"conv/h": 2}))


NODES3 = "window conv gather turned gate fewer max score attention norm down sum softmax".split()
W, C, G, M, F, S, A, N, D, U, SOFTMAX = (
    ("nodes", NODES3.index(name))
    for name in ("window", "conv", "gather", "gate", "fewer", "score", "attention", "norm", "down", "sum", "softmax")
)
P = (*C, "program")
AFFINE = (*P, "op:affine")
CONV = (*AFFINE, "terms", 0, "conv")


def conv(key, *value):
    return put(*CONV, key, list(value))


def node(**entry):
    """A node before the first float one."""
    return lambda document, tensors: document["nodes"].insert(NODES3.index("score"), {"name": "new"} | entry)


def ends_with(**entry):
    """Another output."""

    def apply(document, tensors):
        document["nodes"].append({"name": "new"} | entry)
        document["output"] = "new"

    return apply


def swap_groups(document, tensors):
    find(document, CONV)["groups"] = 3


# Words that both messages must have: the field, and where it helps the value. Then what spoils the file.
SPOILED3 = {
    "as version 2": ([], put("version", 2)),
    "window of 0": (["size", "0"], put(*W, "size", 0)),
    "window of 4097": (["size", "4097"], put(*W, "size", 4097)),
    "window without stride": (["stride"], drop(*W, "stride")),
    "window of stride 0": (["stride", "0"], put(*W, "stride", 0)),
    "window of dilation 0": (["dilation", "0"], put(*W, "dilation", 0)),
    "window before -1": (["before", "-1"], put(*W, "before", -1)),
    "window after 2^20 + 1": (["after", "1048577"], put(*W, "after", 2**20 + 1)),
    "window of a float": (["size"], put(*W, "size", 2.0)),
    "window too wide": ([], node(kind="window", input="gate", size=4096, dilation=4096, stride=1, before=0, after=0)),
    "window of too many features": ([], both(node(kind="window", name="w2", input="w1", size=4096, dilation=1, stride=1, before=4095, after=0), node(kind="window", name="w1", input="gate", size=4096, dilation=1, stride=1, before=4095, after=0))),
    "window of a vector": (["max"], node(kind="window", input="max", size=1, dilation=1, stride=1, before=0, after=0)),
    "window extra key": (["colour"], put(*W, "colour", 1)),
    "window of two": (["input"], put(*W, "input", ["input", "input"])),
    "gather index -1": (["index"], named((*G, "index"), at(0, -1))),
    "gather index too large": (["index"], named((*G, "index"), at(0, 8))),
    "gather without index": (["index"], drop(*G, "index")),
    "gather index int64": (["index"], named((*G, "index"), lambda one: one.astype(np.int64))),
    "gather index of two dimensions": (["index"], named((*G, "index"), lambda one: one[None])),
    "max of a vector": (["max"], node(kind="max", input="max")),
    "max extra key": (["colour"], put("nodes", NODES3.index("max"), "colour", 1)),
    "program with three names for two paths": ([], put(*M, "input", ["gather", "turned", "gather"])),
    "program with two names for one path": ([], put(*C, "input", ["window", "window"])),
    "program with one path for two names": ([], put(*M, "program", "input", "x")),
    "program with one path twice": ([], put(*M, "program", "input", ["x", "x"])),
    "program with a path that is not one": (["z"], put(*M, "program", "input", ["x", "z"])),
    "program of 65 inputs": (["65"], put(*M, "input", ["gather"] * 65)),
    "program of an empty array": (["input"], put(*C, "input", [])),
    "program of an array of one": (["input"], put(*C, "input", ["window"])),
    "program of two time bases": (["fewer"], put(*M, "input", 1, "fewer")),
    "program of inputs of two sizes": ([], put(*M, "input", 1, "conv")),
    "concat of two time bases": (["fewer"], node(kind="concat", input=["fewer", "gate"])),
    "conv without stride": (["stride"], drop(*CONV, "stride")),
    "conv extra key": (["colour"], put(*CONV, "colour", 1)),
    "conv a list": (["conv"], put(*AFFINE, "terms", 0, "conv", [])),
    "conv image of one number": (["image"], conv("image", 3)),
    "conv image of 0": (["image", "0"], conv("image", 3, 0)),
    "conv image too large": (["image"], conv("image", 2**20 + 1, 1)),
    "conv image that does not divide": ([], conv("image", 5, 1)),
    "conv kernel a float": (["kernel"], conv("kernel", 2.0, 3)),
    "conv kernel of another size": (["weight"], conv("kernel", 2, 2)),
    "conv stride 0": (["stride", "0"], conv("stride", 0, 1)),
    "conv dilation 0": (["dilation", "0"], conv("dilation", 1, 0)),
    "conv padding -1": (["padding", "-1"], conv("padding", 0, -1)),
    "conv padding as wide as the kernel": (["padding"], conv("padding", 0, 3)),
    "conv result behind the image": (["result"], put(*AFFINE, "terms", 0, "conv", "stride", [9, 1])),
    "conv result 0": (["result", "0"], conv("result", 0, 4)),
    "conv results that differ": (["result"], conv("result", 1, 4)),
    "conv groups 0": (["groups", "0"], put(*CONV, "groups", 0)),
    "conv groups that do not divide": (["groups", "3"], swap_groups),
    "conv beside a matrix": ([], drop(*AFFINE, "terms", 1, "conv")),
    "conv bias per element": (["bias"], named((*AFFINE, "bias"), lambda one: np.repeat(one, 4))),
    "conv multipliers per element": (["multiplier"], named((*AFFINE, "terms", 0, "multiplier"), lambda one: np.repeat(one, 4))),
    "conv sums too large": (["2^52"], both(named((*AFFINE, "terms", 0, "multiplier"), lambda one: np.full_like(one, 2**22 - 1)), named((*AFFINE, "bias"), lambda one: np.full_like(one, 2**52 - 1)))),
    "float of no operation": (["op"], drop(*SOFTMAX, "op")),
    "float of an unknown operation": (["op", "softmin"], put(*SOFTMAX, "op", "softmin")),
    "float extra key": (["colour"], put(*SOFTMAX, "colour", 1)),
    "float of two for one": (["input"], put(*SOFTMAX, "input", ["sum", "sum"])),
    "float of one for two": (["input"], put(*U, "input", "down")),
    "float of three for two": (["input", "3"], put(*U, "input", ["down", "down", "down"])),
    "float of a sequence and a vector": (["gate"], put(*U, "input", ["gate", "down"])),
    "float of two sizes": ([], put(*U, "input", ["norm", "down"])),
    "floats into a program": (["sum"], ends_with(kind="gather", input="sum", index="gather/index")),
    "floats into max": (["score"], ends_with(kind="max", input="score")),
    "softmax without groups": (["groups"], drop(*SOFTMAX, "groups")),
    "softmax of 2 groups of 3": (["groups", "2"], put(*SOFTMAX, "groups", 2)),
    "softmax of 0 groups": (["groups", "0"], put(*SOFTMAX, "groups", 0)),
    "layer_norm without epsilon": (["epsilon"], drop(*N, "epsilon")),
    "layer_norm of negative epsilon": (["epsilon"], put(*N, "epsilon", -1e-5)),
    "layer_norm of another size": (["weight"], named((*N, "weight"), lambda one: one[:-1])),
    "layer_norm of NaN": (["weight"], named((*N, "weight"), at(2, np.nan))),
    "linear without weight": (["weight"], drop(*D, "weight")),
    "linear of another width": (["weight"], named((*D, "weight"), lambda one: one[:, :-1])),
    "linear of infinity": (["weight"], named((*D, "weight"), at((0, 0), np.inf))),
    "linear bias of another size": (["bias"], named((*S, "bias"), lambda one: np.repeat(one, 2))),
    "linear float64": (["weight"], named((*D, "weight"), lambda one: one.astype(np.float64).view(np.int64).astype(np.int16))),
    "attention with wide scores": ([], put(*A, "input", ["gate", "gate"])),
    "attention of vectors": ([], put(*A, "input", ["max", "max"])),
    "attention of two time bases": (["fewer"], put(*A, "input", ["score", "fewer"])),
    "attention of one": (["input"], put(*A, "input", "score")),
    "golden outputs int16": (["golden.outputs"], named(("golden", "outputs"), lambda one: one.astype(np.int16))),
    "golden outputs NaN": (["golden.outputs"], named(("golden", "outputs"), at((0, 0), np.nan))),
    "golden rows too short": (["golden"], both(put(*F, "dilation", 4), put(*F, "after", 0))),
}  # fmt: skip
