"""Files at the edge of what docs/format.md allows: (8b) and (15) nearly broken, any bits and fractions, any M, b and s."""

import numpy as np
from hostile import P, find, good, identity, join, parts
from hypothesis import given
from profiles import examples
from random_models import seeds
from support import assert_agree, assert_naive, extreme_codes

from rindle import RindleError
from rindle import _core as core
from rindle.file.container import loads

FREE = ("a", "a.sigmoid", "b", "v.mul", "b.add", "b.add.tanh", "copy")
TIED = (("h", "h.next"), ("c", "c.next"), ("b.add.tanh.sub", "b.add.tanh.sub.clip"))


def at_the_edge(rng) -> bytes:
    document, tensors = parts(good())
    program = find(document, P)
    paths = program["paths"]
    chosen = [(name,) for name in rng.choice(FREE, rng.integers(0, 4), replace=False)]
    chosen += [pair for pair in TIED if rng.random() < 0.3]
    for names in chosen:
        bits = int(rng.choice([16, 16, rng.integers(2, 17)]))
        frac = int(rng.choice([rng.integers(0, 31), rng.integers(-10, 50), rng.integers(-64, 65)]))
        for name in names:
            paths[name].update(bits=bits, frac=frac)
    if rng.random() < 0.3:
        program["vectors"]["v"]["frac"] = int(rng.integers(-64, 65))
    affine = find(program, ["op:affine"])
    if rng.random() < 0.5:
        affine["shift"] = int(rng.integers(0, 41))
        tensors[affine["bias"]] = rng.integers(-(2**52), 2**52, 12) >> rng.integers(0, 40, 12)
        for term in affine["terms"]:
            tensors[term["multiplier"]] = (rng.integers(0, 2**22, 6) >> rng.integers(0, 22, 6)).astype(np.int32)
    if rng.random() < 0.5:
        one = find(program, [f"op:requantize.{rng.integers(0, 4)}"])
        one.update(shift=int(rng.integers(0, 41)), multiplier=int(rng.integers(0, 2**22) >> rng.integers(0, 22)))
    fc = document["nodes"][2]["program"]["paths"]["x"]  # its input has the format of h
    fc.update(bits=paths["h"]["bits"], frac=paths["h"]["frac"])
    tensors["golden/outputs"][:] = 0
    document["id"] = identity(document, tensors)
    return join(document, tensors)


@examples(150)
@given(seeds)
def test_whatever_both_take_every_engine_computes_alike(seed):
    rng = np.random.default_rng(seed)
    data = at_the_edge(rng)
    try:
        artifact = loads(data)
    except RindleError:
        artifact = None
    try:
        core.Model(data, None)
    except ValueError:
        assert artifact is None
        return
    codes = extreme_codes(rng, artifact.input_format, (2, 3, 5))
    assert_agree(artifact, codes, np.array([3, 2]))
    assert_naive(artifact, codes[:1])
