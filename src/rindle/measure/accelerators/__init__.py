"""What a model would cost on hardware that computes with the widths it is given: published models of two accelerators.

A model is a file with one function: a workload -> measures by name. To add one: its file, and its name in HARDWARE; what a
search may take as an objective is a line in ``objectives.MEASURES``.
"""

from . import bitfusion, silago
from .workload import Products, Workload, workload_of

HARDWARE = {
    "silago": silago.measures,
    "bitfusion": bitfusion.measures,
}

__all__ = ["HARDWARE", "Products", "Workload", "workload_of"]
