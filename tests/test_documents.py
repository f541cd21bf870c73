"""The code blocks of the README and of docs/ run as they stand, or are named here with the reason why not."""

import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from support import ROOT

import rindle
from rindle import cli
from rindle.file.dataset import dataset

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]

# Blocks that are not run: (page, how the block begins) -> why.
NOT_RUN = {
    ("README.md", "pip install"): "installs from an index; continuous integration installs the checkout by the same words",
    ("README.md", "make demo"): "the two commands that set themselves up; continuous integration runs the second",
    ("docs/design.md", "torch model"): "a picture",
    ("docs/format.md", '{ "version"'): "the shape of a document, not one; tests/golden has some",
    ("docs/format.md", '{ "cell"'): "the shape of a program, not one",
    ("docs/rounding.md", "$ python experiments"): "needs the data sets and an hour; tests/test_rounding.py has the functions",
    ("docs/search.md", "$ rindle sweep"): "240 candidates; tests/test_sweep.py runs the verbs on a few",
    ("docs/sensitivity.md", '"rnn.l0/weight'): "two rules of a file; tests/test_sensitivity.py reads such files",
    ("docs/speech.md", "rindle demo --data fsdd"): "needs recordings; tests/test_demo.py runs the first command where there are some",
}  # fmt: skip
# Commands inside blocks that are run, and are not: how they begin -> why.
COMMANDS_NOT_RUN = {
    "rindle sweep": "hundreds of candidates; tests/test_sweep.py runs it on a few",
    "rindle search": "hundreds of candidates; tests/test_sweep.py runs it on a few",
}
ENDS_WITH_1 = ("rindle inspect speaker.rindle --diff",)  # what docs/command-line.md says of it: they differ
OWN_TEST = {  # pages that a test of their own runs, and more closely
    "docs/my-cell.md": "tests/test_my_cell.py",
    "docs/my-model.md": "tests/test_my_model.py",
}


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and the text of each fenced block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.S | re.M)


def is_run(page: str, text: str) -> bool:
    return not any(page == where and text.lstrip().startswith(begins) for where, begins in NOT_RUN)


def test_every_reason_is_of_a_block():
    for where, begins in NOT_RUN:
        assert any(text.lstrip().startswith(begins) for _, text in blocks(where)), f"{where} has no block {begins!r}"
    for page, test in OWN_TEST.items():
        assert (ROOT / page).name in (ROOT / test).read_text(), f"{test} does not read {page}"


def speaker_data(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences float32 [rows, 14, 12] whose first feature tells the label, their lengths, and labels 0..8."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 9, rows)
    x = (0.3 * rng.normal(size=(rows, 14, 12)).cumsum(1)).astype(np.float32)
    x[:, :, 0] += labels[:, None]
    return x, rng.integers(6, 15, rows).astype(np.int32), labels


def names_of(page: str) -> dict:
    """What a page's Python speaks of without making it."""
    if page == "docs/sensitivity.md":
        x, _, _ = speaker_data(8, 0)
        return {"rindle": rindle, "sequences": x, "net": torch.nn.Sequential(torch.nn.Linear(12, 4)).eval()}
    if page == "docs/command-line.md":
        x, _, _ = speaker_data(8, 0)
        model = rindle.quantize(torch.nn.Sequential(torch.nn.Linear(12, 4)).eval(), "int8", x)
        return {"rindle": rindle, "encoder": model, "predictor": model, "joiner": model, "x": x}
    return {}


@pytest.mark.parametrize("page", PAGES)
def test_python_runs_as_it_stands(page, tmp_path, monkeypatch):
    found = [text for language, text in blocks(page) if language == "python" and is_run(page, text)]
    if page in OWN_TEST or not found:
        return
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.py").write_text("\n".join(found))
    left = runpy.run_path(str(tmp_path / "page.py"), names_of(page))
    if page == "README.md":
        assert rindle.load("speaker.rindle").id == left["model"].id
        np.testing.assert_array_equal(left["outputs"], left["y"][0])


NETS = """import torch

class Speaker(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.GRU(12, 24, batch_first=True)
        self.fc = torch.nn.Linear(24, 9)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])

def speaker():
    return Speaker().eval()
"""


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """Runs command lines of the documents in a folder that has what they name: a network, its weights, data, a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    net = runpy.run_path(str(tmp_path / "nets.py"))["speaker"]()
    safetensors.torch.save_file(net.state_dict(), tmp_path / "speaker.safetensors")
    safetensors.torch.save_file(net.state_dict(), tmp_path / "s.safetensors")
    for number, name in enumerate(("train", "validation", "test")):
        x, lengths, labels = speaker_data(24, number)
        dataset(x, lengths, labels).save(tmp_path / f"{name}.npz")
    np.save(tmp_path / "x.npy", x)
    model = rindle.quantize(torch.nn.Sequential(torch.nn.Linear(12, 4)).eval(), "int8", x)
    rindle.save(model, tmp_path / "model.rindle")
    monkeypatch.setattr(sys, "argv", ["rindle"])

    def run(line: str):
        words = shlex.split(line, comments=True)
        assert words[0] == "rindle", f"no rindle command: {line}"
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == line.startswith(ENDS_WITH_1), f"{line}\n{said.out}{said.err}"

    return run


def commands(text: str) -> list[str]:
    """The command lines of a block, continued ones joined; a line that is all comment is none."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines if line.strip() and not line.startswith("#")]


SHELL = [
    (page, number)
    for page in PAGES
    for number, (language, text) in enumerate(blocks(page))
    if not language and is_run(page, text)
]


@pytest.mark.fast(0)  # minutes of verbs
@pytest.mark.parametrize(("page", "number"), SHELL)
def test_commands_run_as_they_stand(page, number, shell, tmp_path):
    text = blocks(page)[number][1]
    for name, content in re.findall(r"^# ([\w.]+):\s+(.*)$", text, re.M):  # a file that the block tells
        Path(tmp_path / name).write_text(content)
    for line in commands(text):
        if line.startswith("cd firmware"):
            assert_golden(tmp_path, line)
        elif not line.startswith(tuple(COMMANDS_NOT_RUN)):
            shell(line)


def assert_golden(folder: Path, line: str) -> None:
    """The compiler's line of docs/export-c.md."""
    done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and "pass" in done.stdout, textwrap.indent(done.stdout + done.stderr, "  ")
