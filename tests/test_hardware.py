"""Hardware models against the published corner values, and workloads against the artifact's own counts."""

from dataclasses import replace

import numpy as np
import pytest
from support import TorchModel, quantized, sequences

import rindle
from rindle import RindleError
from rindle.engines.measurement import measured_inputs
from rindle.measure.accelerators import HARDWARE, Products, Workload, workload_of

# SRU with four layers of 550 units in both directions, projections of 256 and 1904 outputs (MOHAQ)
MACS = (75_900, *[844_800] * 3, *[281_600] * 3, 2_094_400)


def sru4(w, a):
    return Workload(tuple(Products(f"m{k}", n, n, w, a) for k, n in enumerate(MACS)), 88_000, 8_800)


@pytest.mark.parametrize(
    "bits, megabytes, energy, speedup", [(16, 10.60, 16.36, 0.98), (8, 5.31, 6.57, 1.97), (4, 2.66, 2.64, 3.94)]
)
def test_silago_in_its_corners(bits, megabytes, energy, speedup):
    one = sru4(bits, bits)
    found = HARDWARE["silago"](one)
    assert one.operations == 5_637_500
    assert one.bits / 8 / 2**20 == pytest.approx(megabytes, abs=0.0051)
    assert found["energy"] == pytest.approx(energy, abs=0.0051)
    assert found["speedup"] == pytest.approx(speedup, abs=0.0051)


def test_silago_takes_the_wider_operand_and_has_no_2_bits():
    assert HARDWARE["silago"](sru4(4, 8))["speedup"] == HARDWARE["silago"](sru4(8, 8))["speedup"]
    assert HARDWARE["silago"](sru4(5, 4))["speedup"] == HARDWARE["silago"](sru4(8, 8))["speedup"]
    with pytest.raises(RindleError, match="m0 multiplies 8-bit weights and 2-bit codes; SiLago has 4, 8, 16"):
        HARDWARE["silago"](sru4(8, 2))


@pytest.mark.parametrize(
    "w, a, fused", [(16, 16, 1), (16, 8, 2), (8, 8, 4), (8, 4, 8), (4, 4, 16), (4, 2, 32), (2, 2, 64), (3, 5, 8)]
)
def test_bitfusion(w, a, fused):
    assert HARDWARE["bitfusion"](sru4(w, a))["speedup"] == pytest.approx(fused * sum(MACS) / 5_637_500)


def test_bitfusion_in_its_corners():
    assert HARDWARE["bitfusion"](sru4(2, 2))["speedup"] == pytest.approx(63, abs=0.05)
    assert HARDWARE["bitfusion"](sru4(2, 4))["speedup"] == pytest.approx(31.5, abs=0.05)


@pytest.mark.parametrize("cell", ["lstm", "gru", "sru"])
def test_a_workload_counts_what_the_artifact_computes(cell):
    model = quantized(cell, "int8")
    work = workload_of(model.artifact)
    recurrent = {node.name for node in model.artifact.graph.recurrent}
    inputs = measured_inputs(model.artifact, {}, [])
    assert sum(p.macs for p in work.products if p.name.split("/")[0] in recurrent) == sum(i.macs for i in inputs)
    assert len({p.name.split("/")[0] for p in work.products}) == len(model.artifact.graph.programs)
    assert {(p.weight_bits, p.code_bits) for p in work.products} == {(8, 8)}
    rows = sum(
        len(layer.constants[op.out[0]].bias) if op.biased else 0
        for layer in (node.layer for node in model.artifact.graph.programs)
        for op in layer.program.affines
    )
    vectors = sum(len(v) for node in model.artifact.graph.programs for v in node.layer.vectors.values())
    assert vectors <= work.vectors <= rows + vectors
    assert work.elementwise > 0
    assert work.bits == 8 * sum(p.weights for p in work.products) + 16 * work.vectors


def test_a_workload_sees_the_widths_of_every_gate():
    overrides = {"weight.z.h": "int4 mmse", "code.z.h": "int2 mmse"}
    model = rindle.quantize(TorchModel("gru", "all").eval(), "int8", sequences(), overrides)
    narrow = [p for p in workload_of(model.artifact).products if (p.weight_bits, p.code_bits) == (4, 2)]
    assert narrow and all(p.name.endswith("/z.h") for p in narrow)
    assert np.isclose(HARDWARE["bitfusion"](Workload((replace(narrow[0], macs=10),), 0, 0))["speedup"], 32)
