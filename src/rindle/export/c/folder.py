"""A folder of text files, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ...errors import RindleError


def write_folder(folder: Path, files: dict[str, str], force: bool) -> None:
    """Writes beside, then renames: a new folder at once; in one that is there already, file by file after all are written.

    Raises RindleError if the folder has files and not force, or where it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise RindleError(f"{folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise RindleError(f"{folder} is not empty; give another folder, or --force (force=True) to replace its files")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for name, text in files.items():
                (beside / name).write_text(text, encoding="utf-8", newline="\n")
            folder.mkdir(exist_ok=True)
            for name in files:
                os.replace(beside / name, folder / name)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise RindleError(f"{folder} cannot be written: {error.strerror}") from None
