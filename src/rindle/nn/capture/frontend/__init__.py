"""A torch model -> a graph of programs with real weights, by torch.export. What is unknown is refused by name."""

from .exported import HANDLERS, Refused, capture, read_exported

__all__ = ["HANDLERS", "Refused", "capture", "read_exported"]
