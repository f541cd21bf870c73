"""The tasks, by name. A task's module has `model(kind)`, `settings(kind)`, `METRIC` and the class `Task`."""

from importlib import import_module

TASKS = ("an4", "fsdd", "fsdd_speakers", "imdb", "mboshi", "moving_mnist", "opendpd", "ptb")


def load(name: str):
    return import_module(f"{__name__}.{name}")
