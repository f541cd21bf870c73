"""Models in other languages. A target is one file or folder here and its line in TARGETS: a function of (artifact, folder,
name, force) that writes the folder whole or not at all, refuses by name what it cannot express, and says what it wrote.
"""

from .c import to_c
from .c.report import report as report_c

TARGETS = {
    "c": to_c,  # C99 for microcontrollers and everything else
}

REPORTS = {
    "c": report_c,  # a function of (artifact, dataset or None, seen): what an export takes where it runs
}

__all__ = ["REPORTS", "TARGETS", "to_c"]
