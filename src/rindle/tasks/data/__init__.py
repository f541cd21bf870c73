"""Data sets: one module each, with its official address, checksum, licence note, loader and fixed split.

`rindle.tasks.data.ptb.load()` finds the data set (see `source`), reads it into NumPy, and splits it as its docstring says.
"""

from importlib import import_module

from .source import DataError

# The modules, one per data set. A new one is a file and a name here.
DATASETS = ("an4", "fsdd", "imdb", "mboshi", "mnist", "opendpd", "ptb", "speech_commands", "timit")

__all__ = ["DATASETS", "DataError"]


def __getattr__(name: str):
    if name in DATASETS or name in ("audio", "source"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"rindle.data has no {name!r}; the data sets are {', '.join(DATASETS)}")
