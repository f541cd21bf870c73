"""Models that many tests need are made once, and kept in build/models/ by a hash of the sources that make them."""

import functools
import hashlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

import rindle
from rindle.file.container import loads

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "models"
PACKAGE = Path(rindle.__file__).parent
ABOVE = ("cli", "export", "report", "search", "tasks")  # rooms that nothing imports that quantizes: see test_imports.py
AT_MOST = 5  # hashes of which the models are kept: that many branches, or Pythons


@functools.cache
def folder() -> Path:
    """The folder for the sources as they are now. Changed sources have another one; the oldest folders are deleted.

    The core is no part of the hash: it runs models, and makes none (golden vectors are the reference's).
    """
    paths = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ABOVE]
    paths += [*ROOT.glob("tests/*.py"), *ROOT.glob("examples/*.py")]
    digest = hashlib.sha256(f"{sys.version} {torch.__version__} {np.__version__}".encode())
    for path in sorted(path for path in paths if not path.name.startswith("test_")):
        digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    made = FOLDER / digest.hexdigest()[:16]
    made.mkdir(parents=True, exist_ok=True)
    made.touch()
    for old in sorted(FOLDER.iterdir(), key=lambda path: path.stat().st_mtime)[:-AT_MOST]:
        shutil.rmtree(old, ignore_errors=True)
    return made


def kept(make):
    """Decorates a function of names and numbers that returns a Model: the first call of all processes makes it, the
    others load it.
    """

    @functools.cache
    def model(*arguments):
        name = "-".join([make.__module__, make.__qualname__, *map(str, arguments)])
        path = folder() / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.rindle"
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(make(*arguments).data)
            os.replace(unfinished, path)
        data = path.read_bytes()
        return rindle.Model(loads(data), data)

    return model
