"""The matrices that take hours: every kernel, every instruction set and thread count of torch, long fuzzing, every Python.

    make everything                          runs what has not passed yet for this commit, and goes on after a kill
    python tests/everything.py --list        the steps, what each is for, and how it ended
    python tests/everything.py NAME …        these alone, again

Each step's output and result lie in build/everything/<commit>/. When all have passed, the date, the commit, the machine and the
results are written into docs/testing.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import counts

ROOT = Path(__file__).parent.parent
PYTEST = (sys.executable, "-m", "pytest", "-q", "-rs", "-n", "2", "--dist", "worksteal")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
BEGIN, END = "<!-- everything: begin -->", "<!-- everything: end -->"


@dataclass(frozen=True)
class Step:
    """One run of something. words: the command; environment: what is set for it; why: what it is for."""

    name: str
    why: str
    words: tuple = PYTEST
    environment: dict = field(default_factory=dict)


def steps() -> list[Step]:
    """Every step on this machine, in the order in which they run."""
    from rindle import _core

    here = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = [
        Step("style", "ruff and the type checker", ("make", "lint", "types")),
        Step("core", "the core under sanitizers, 400,000 mutated files", core("--mutations", "400000")),
        Step("suite", f"every test, {here}"),
        *(
            Step(f"kernel-{kernel}", f"every test where models choose the kernel {kernel}", PYTEST, {"RINDLE_KERNEL": kernel})
            for kernel in dict.fromkeys([*_core.kernels()[1:]])
        ),
        Step("torch-default", "every test, torch without wide vectors", PYTEST, {"ATEN_CPU_CAPABILITY": "default"}),
        Step("torch-avx2", "every test, torch with AVX2 at most", PYTEST, {"ATEN_CPU_CAPABILITY": "avx2"}),
        Step("torch-threads-2", "every test, torch on two threads", PYTEST, {"RINDLE_TEST_THREADS": "2"}),
        Step("fuzz", "20 times the examples of every law, new ones", (*PYTEST, "-m", "hypothesis"), {"HYPOTHESIS_PROFILE": "everything"}),
        Step("demo", "the demo as the README runs it", ("make", "demo")),
    ]  # fmt: skip
    if shutil.which("clang++"):
        found.append(
            Step("core-clang", "the core compiled by clang", core("--quick"), {"CC": "clang", "CXX": "clang++"})
        )
    for version in PYTHONS:
        name = f"python{version}"
        if name != here and runs(name):
            found.append(Step(name, f"every test, {name}", (sys.executable, __file__, "--with-python", name)))
    return found


def core(*options: str) -> tuple:
    return sys.executable, "tests/core.py", *options


def runs(python: str) -> bool:
    """Whether there is such a Python, and not only a launcher without one behind it."""
    return bool(shutil.which(python)) and subprocess.run([python, "--version"], capture_output=True).returncode == 0


def with_python(python: str) -> None:
    """Every test under another Python, in a checkout and an environment of its own."""
    place = ROOT / "build" / "everything" / python
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, place], check=True)
    data = os.environ.get("RINDLE_DATA_MIRROR") or str(ROOT.parent / "shared/data")
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}
    if Path(data).is_dir():
        environment["RINDLE_DATA_MIRROR"] = data
    subprocess.run(["make", "test", f"PYTHON={python}"], check=True, cwd=place, env=environment)


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def machine() -> str:
    """The processor, its cores, and the operating system."""
    found = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def run(step: Step, folder: Path) -> bool:
    """Runs a step, keeps what it says and how it ended, and says so."""
    log, began = folder / f"{step.name}.txt", time.time()
    print(f"{step.name}: {step.why} …", flush=True)
    with open(log, "w") as out:
        done = subprocess.run(
            step.words, cwd=ROOT, env=os.environ | step.environment, stdout=out, stderr=subprocess.STDOUT
        )
    last = next((line for line in reversed(log.read_text().splitlines()) if line.strip()), "")
    result = {
        "passed": done.returncode == 0,
        "date": datetime.date.today().isoformat(),
        "minutes": round((time.time() - began) / 60, 1),
        "last": last.strip("= ")[:100],
    }
    (folder / f"{step.name}.json").write_text(json.dumps(result))
    print(f"  {'passed' if result['passed'] else 'FAILED, see ' + str(log)}, {result['minutes']} min: {result['last']}")
    return result["passed"]


def result_of(step: Step, folder: Path) -> dict | None:
    path = folder / f"{step.name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def record(found: list[Step], folder: Path, commit: str) -> None:
    """Writes the results into docs/testing.md."""
    results = {step.name: result_of(step, folder) for step in found}
    lines = [
        f"Last run: {max(one['date'] for one in results.values())}, commit `{commit[:12]}`, {machine()}.",
        "",
        "| step | what it is | minutes | its last line |",
        "|---|---|---|---|",
        *(
            f"| `{step.name}` | {step.why} | {results[step.name]['minutes']} | {results[step.name]['last']} |"
            for step in found
        ),
    ]
    counts.replace_block(BEGIN, END, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="steps to run again; without any, those that have not passed"
    )
    parser.add_argument("--list", action="store_true", help="show the steps and how they ended")
    parser.add_argument("--with-python", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.with_python:
        return with_python(options.with_python)
    found, commit = steps(), git("rev-parse", "HEAD")
    folder = ROOT / "build" / "everything" / commit[:12]
    folder.mkdir(parents=True, exist_ok=True)
    if unknown := sorted(set(options.names) - {step.name for step in found}):
        parser.error(f"no step is called {unknown[0]!r}; there are {', '.join(step.name for step in found)}")
    if options.list:
        for step in found:
            result = result_of(step, folder)
            state = "not run" if result is None else "passed" if result["passed"] else "FAILED"
            print(f"{step.name:16} {state:8} {step.why}")
        return None
    if git("status", "--porcelain"):
        parser.error("the checkout has changes: commit them first, so that the result is that of a commit")
    for step in found:
        if step.name in options.names or not (options.names or (result_of(step, folder) or {}).get("passed")):
            run(step, folder)
    failed = [step.name for step in found if not (result_of(step, folder) or {}).get("passed")]
    if failed:
        raise SystemExit(f"not passed yet: {', '.join(failed)}")
    record(found, folder, commit)
    print("everything passed; docs/testing.md has the date, the commit and the machine")
    return None


if __name__ == "__main__":
    main()
