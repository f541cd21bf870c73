"""The exported C on other machines: Cortex-M3, M4 and M55 and RV32 in qemu, and WebAssembly in node, replay the same vectors; and
how many instructions a step takes.
"""

import re
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from exported import WARNINGS, random_stream, tool, with_extremes
from support import quantized
from test_laws import some_thresholds

import rindle
from rindle.engines.golden import with_golden, with_thresholds
from rindle.export import to_c
from rindle.export.c.machines import MACHINES, PACKAGES
from rindle.export.c.report import report

pytestmark = pytest.mark.fast(0)  # in emulators of other machines


def replay(machine, folder):
    """The exported folder there, compiled without a warning."""
    for name in MACHINES[machine].tools:
        tool(name, PACKAGES.get(name, name))
    MACHINES[machine].build(folder, "net", WARNINGS)
    return MACHINES[machine].replay(folder, "net")


def held(artifact):
    return with_thresholds(artifact, some_thresholds(artifact, 0.1))


MODELS = {
    "lstm int8": lambda: quantized("lstm", "int8").artifact,
    "gru w4a8 held": lambda: held(quantized("gru", "w4a8", "last").artifact),
    "sru fixed16": lambda: quantized("sru", "fixed16").artifact,
    "lstm fixed8 held": lambda: held(quantized("lstm", "fixed8").artifact),
    "4 bits, whole words": lambda: whole_layer("GRU", "w4a8", 16, 24),
    "4 bits, 128 columns": lambda: whole_layer("LSTM", "w4a8", 128, 40),
    "3 bits held": lambda: held(whole_layer("GRU", "w3a8", 40, 72)),
    "7 bits": lambda: whole_layer("LSTM", "w7a8", 70, 36),
    "2 bits": lambda: whole_layer("GRU", "w2a8", 64, 66),
}


@cache
def whole_layer(kind: str, scheme: str, inputs: int, hidden: int, time: int = 5):
    """One layer of torch's, or else of ours, on slow random walks."""
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            make = getattr(torch.nn, kind, None) or partial(rindle.Recurrent, rindle.CELLS[kind.lower()])
            self.rnn = make(inputs, hidden, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    x = (0.4 * np.random.default_rng(0).normal(size=(8, 33, inputs)).cumsum(1)).astype(np.float32)
    narrow = re.fullmatch(r"w([23567])a8", scheme)  # int8 with weights of other widths
    overrides = {"weight.*": f"int{narrow[1]} mmse"} if narrow else None
    artifact = rindle.quantize(Net().eval(), "int8" if narrow else scheme, x, overrides).artifact
    step = artifact.input_format.scale
    codes = np.clip(np.floor(x[:1, :time] / step + 0.5), artifact.input_format.lo, artifact.input_format.hi)
    return with_golden(artifact, codes.astype(np.int16), np.array([time]))


OTHERS = [name for name in MACHINES if name != "host"]  # which test_export_c.py has
FEW = ("cortex-m3", "cortex-m55 clang", "rv32i", "wasm")  # plain C or another compiler: two models say it


@pytest.mark.fast(1)
@pytest.mark.parametrize(
    ("machine", "model"), [(a, b) for a in OTHERS for b in (list(MODELS)[:2] if a in FEW else MODELS)]
)
def test_c_is_the_reference_on_other_machines(machine, model, tmp_path):
    to_c(with_extremes(MODELS[model]()), tmp_path, "net")
    assert replay(machine, tmp_path).wrong == 0


@pytest.mark.parametrize("seed", [2, 9])
@pytest.mark.parametrize("machine", ["cortex-m4", "cortex-m55", "rv32imc"])
def test_random_models_on_other_machines(machine, seed, tmp_path):
    to_c(random_stream(seed), tmp_path, "net")
    assert replay(machine, tmp_path).wrong == 0


@pytest.mark.parametrize("machine", OTHERS)
def test_a_wrong_code_is_seen_there(machine, tmp_path):
    artifact = with_extremes(MODELS["lstm int8"]())
    outputs = artifact.golden.outputs.copy()
    outputs[0, 0] ^= 1
    to_c(replace(artifact, golden=replace(artifact.golden, outputs=outputs)), tmp_path, "net")
    assert replay(machine, tmp_path).wrong == artifact.output_size


# LSTM with 32 inputs and 64 units, -O2: thousands of instructions per step, the comparison of its 64 codes included.
BOUNDS = {
    ("cortex-m4", "int8"): 62,
    ("cortex-m4", "fixed8"): 55.5,
    ("cortex-m4", "w4a8"): 62,
    ("cortex-m55 clang", "fixed8"): 29,
    ("cortex-m55 clang", "int8"): 29,
    ("cortex-m55 clang", "w4a8"): 29,
    ("cortex-m55", "w4a8"): 36,
    ("cortex-m3", "w4a8"): 75,
    ("rv32imc", "w4a8"): 110,
    ("cortex-m4", "w2a8"): 55.5,
    ("cortex-m4", "w3a8"): 90,
    ("cortex-m4", "w5a8"): 90,
    ("cortex-m4", "w6a8"): 90,
    ("cortex-m4", "w7a8"): 130,
}


@pytest.mark.parametrize(("machine", "scheme"), BOUNDS)
def test_instructions_per_step(machine, scheme, tmp_path, record_property):
    counted = []
    for time in (1, 33):
        to_c(whole_layer("LSTM", scheme, 32, 64, time), tmp_path, "net", force=True)
        done = replay(machine, tmp_path)
        assert done.wrong == 0
        counted.append(done.instructions)
    step = (counted[1] - counted[0]) / 32
    record_property("instructions per step", step)
    print(f"{machine}, {scheme}: {step:.0f} instructions per step")
    assert 10e3 < step <= BOUNDS[machine, scheme] * 1e3


# Densities below which held products take fewer instructions than the dense ones of the same scheme; 32 inputs, 64 units.
EVEN = {
    ("cortex-m4", "LSTM", "int8"): 0.4,
    ("cortex-m55 clang", "LSTM", "int8"): 0.35,
    ("rv32imc", "GRU", "int8"): 0.6,
    ("cortex-m4", "LSTM", "w4a8"): 0.45,
}


@pytest.mark.parametrize(("machine", "kind", "scheme"), EVEN)
def test_break_even_of_held_products(machine, kind, scheme):
    for name in MACHINES[machine].tools:
        tool(name, PACKAGES.get(name, name))
    artifact = whole_layer(kind, scheme, 32, 64, 33)
    (target,) = report(with_thresholds(artifact, dict.fromkeys(artifact.held_codes(), 4)), machines=[machine]).targets
    for form in target.forms:
        for step in form.steps:
            print(f"{machine}, {kind}, {scheme}, {form.form}: {step.density:.1%} {step.instructions:.0f}")
    print(f"break-even {target.break_even}")
    assert EVEN[machine, kind, scheme] < target.break_even < 1
