"""Rindle: small, fast recurrent networks whose integers are the same everywhere. README.md has the tour.

Models run without torch; what makes them (quantize, Recurrent, SRU, …) loads it on first use.
"""

import warnings
from importlib import import_module

from .cells import CELLS
from .engines.files import load, save
from .engines.model import Model
from .engines.stream import Stream
from .errors import RindleError, RindleWarning, missing, other_project
from .file.artifact import Artifact
from .numbers.formats import Format, fixed, integer
from .program.tracer import Cell, cell
from .scheme.rules import SCHEMES

_TORCH = dict.fromkeys(
    (
        "ConvLSTM",
        "SRU",
        "Recurrent",
        "convert",
        "float_state_dict",
        "load_weights",
        "prepare",
        "quantize",
        "quantize_dynamic",
        "scheme_rules",
    ),
    ".nn",
)

__all__ = [
    "CELLS",
    "SCHEMES",
    "Artifact",
    "Cell",
    "Format",
    "Model",
    "RindleError",
    "RindleWarning",
    "Stream",
    "cell",
    "fixed",
    "integer",
    "load",
    "save",
    *sorted(_TORCH),
]

if _other := other_project():
    warnings.warn(_other, RindleWarning, stacklevel=2)


def __getattr__(name: str):
    if name not in _TORCH:
        raise AttributeError(f"module 'rindle' has no attribute {name!r}")
    try:
        return getattr(import_module(_TORCH[name], __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(str(missing(f"rindle.{name}", "torch", "torch"))) from None


def __dir__():
    return __all__
