"""The torch side: modules, capture, calibration, conversion. Everything here needs torch."""

from .modules import SRU, Recurrent
from .quantize import quantize

__all__ = ["SRU", "Recurrent", "quantize"]
