"""The exported C on other machines: Cortex-M3, M4 and M55 and RV32 in qemu, and WebAssembly in node, replay the same vectors; and
how many instructions a step takes.
"""

import re
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from exported import BARE, WARNINGS, random_stream, run, tool, with_extremes
from support import quantized
from test_laws import some_thresholds

import rindle
from rindle.export import to_c

ARM = "gcc-arm-none-eabi"
QEMU = "-nographic -monitor none -serial none -semihosting-config enable=on,target=native -icount shift=0".split()
FREE = ["-O2", "-ffreestanding"]


@dataclass(frozen=True)
class Cortex:
    """A core in qemu. tick: instructions per tick of its SysTick where an instruction takes a nanosecond."""

    core: str
    machine: str
    tick: float
    compiler: str = "gcc"

    def replay(self, folder) -> tuple[int, float]:
        gcc = tool("arm-none-eabi-gcc", ARM)
        qemu = tool("qemu-system-arm", "qemu-system-arm")
        cpu = [f"-mcpu=cortex-{self.core}"] + (["-mfloat-abi=hard"] if self.core == "m55" else [])
        model = [gcc, "-mthumb", *cpu]
        if self.compiler == "clang":
            model = [tool("clang", "clang"), "--target=thumbv8.1m.main-none-eabi", *cpu]
        start = [gcc, "-mthumb", *cpu, *FREE, "-mgeneral-regs-only", "-DGOLDEN=net_golden"]
        link = [gcc, "-mthumb", *cpu, "-nostdlib", "-Wl,--defsym,flash=0,--defsym,ram=0x20000000"]
        build(folder, [*model, *WARNINGS, *FREE, "-c", "net.c"])
        build(folder, [gcc, "-mthumb", *cpu, *FREE, "-std=c99", "-c", "golden.c"])
        build(folder, [*start, "-c", BARE / "cortex_m.c"])
        build(folder, [*link, "-T", BARE / "cortex_m.ld", "cortex_m.o", "net.o", "golden.o", "-lgcc", "-o", "net.elf"])
        return self.read(run(qemu, "-M", self.machine, "-kernel", "net.elf", *QEMU, cwd=folder))

    def read(self, done) -> tuple[int, float]:
        """Codes that differ, and instructions."""
        found = re.search(r"ticks (\d+)\nwrong (\d+)\n", done.stderr)
        assert found, (done.returncode, done.stdout, done.stderr)
        assert done.returncode == (found[2] != "0")
        return int(found[2]), int(found[1]) * self.tick


@dataclass(frozen=True)
class RiscV(Cortex):
    def replay(self, folder) -> tuple[int, float]:
        gcc = tool("riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf")
        qemu = tool("qemu-system-riscv32", "qemu-system-misc")
        target = [f"-march={self.core}", "-mabi=ilp32", "-mno-relax", *FREE]
        build(folder, [gcc, *target, *WARNINGS, "-c", "net.c"])
        link = ["-nostdlib", "-Wl,--no-relax,-e,start", "-T", BARE / "riscv.ld", "-DGOLDEN=net_golden"]
        build(folder, [gcc, *target, *link, BARE / "riscv.c", "net.o", "golden.c", "-lgcc", "-o", "net.elf"])
        return self.read(run(qemu, "-M", self.machine, "-bios", "none", "-kernel", "net.elf", *QEMU, cwd=folder))


@dataclass(frozen=True)
class Wasm(Cortex):
    def replay(self, folder) -> tuple[int, float]:
        clang, node = tool("clang", "clang"), tool("node", "nodejs")
        tool("wasm-ld", "lld")
        link = ["--target=wasm32", "-nostdlib", "-Wl,--no-entry", "-Wl,--export=net_golden", "-o", "net.wasm"]
        build(folder, [clang, *WARNINGS, *FREE, *link, "net.c", "golden.c"])
        script = (
            'WebAssembly.instantiate(require("fs").readFileSync("net.wasm")).then('
            "m => console.error(`ticks 0\\nwrong ${m.instance.exports.net_golden()}`))"
        )
        done = run(node, "-e", script, cwd=folder)
        assert done.returncode == 0, done.stderr
        return int(re.search(r"wrong (\d+)", done.stderr)[1]), 0.0


def build(folder, command) -> None:
    done = run(*command, cwd=folder)
    assert done.returncode == 0, done.stderr


MACHINES = {
    "cortex-m3": Cortex("m3", "mps2-an385", 40),
    "cortex-m4": Cortex("m4", "mps2-an386", 40),
    "cortex-m55": Cortex("m55", "mps3-an547", 31.25),
    "cortex-m55 clang": Cortex("m55", "mps3-an547", 31.25, "clang"),
    "rv32imc": RiscV("rv32imc", "virt", 1),
    "rv32i": RiscV("rv32i", "virt", 1),
    "wasm": Wasm("", "", 0),
}


def held(artifact):
    return artifact.with_thresholds(some_thresholds(artifact, 0.1))


MODELS = {
    "lstm int8": lambda: quantized("lstm", "int8").artifact,
    "gru w4a8 held": lambda: held(quantized("gru", "w4a8", "last").artifact),
    "sru fixed16": lambda: quantized("sru", "fixed16").artifact,
    "lstm fixed8 held": lambda: held(quantized("lstm", "fixed8").artifact),
    "4 bits, whole words": lambda: whole_layer("GRU", "w4a8", 16, 24),
}


@cache
def whole_layer(kind: str, scheme: str, inputs: int, hidden: int, time: int = 5):
    """One layer of torch's, on slow random walks."""
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = getattr(torch.nn, kind)(inputs, hidden, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    x = (0.4 * np.random.default_rng(0).normal(size=(8, 33, inputs)).cumsum(1)).astype(np.float32)
    artifact = rindle.quantize(Net().eval(), scheme, x).artifact
    step = artifact.input_format.scale
    codes = np.clip(np.floor(x[:1, :time] / step + 0.5), artifact.input_format.lo, artifact.input_format.hi)
    return artifact.with_golden(codes.astype(np.int16), np.array([time]))


FEW = ("cortex-m3", "cortex-m55 clang", "rv32i", "wasm")  # plain C or another compiler: two models say it


@pytest.mark.parametrize(
    ("machine", "model"), [(a, b) for a in MACHINES for b in (list(MODELS)[:2] if a in FEW else MODELS)]
)
def test_c_is_the_reference_on_other_machines(machine, model, tmp_path):
    to_c(with_extremes(MODELS[model]()), tmp_path, "net")
    assert MACHINES[machine].replay(tmp_path)[0] == 0


@pytest.mark.parametrize("seed", [2, 9])
@pytest.mark.parametrize("machine", ["cortex-m4", "cortex-m55", "rv32imc"])
def test_random_models_on_other_machines(machine, seed, tmp_path):
    to_c(random_stream(seed), tmp_path, "net")
    assert MACHINES[machine].replay(tmp_path)[0] == 0


@pytest.mark.parametrize("machine", MACHINES)
def test_a_wrong_code_is_seen_there(machine, tmp_path):
    artifact = with_extremes(MODELS["lstm int8"]())
    outputs = artifact.golden.outputs.copy()
    outputs[0, 0] ^= 1
    to_c(replace(artifact, golden=replace(artifact.golden, outputs=outputs)), tmp_path, "net")
    assert MACHINES[machine].replay(tmp_path)[0] == artifact.output_size


# LSTM with 32 inputs and 64 units, -O2: thousands of instructions per step, the comparison of its 64 codes included.
BOUNDS = {
    ("cortex-m4", "int8"): 62,
    ("cortex-m4", "fixed8"): 55.5,
    ("cortex-m4", "w4a8"): 62,
    ("cortex-m55 clang", "fixed8"): 29,
    ("cortex-m55 clang", "int8"): 29,
}


@pytest.mark.parametrize(("machine", "scheme"), BOUNDS)
def test_instructions_per_step(machine, scheme, tmp_path, record_property):
    counted = []
    for time in (1, 33):
        to_c(whole_layer("LSTM", scheme, 32, 64, time), tmp_path, "net", force=True)
        wrong, instructions = MACHINES[machine].replay(tmp_path)
        assert wrong == 0
        counted.append(instructions)
    step = (counted[1] - counted[0]) / 32
    record_property("instructions per step", step)
    print(f"{machine}, {scheme}: {step:.0f} instructions per step")
    assert 10e3 < step <= BOUNDS[machine, scheme] * 1e3
