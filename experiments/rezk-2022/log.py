"""What was measured: a file of lines for each model, a finished cell each, so that a killed run repeats none."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rindle.errors import RindleError
from rindle.search import journal


class Log:
    """Lines of {"key", …}. A last line that was being written when the run was killed is left out, and the next one cuts it off."""

    def __init__(self, path: Path):
        self.path, self.cells = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                cell = json.loads(line)
                self.cells[_name(cell["key"])] = cell
            except (ValueError, KeyError, TypeError):
                raise RindleError(
                    f"line {number} of {path} is no finished cell; remove the file to begin anew"
                ) from None

    def __contains__(self, key: dict) -> bool:
        return _name(key) in self.cells

    def cell(self, key: dict, make) -> dict:
        """The cell of this key, made if it is not there."""
        if key not in self:
            start = time.perf_counter()
            cell = {"key": key, **make()}
            cell["seconds"] = round(time.perf_counter() - start, 2)
            journal.append(self.path, cell)
            self.cells[_name(key)] = cell
        return self.cells[_name(key)]


def _name(key: dict) -> str:
    return json.dumps(key, sort_keys=True)
