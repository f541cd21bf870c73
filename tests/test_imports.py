"""Imports flow one way, and models run where torch is not installed."""

import ast
import subprocess
import sys
from pathlib import Path

from support import quantized, sequences

import rindle

SOURCE = Path(rindle.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
TORCH = ("nn", "tasks")  # the rooms that may import torch; cli does so inside its verbs, through nn

# A room (a folder, a folder of nn, or a file beside them) -> the rooms it may import. A room stands below all that import it.
# The picture is in docs/design.md. errors.py and files.py are open to everyone.
ROOMS = {
    "errors.py": "",
    "files.py": "",
    "numbers": "",
    "program": "numbers",
    "cells": "program",
    "scheme": "numbers program",
    "file": "numbers program",
    "engines": "_core numbers program file",
    "measure": "numbers program cells scheme file engines",
    "search": "numbers program scheme file engines measure",
    "export": "numbers program file engines",
    "nn/numerics.py": "numbers program",
    "nn/lsq.py": "nn/numerics.py",
    "nn/sequences.py": "program nn/numerics.py nn/lsq.py",
    "nn/modules.py": "program cells nn/numerics.py",
    "nn/simulate.py": "engines nn/numerics.py",
    "nn/capture": "numbers program cells scheme file nn/numerics.py nn/modules.py",
    "nn/calibrate": "numbers program scheme nn/numerics.py",
    "nn/conversion": "numbers program file engines nn/numerics.py nn/sequences.py nn/calibrate",
    "nn/back": "_core numbers program cells scheme file engines measure nn/numerics.py nn/sequences.py nn/modules.py nn/capture",
    "nn/quantize.py": "scheme file engines measure nn/capture nn/calibrate nn/conversion",
    "nn/train": "numbers program scheme file engines nn/numerics.py nn/lsq.py nn/sequences.py nn/modules.py nn/capture "
    "nn/calibrate nn/conversion nn/back",
    "nn/variants": "scheme file engines measure search nn/capture nn/calibrate nn/conversion nn/quantize.py",
    "nn/__init__.py": "nn/modules.py nn/capture nn/back nn/quantize.py nn/train",
    "report": "program file engines measure search",
    "tasks": "file engines measure search nn/quantize.py",
    "data.py": "tasks",
    "__init__.py": "numbers program cells scheme file engines",
    "cli": "numbers scheme file engines measure search export report tasks nn/back nn/capture nn/conversion "
    "nn/quantize.py nn/simulate.py nn/variants",
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, as a dotted name from the package's root."""
    package = ("rindle", *path.relative_to(SOURCE).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
    return names


def room_of(parts: tuple[str, ...]) -> str | None:
    """The room of a module of the package, given its path without the suffix; None for a name inside a module."""
    if parts == ("_core",):
        return "_core"
    if not parts:
        return "__init__.py"
    for depth in (2, 1) if parts[0] == "nn" else (1,):
        place = SOURCE.joinpath(*parts[:depth])
        if len(parts) < depth:
            return "nn/__init__.py"
        if place.is_dir():
            return "/".join(parts[:depth])
        if place.with_suffix(".py").is_file():
            return "/".join(parts[:depth]) + ".py"
    return None


def room_of_file(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return room_of(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_table_names_every_room_once_and_has_no_circle():
    assert {room_of_file(path) for path in FILES} == set(ROOMS)
    below: set[str] = {"_core"}
    for room, allowed in ROOMS.items():  # in an order in which every room stands behind what it imports
        assert set(allowed.split()) <= below, f"{room}: {set(allowed.split()) - below} stand behind it"
        below.add(room)


def test_every_room_imports_what_the_table_says_and_no_more():
    seen = {room: set() for room in ROOMS}
    for path in FILES:
        room = room_of_file(path)
        for name in imported(path):
            if name == "torch" or name.startswith("torch."):
                assert room.split("/")[0] in TORCH, f"{path} imports torch"
            if name.split(".")[0] != "rindle" or name == "rindle":
                continue
            other = room_of(tuple(name.split(".")[1:]))
            if other and other not in (room, "errors.py", "files.py"):
                seen[room].add(other)
    assert {room: set(allowed.split()) for room, allowed in ROOMS.items()} == seen


WITHOUT_TORCH = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "typer", "rich"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
sys.meta_path.insert(0, Hidden())
import numpy as np, rindle
x = np.load(sys.argv[2])
model = rindle.load(sys.argv[1])
stream = model.stream()
whole = model.run(x)
assert np.array_equal(whole, model.run(x, engine="reference"))
assert np.array_equal(np.stack([stream.step(frame) for frame in x[0]]), whole[0])
assert model.with_thresholds({"rnn.l0/x": 0}).measure(x).eliminated() > 0
assert "torch" not in sys.modules
try:
    rindle.quantize
except ImportError as error:
    assert 'pip install -e ".[torch]"' in str(error), error
else:
    raise SystemExit("rindle.quantize exists without torch")
try:
    import rindle.cli
except SystemExit as error:
    assert 'pip install -e ".[cli]"' in str(error), error
print("fine")
"""


def test_load_run_and_stream_work_where_torch_is_not_installed(tmp_path):
    import numpy as np

    rindle.save(quantized("lstm", "int8"), tmp_path / "m.rindle")
    np.save(tmp_path / "x.npy", sequences(2, 6))
    command = [sys.executable, "-c", WITHOUT_TORCH, tmp_path / "m.rindle", tmp_path / "x.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "fine", done.stderr
