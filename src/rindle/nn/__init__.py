"""The torch side: modules, capture, calibration, conversion. Everything here needs torch."""

from .back.dynamic import quantize_dynamic
from .capture.orders import keras_parameters, onnx_parameters
from .capture.registry import register
from .capture.weights import load_weights
from .modules import SRU, ConvLSTM, Recurrent, filled
from .quantize import quantize, scheme_rules
from .train.delta import activity, hold
from .train.prepare import convert, float_state_dict, prepare

__all__ = [
    "SRU",
    "ConvLSTM",
    "Recurrent",
    "activity",
    "convert",
    "filled",
    "float_state_dict",
    "hold",
    "keras_parameters",
    "load_weights",
    "onnx_parameters",
    "prepare",
    "quantize",
    "quantize_dynamic",
    "register",
    "scheme_rules",
]
