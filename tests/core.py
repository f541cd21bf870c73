"""The C++ core alone, without Python: built under the sanitizers, its own tests, replay, and hostile files.

    python tests/core.py [--mutations 20000]

`make test` runs it. It needs cmake and a C++20 compiler; the seed files come from rindle itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "sanitized"


def call(*command: object) -> None:
    """Runs a command; its failure is ours."""
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


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
    golden = ROOT / "tests/golden"
    return [*files, *sorted(golden.glob("*.rindle"))]


def check_vector_objects(build: Path) -> None:
    """Nothing compiled for a wider instruction set may be linked into code for every CPU: no weak symbols there."""
    objects = [path for path in build.rglob("kernels_avx*.o") if "rindle_core" in str(path)]
    if platform.machine().lower() in ("x86_64", "amd64"):
        assert len(objects) == 3, objects
    for path in objects:
        symbols = subprocess.run(["nm", "-C", str(path)], check=True, capture_output=True, text=True).stdout
        weak = [line for line in symbols.splitlines() if line[:1] != " " and line.split()[1] in "WVu"]
        assert not weak, f"{path.name} defines weak symbols: {weak}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mutations", type=int, default=20000)
    options = parser.parse_args()
    cmake = shutil.which("cmake") or str(Path(sys.executable).with_name("cmake"))
    os.environ["UBSAN_OPTIONS"] = "print_stacktrace=1"
    call(cmake, "-S", ROOT, "-B", BUILD, "-DRINDLE_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
    call(cmake, "--build", BUILD, "-j", "2")
    check_vector_objects(BUILD)
    call(BUILD / "rindle-tests")
    files = seeds(BUILD / "seeds")
    call(BUILD / "rindle-tests", BUILD / "seeds")
    files += sorted((BUILD / "seeds").glob("small-*.rindle"))
    from rindle import _core

    for seed, kernel in enumerate(_core.kernels(), 1):
        os.environ["RINDLE_KERNEL"] = kernel
        call(BUILD / "rindle-replay", *files)
        call(BUILD / "rindle-mutate", seed, options.mutations // len(_core.kernels()), *files)


if __name__ == "__main__":
    main()
