"""The torch side: modules, capture, calibration, conversion. Everything here needs torch."""

from .modules import SRU, Recurrent
from .quantize import quantize
from .weights import load_weights

__all__ = ["SRU", "Recurrent", "load_weights", "quantize"]
