"""What a search has evaluated, one JSON line each, so that one that was killed repeats none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import RindleError


def read(log: Path, key: str, parse: Callable[[dict], object]) -> Iterator:
    """``parse`` of every whole line of this key. A last line that was being written when the search was killed is dropped."""
    try:
        text = log.read_text()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise RindleError(f"the evaluations in {log} cannot be read: {error}; remove the file to search anew") from None
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            entry = json.loads(line)
            if entry["key"] == key:
                yield parse(entry)
        except (ValueError, TypeError, KeyError):
            raise RindleError(f"line {number} of {log} is not an evaluation; remove the file to search anew") from None


def append(log: Path, entry: dict) -> None:
    """One line, whole on disk before the search goes on; after a torn one, that one is cut off."""
    line = (json.dumps(entry, sort_keys=True) + "\n").encode()
    try:
        with log.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            if whole != end:
                file.truncate(whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RindleError(f"the evaluations cannot be kept in {log}: {error.strerror}") from None
