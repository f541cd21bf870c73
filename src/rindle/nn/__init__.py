"""The torch side: modules, capture, calibration, conversion. Everything here needs torch."""

from .modules import SRU, Recurrent
from .qat import convert, float_state_dict, prepare
from .quantize import quantize
from .weights import load_weights

__all__ = ["SRU", "Recurrent", "convert", "float_state_dict", "load_weights", "prepare", "quantize"]
