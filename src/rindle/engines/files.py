"""Models in files: load and save, one or several to a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from .. import _core
from ..errors import RindleError
from ..file.container import dumps_parts, loads_all, parts_id
from ..files import write_file
from .model import Model


class Parts(Model):
    """The models of a file that has several: an encoder, a predictor and a joiner. ``rindle.load`` makes it.

    ``parts``, ``part``, ``id``, ``data`` and ``kernel`` are its own; whatever else a model does is done by a part, and
    refused here with the parts' names.
    """

    def __init__(self, parts: Mapping[str, Model], data: bytes | None = None):
        """parts: by name, in order. data: the file's bytes, where they are at hand."""
        for name, part in parts.items():
            if not isinstance(part, Model) or part.parts:
                kind = "a file of parts" if isinstance(part, Model) else f"a {type(part).__name__}"
                raise RindleError(f"the part {name!r} is {kind}; each must be one rindle.Model")
        self._parts = MappingProxyType(dict(parts))
        self.data = dumps_parts({name: part.artifact for name, part in parts.items()}) if data is None else data

    def __getattr__(self, name: str):
        if name in ("artifact", "_core"):  # what everything that a model computes begins with
            names = list(self._parts)
            raise RindleError(
                f"this file has several models, the parts {', '.join(names)}; take one: model.part({names[0]!r}), or --part "
                f"{names[0]} on the command line"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<rindle.Model of the parts {', '.join(self._parts)}, {len(self.data)} bytes, {self.kernel}>"

    def __reduce__(self):
        return _read, (self.data, self.kernel)

    @property
    def parts(self) -> Mapping[str, Model]:
        return self._parts

    @property
    def id(self) -> str:
        return parts_id({name: part.id for name, part in self._parts.items()})

    @property
    def kernel(self) -> str:
        return next(iter(self._parts.values())).kernel


def save(model: Model | Mapping[str, Model], path: str | os.PathLike) -> None:
    """Writes a .rindle file, whole or not at all: beside first, then renamed over an older one.

    model: one model; or several by name, 2..64 of them, which become the parts of the file in this order.
    """
    if isinstance(model, Mapping):
        model = Parts(model)
    if not isinstance(model, Model):
        for name, module in getattr(model, "named_modules", tuple)():  # of torch, which this side does not import
            if hasattr(module, "not_saved"):
                raise RindleError(f"{name or 'the module'} {module.not_saved}")
        raise RindleError(
            f"rindle.save takes a rindle.Model, as rindle.quantize returns it, or a dict of them, not a {type(model).__name__}"
        )
    try:
        write_file(path, model.data)
    except OSError as error:
        raise RindleError(f"{path} cannot be written: {error.strerror}") from None


def load(path: str | os.PathLike, kernel: str | None = None) -> Model:
    """Reads a .rindle file. It is hostile until every rule of docs/format.md has been checked, by Python and by the core.

    kernel: forces a kernel by name, as the environment variable RINDLE_KERNEL does. Raises RindleError that names the
    field and the value. Of a file of several models, ``part`` gives each.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RindleError(f"{path} cannot be read: {error.strerror}") from None
    return _model(data, kernel, str(path))


def _model(data: bytes, kernel: str | None, name: str = "the file") -> Model:
    found = loads_all(data, name)
    if isinstance(found, dict):
        return Parts({part: Model(artifact, kernel=kernel) for part, artifact in found.items()}, data)
    return Model(found, data, kernel)


def _read(data: bytes, kernel: str | None = None) -> Model:
    """Pickled parts; on a machine without their kernel the best that there is, which gives the same integers."""
    return _model(data, kernel if kernel in _core.kernels() else None)
