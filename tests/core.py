"""The C++ core alone, without Python: built, its own tests, replay, the C API from a shared library, and hostile files.

    python tests/core.py [--mutations 20000]     under the address and undefined-behaviour sanitizers: `make test`
    python tests/core.py --quick                 without them, on the released files alone: `make check`

It needs cmake and compilers of C++20 and C99; the seed files come from rindle itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
GOLDEN = sorted((ROOT / "tests/golden").glob("*.rindle"))


def call(*command: object, **environment: str) -> None:
    """Runs a command to its end, and then prints it with what it said; its failure is ours."""
    words = [str(part) for part in command]
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    shown = words if len(words) < 12 else [*words[:6], f"… ({len(words)} words)"]
    print("$", *(f"{key}={value}" for key, value in environment.items()), *shown, flush=True)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with {done.returncode}")


def build(folder: Path, *options: str) -> Path:
    """Configures and builds what has changed since the last time."""
    cmake = shutil.which("cmake") or str(Path(sys.executable).with_name("cmake"))
    call(cmake, "-S", ROOT, "-B", folder, *options)
    call(cmake, "--build", folder, "-j", "2")
    return folder


def seeds(folder: Path) -> list[Path]:
    """A file per cell and scheme, half of them held, from the package under test; and the golden ones."""
    import torch
    from support import CASES, quantized

    import rindle

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, (cell, scheme) in enumerate(dict.fromkeys(case[:2] for case in CASES)):
        model = quantized(cell, scheme)
        if number % 2:
            model = model.with_thresholds(dict.fromkeys(model.thresholds, number))
        files.append(folder / f"{cell}-{scheme}.rindle")
        rindle.save(model, files[-1])
    return [*files, *GOLDEN]


def check_vector_objects(build: Path) -> None:
    """Nothing compiled for a wider instruction set may be linked into code for every CPU: no weak symbols there."""
    objects = [path for path in build.rglob("kernels_avx*.o") if "rindle_core" in str(path)]
    if platform.machine().lower() in ("x86_64", "amd64"):
        assert len(objects) == 3, objects
    for path in objects:
        symbols = subprocess.run(["nm", "-C", str(path)], check=True, capture_output=True, text=True).stdout
        weak = [line for line in symbols.splitlines() if line[:1] != " " and line.split()[1] in "WVu"]
        assert not weak, f"{path.name} defines weak symbols: {weak}"


def check_shared_library(build: Path, sanitized: bool) -> None:
    """It exports every function of rindle.h, and nothing else of the core; and a C program gets by with it alone."""
    (library,) = build.glob("librindle.so")
    symbols = subprocess.run(["nm", "-D", "--defined-only", str(library)], check=True, capture_output=True, text=True)
    found = {line.split()[-1] for line in symbols.stdout.splitlines() if line.split()[-2] in "TBDRV"}
    header = (ROOT / "core/api/rindle.h").read_text()
    wanted = {part.split("(")[0].split()[-1].lstrip("*") for part in header.split("RINDLE_API ")[1:] if "(" in part}
    wanted = {name for name in wanted if name.startswith("rindle_")}
    assert len(wanted) > 30 and wanted <= found, f"rindle.h declares what is not exported: {sorted(wanted - found)}"
    if not sanitized:  # which export their own
        own = {name for name in found if "rindle" in name}
        assert own == wanted, f"exported, but not declared in rindle.h: {sorted(own - wanted)}"
    call(build / "rindle-shared", *GOLDEN)


def quick() -> None:
    """What a change of the core most likely breaks, in seconds once it is built."""
    folder = build(ROOT / "build" / "core", "-DCMAKE_BUILD_TYPE=Release")
    call(folder / "rindle-tests")
    call(folder / "rindle-replay", *GOLDEN)
    check_shared_library(folder, sanitized=False)


def sanitized(mutations: int) -> None:
    """Everything, under the sanitizers, with every kernel of this CPU."""
    os.environ["UBSAN_OPTIONS"] = "print_stacktrace=1"
    folder = build(ROOT / "build" / "sanitized", "-DRINDLE_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
    check_vector_objects(folder)
    call(folder / "rindle-tests")
    check_shared_library(folder, sanitized=True)
    files = seeds(folder / "seeds")
    call(folder / "rindle-tests", folder / "seeds")
    files += sorted((folder / "seeds").glob("small-*.rindle"))
    from rindle import _core

    kernels = list(enumerate(_core.kernels(), 1))

    def with_kernel(numbered):
        seed, kernel = numbered
        call(folder / "rindle-replay", *files, RINDLE_KERNEL=kernel)
        call(folder / "rindle-mutate", seed, mutations // len(kernels), *files, RINDLE_KERNEL=kernel)

    with ThreadPoolExecutor(2) as pool:  # the programs have one thread
        list(pool.map(with_kernel, kernels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="without sanitizers, on the released files alone")
    parser.add_argument("--mutations", type=int, default=20000)
    options = parser.parse_args()
    quick() if options.quick else sanitized(options.mutations)


if __name__ == "__main__":
    main()
