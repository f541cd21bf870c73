"""The torch side: modules, capture, calibration, conversion. Everything here needs torch."""

from .delta import activity, hold
from .dynamic import quantize_dynamic
from .modules import SRU, ConvLSTM, Recurrent, filled
from .orders import keras_parameters, onnx_parameters
from .qat import convert, float_state_dict, prepare
from .quantize import quantize, scheme_rules
from .registry import register
from .weights import load_weights

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
