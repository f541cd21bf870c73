"""A callable that searches are tested with. In a file of its own, so that worker processes import nothing else."""

import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rindle.errors import RindleError
from rindle.search.workers import Outcome


@dataclass
class Toy:
    """Errs less with more bits. Writes a line for every evaluation; may be slow, or kill its process on a candidate."""

    log: Path
    seconds: float = 0.0
    deadly: dict | None = None  # candidate that kills, as long as the file ``mercy`` is not there
    mercy: Path | None = None

    def __call__(self, candidate):
        with self.log.open("a") as file:
            file.write(json.dumps(candidate, sort_keys=True) + "\n")
        if candidate == self.deadly and not (self.mercy and self.mercy.exists()):
            if self.mercy:
                self.mercy.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        w, a = candidate["w"], candidate["a"]
        if w == 3:
            raise RindleError(f"no kernel has {w} bits")
        error = 2.0**-w + 2.0**-a + (0.01 if candidate["layer"] == "two" else 0.0)
        return Outcome({"error": error, "bytes": w + a}, {"error": error - 0.4}, {"pid": os.getpid()})

    @property
    def evaluations(self) -> Counter:
        return Counter(self.log.read_text().splitlines()) if self.log.exists() else Counter()
