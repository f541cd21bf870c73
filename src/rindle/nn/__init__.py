"""The torch side: modules, capture, calibration, conversion. Everything here needs torch."""

from .modules import SRU, ConvLSTM, Recurrent, filled
from .orders import keras_parameters, onnx_parameters
from .quantize import quantize
from .registry import register
from .weights import load_weights

__all__ = [
    "SRU",
    "ConvLSTM",
    "Recurrent",
    "filled",
    "keras_parameters",
    "load_weights",
    "onnx_parameters",
    "quantize",
    "register",
]
