"""Imports flow one way, and models run where torch is not installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support import quantized, sequences

import rindle

SOURCE = Path(rindle.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
KNOWS_BOTH = (SOURCE / "cli", SOURCE / "demo", SOURCE / "__init__.py")
TRAIN_THEMSELVES = ("vowels.py", "digits.py", "digits_train.py")  # of demo/


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


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_training_side_imports_torch(path):
    training = path.is_relative_to(SOURCE / "nn")
    knows_both = any(path.is_relative_to(one) for one in KNOWS_BOTH)
    for name in imported(path):
        if not training and path.name not in TRAIN_THEMSELVES:
            assert not is_within(name, "torch"), name
            assert not is_within(name, "rindle.nn") or knows_both, name


def test_the_training_side_reaches_the_runtime_only_to_hand_a_model_over():
    for path in (SOURCE / "nn").rglob("*.py"):
        for name in imported(path):
            allowed = path.name in (
                "quantize.py",
                "qat.py",
                "drop_in.py",
                "dynamic.py",
                "sensitivity.py",
            ) and is_within(name, "rindle.runtime")
            assert allowed or not any(
                is_within(name, f"rindle.{other}") for other in ("runtime", "_core", "cli", "cost")
            ), name


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
    assert "pip install 'rindle[torch]'" in str(error), error
else:
    raise SystemExit("rindle.quantize exists without torch")
try:
    import rindle.cli
except SystemExit as error:
    assert "pip install 'rindle[cli]'" in str(error), error
print("fine")
"""


def test_load_run_and_stream_work_where_torch_is_not_installed(tmp_path):
    import numpy as np

    rindle.save(quantized("lstm", "int8"), tmp_path / "m.rindle")
    np.save(tmp_path / "x.npy", sequences(2, 6))
    command = [sys.executable, "-c", WITHOUT_TORCH, tmp_path / "m.rindle", tmp_path / "x.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "fine", done.stderr
