"""Writing files so that nobody meets a half of one."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes beside, then renames: a reader sees the old file or the whole new one, also after a loss of power.

    A symbolic link stays one, and its target is replaced; a file that is replaced keeps its mode, a new one gets what the
    process's umask leaves of 0666. What killed processes of this machine left beside the file is removed.
    """
    path = Path(os.path.realpath(path))
    _sweep(path)
    beside = path.with_name(f"{_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}.part")
    mode = path.stat().st_mode & 0o7777 if path.exists() else None
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(beside, mode)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
    _sync_folder(path.parent)


def _prefix(path: Path) -> str:
    return f".{path.name}.{socket.gethostname()}."


def _sweep(path: Path) -> None:
    """Removes what processes that live no more began to write here, on this machine: others' clocks and processes are unknown."""
    prefix = _prefix(path)
    for left in path.parent.glob(".*.part"):
        process = left.name.removeprefix(prefix).split(".")[0]
        if left.name.startswith(prefix) and process.isdigit() and not _lives(int(process)):
            left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Makes the new name outlive a loss of power, where folders can be opened for that."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
