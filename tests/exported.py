"""What the tests of exports share: models that can be exported, and how an exported folder is built and run."""

import os
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from random_models import KINDS, attempt
from support import random_frames

from rindle.engines.golden import with_golden
from rindle.export.c import to_c
from rindle.program.nodes import FloatNode, LastNode, ProgramNode, Window, WindowNode

CC = os.environ.get("CC", "cc")
WARNINGS = "-std=c99 -Wall -Wextra -Wconversion -Wshadow -Wundef -pedantic -Werror".split()
SANITIZED = "-O0 -fsanitize=address,undefined -fno-sanitize-recover=all".split()


def streamable(artifact):
    """The same model with every node that needs the whole sequence turned into its like that does not."""
    nodes = []
    for node in artifact.graph.nodes:
        if isinstance(node, FloatNode):
            break  # nothing but float nodes reads one, and they stand at the end
        if node.kind in ("first", "mean", "max"):
            node = LastNode(node.name, node.sources)
        if isinstance(node, WindowNode) and node.why_whole:
            window = Window(node.window.size, node.window.dilation)
            node = replace(node, window=replace(window, before=window.reach))
        nodes.append(replace(node, reverse=False) if isinstance(node, ProgramNode) else node)
    names = [node.name for node in nodes]
    output = artifact.graph.output if artifact.graph.output in names else names[-1]
    return with_extremes(replace(artifact, graph=replace(artifact.graph, nodes=tuple(nodes), output=output)))


@cache
def random_stream(seed: int):
    """A random model that the exporter takes, or None."""
    artifact = random_artifact(seed)
    return artifact and streamable(artifact)


def with_extremes(artifact, seed: int = 0, lengths=(9, 1, 5)):
    """A copy whose golden vector is of extreme codes; its outputs are the reference's."""
    frames = random_frames(np.random.default_rng(seed), artifact, len(lengths), max(lengths))
    return with_golden(artifact, frames, np.array(lengths))


@cache
def random_artifact(seed: int):
    """A random model, or None."""
    rng = np.random.default_rng(seed)
    programs = [rng.choice(KINDS, int(rng.integers(1, 7))).tolist() for _ in range(int(rng.integers(1, 4)))]
    return attempt((programs, seed))


def run(*command, cwd) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300)


def replay(artifact, folder: Path, flags=SANITIZED, compiler: str = CC) -> subprocess.CompletedProcess:
    """The exported folder, compiled without a warning and run: it compares its own golden vector."""
    to_c(artifact, folder, "net")
    built = run(compiler, *WARNINGS, *flags, "net.c", "golden.c", "main.c", "-o", "golden", cwd=folder)
    assert built.returncode == 0, built.stderr
    return run("./golden", cwd=folder)


def assert_exact(artifact, folder: Path) -> None:
    done = replay(artifact, folder)
    assert (done.returncode, done.stdout) == (0, "golden: pass\n"), done.stdout + done.stderr


def tool(name: str, package: str) -> str:
    """Its path; where it is not installed the test is skipped, but not in CI."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is not installed: apt-get install {package}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return path
