"""Where exported C is built and run without any hardware: bare Cortex-M and RV32 in qemu, WebAssembly in node, and this computer."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...errors import RindleError

BARE = Path(__file__).with_name("bare")
FREE = ["-O2", "-ffreestanding"]
QEMU = "-nographic -monitor none -serial none -semihosting-config enable=on,target=native -icount shift=0".split()
PACKAGES = {  # of Debian and its kin
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "arm-none-eabi-size": "binutils-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "riscv64-unknown-elf-size": "binutils-riscv64-unknown-elf",
    "qemu-system-riscv32": "qemu-system-misc",
    "wasm-ld": "lld",
    "node": "nodejs",
    "cc": "gcc",
    "size": "binutils",
}


class DoesNotFit(RindleError):
    """The model is larger than the emulated machine."""


@dataclass(frozen=True)
class Replay:
    """Of a golden vector. wrong: codes that differ. instructions: of the whole replay. stack: bytes, the replaying function's own
    frame excluded. None: not measured there.
    """

    wrong: int
    instructions: float | None = None
    stack: int | None = None


@dataclass(frozen=True)
class Machine:
    """One that has nothing to count with. tools: what must be on the PATH. compiler: what compiles the model."""

    title: str
    compiler: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    size: str = "size"

    @property
    def missing(self) -> dict[str, str]:
        """Tools that are not installed -> their package."""
        return {tool: PACKAGES.get(tool, tool) for tool in self.tools if shutil.which(tool) is None}

    @property
    def label(self) -> str:
        return f"{self.title}, {version(self.compiler[0])}"

    def build(self, folder: Path, model: str, flags=()) -> None:
        """The model's object, in the folder that holds its C. flags: of the compiler besides -O2."""
        self._run([*self.compiler, *FREE, *flags, "-c", f"{model}.c"], folder)

    def replay(self, folder: Path, model: str) -> Replay:
        """golden.c on the object that ``build`` made. Raises RindleError if nothing comes back."""
        raise NotImplementedError

    def sections(self, folder: Path, model: str) -> tuple[dict[str, int], int]:
        """Bytes of the objects: flash, as code and constants, and the state struct in RAM."""
        flash, ram = {"code": 0, "constants": 0}, 0
        for name, size in self._sections(folder, f"{model}.o"):
            if re.match(r"\.(text|ARM\.ex)", name):
                flash["code"] += size
            elif re.match(r"\.s?(rodata|data|bss)", name):
                flash["constants"] += size
        for name, size in self._sections(folder, "golden.o"):
            ram += size if re.match(r"\.s?bss", name) else 0
        return flash, ram

    def _sections(self, folder: Path, name: str) -> list[tuple[str, int]]:
        listed = self._run([self.size, "-A", name], folder).stdout
        return [(name, int(size)) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", listed, re.MULTILINE)]

    def _golden(self, folder: Path, command) -> None:
        self._run([*command, *FREE, "-std=c99", "-c", "golden.c"], folder)

    def _run(self, command, folder: Path, quiet: bool = False) -> subprocess.CompletedProcess:
        done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=600)
        if done.returncode and not quiet:
            too_large = re.search(r"the (?:model|state) is larger than .*", done.stderr)
            if too_large:
                raise DoesNotFit(f"{self.title}: {too_large[0]}")
            raise RindleError(f"{self.title}: {command[0]} failed: {done.stderr.strip()[-2000:]}")
        return done


@dataclass(frozen=True)
class Bare(Machine):
    """In qemu. board: qemu's name. per_count: instructions for one count of bare/replay.c. link: how the rest is built."""

    board: str = ""
    per_count: float = 1
    link: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    script: str = ""

    def replay(self, folder: Path, model: str) -> Replay:
        self._golden(folder, [*self.link, "-fstack-usage"])
        for source in ("replay.c", self.start[0]):
            self._run([*self.link, *FREE, *self.start[1:], f"-DGOLDEN={model}_golden", "-c", BARE / source], folder)
        objects = ["replay.o", f"{Path(self.start[0]).stem}.o", f"{model}.o", "golden.o"]
        script = ["-nostdlib", "-T", BARE / self.script]
        self._run([*self.link, *script, *self.flags, *objects, "-lgcc", "-o", "model.elf"], folder)
        done = self._run(
            [self.tools[-1], "-M", self.board, *self.emulator, "-kernel", "model.elf", *QEMU], folder, True
        )
        found = re.search(r"counts (\d+)\nstack (\d+)\nwrong (\d+)\n", done.stderr)
        if found is None or done.returncode != (found[3] != "0"):
            why = {98: "more instructions than its counter holds; give fewer frames", 99: "a fault"}
            said = why.get(done.returncode, f"status {done.returncode}: {done.stdout}{done.stderr}")
            raise RindleError(f"{self.title}: the replay in {self.tools[-1]} ended with {said}")
        golden = re.search(rf":{model}_golden\t(\d+)", (folder / "golden.su").read_text())
        return Replay(int(found[3]), int(found[1]) * self.per_count, int(found[2]) - int(golden[1]))

    @property
    def emulator(self) -> list[str]:
        return []

    @property
    def flags(self) -> list[str]:
        return []


@dataclass(frozen=True)
class Cortex(Bare):
    flash_size: int = 0x400000

    @property
    def flags(self) -> list[str]:
        return [f"-Wl,--defsym,flash=0,--defsym,ram=0x20000000,--defsym,flash_size={self.flash_size}"]


@dataclass(frozen=True)
class RiscV(Bare):
    @property
    def emulator(self) -> list[str]:
        return ["-bios", "none"]

    @property
    def flags(self) -> list[str]:
        return ["-Wl,--no-relax,-e,start"]


@dataclass(frozen=True)
class Wasm(Machine):
    def replay(self, folder: Path, model: str) -> Replay:
        self._golden(folder, self.compiler)
        link = ["-nostdlib", "-Wl,--no-entry", f"-Wl,--export={model}_golden", "-o", "model.wasm"]
        self._run([*self.compiler, *link, f"{model}.o", "golden.o"], folder)
        script = (
            'WebAssembly.instantiate(require("fs").readFileSync("model.wasm")).then('
            f"m => console.log(`wrong ${{m.instance.exports.{model}_golden()}}`))"
        )
        done = self._run(["node", "-e", script], folder)
        return Replay(int(re.search(r"wrong (\d+)", done.stdout)[1]))


@dataclass(frozen=True)
class Host(Machine):
    """This computer. valgrind counts the instructions, if it is there."""

    def replay(self, folder: Path, model: str) -> Replay:
        self._golden(folder, self.compiler)
        self._run([*self.compiler, "-O2", f"{model}.o", "golden.o", "main.c", "-o", "golden"], folder)
        wrong = re.search(r"golden: (pass|\d+)", self._run(["./golden"], folder, quiet=True).stdout)
        if wrong is None:
            raise RindleError(f"{self.title}: the compiled program ended without a word")
        wrong = 0 if wrong[1] == "pass" else int(wrong[1])
        if shutil.which("valgrind") is None:
            return Replay(wrong)
        counter = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        done = self._run([*counter, f"--toggle-collect={model}_golden", "./golden"], folder, quiet=True)
        found = re.search(r"Collected : (\d+)", done.stderr)
        return Replay(wrong, float(found[1]) if found else None)


def cortex(core: str, board: str, tick: float, clang: bool = False, **options) -> Cortex:
    """tick: instructions per tick of SysTick where an instruction takes a nanosecond."""
    cpu = [f"-mcpu=cortex-{core}"] + (["-mfloat-abi=hard"] if core == "m55" else [])
    gcc = ("arm-none-eabi-gcc", "-mthumb", *cpu)
    return Cortex(
        f"Cortex-{core.upper()}",
        ("clang", "--target=thumbv8.1m.main-none-eabi", *cpu) if clang else gcc,
        (*(("clang",) if clang else ()), "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"),
        "arm-none-eabi-size",
        board=board,
        per_count=tick,
        link=gcc,
        start=("cortex_m.c", "-mgeneral-regs-only"),
        script="cortex_m.ld",
        **options,
    )


def riscv(march: str) -> RiscV:
    gcc = ("riscv64-unknown-elf-gcc", f"-march={march}", "-mabi=ilp32", "-mno-relax")
    tools = ("riscv64-unknown-elf-gcc", "riscv64-unknown-elf-size", "qemu-system-riscv32")
    return RiscV(march.upper(), gcc, tools, tools[1], board="virt", link=gcc, start=("riscv.c",), script="riscv.ld")


MACHINES: dict[str, Machine] = {
    "cortex-m3": cortex("m3", "mps2-an385", 40),
    "cortex-m4": cortex("m4", "mps2-an386", 40),
    "cortex-m55": cortex("m55", "mps3-an547", 31.25, flash_size=0x80000),
    "cortex-m55 clang": cortex("m55", "mps3-an547", 31.25, clang=True, flash_size=0x80000),
    "rv32imc": riscv("rv32imc"),
    "rv32i": riscv("rv32i"),
    "wasm": Wasm("WebAssembly", ("clang", "--target=wasm32"), ("clang", "wasm-ld", "node")),
    "host": Host("this computer", ("cc",), ("cc", "size")),
}


@lru_cache
def version(tool: str) -> str:
    """A tool's name and version."""
    try:
        said = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=60).stdout
    except OSError:
        return tool
    found = re.search(r"\d+\.\d+(?:\.\d+)?", re.sub(r"\([^)]*\)", "", said.split("\n")[0]))
    kind = next((kind for kind in ("clang", "gcc", "qemu") if kind in tool), None) or (
        "clang" if "clang" in said else "gcc" if "gcc" in said.lower() or "Free Software" in said else tool
    )
    return f"{kind} {found[0]}" if found else kind
