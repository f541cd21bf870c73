"""dtype=torch.float16: torch's own modules whose weights have been rounded to half precision, and whose state dict holds them so.

Each row has a power of two that puts its largest weight at 1..2, so that no weight overflows, and none is lost that is not
2^24 times smaller than it. The sums are torch's, in float32.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from ...errors import RindleError
from ..capture.stacks import stack_of
from ..modules import Recurrent
from .dynamic_modules import NO_FILE, NO_TRAINING, scale_of
from .first_form import first_form


def halves(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float16 [rows, …], and the power of two of each row, float32 [rows]."""
    rows = weight.detach().double().flatten(1)
    largest = rows.abs().amax(1)
    powers = torch.where(largest > 0, torch.exp2(torch.floor(torch.log2(largest))), torch.ones_like(largest))
    return (rows / powers[:, None]).half().reshape(weight.shape), powers.float()


def whole(half: torch.Tensor, powers: torch.Tensor) -> torch.Tensor:
    return (half.flatten(1).float() * powers[:, None]).reshape(half.shape)


class _Half:
    """In front of a class of STACKS."""

    not_saved = NO_FILE

    def matrices(self) -> list[str]:
        """Names of the parameters that are rounded."""
        return list(dict.fromkeys(own for direction in stack_of(self, "").directions for own in direction.matrices))

    def round(self) -> None:
        with torch.no_grad():
            for own, parameter in self.named_parameters():
                parameter.requires_grad_(False)
                if own in self.matrices():
                    parameter.copy_(whole(*halves(parameter)))

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for own in self.matrices():
            destination[prefix + own], destination[prefix + scale_of(own)] = halves(getattr(self, own))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        for _, parameters in first_form(state_dict, prefix, stack_of(self, ""), prefix.rstrip(".")):
            for own, value in parameters.items():
                state_dict[prefix + own] = whole(*halves(value)) if own in self.matrices() else value
        for own in self.matrices():
            powers = state_dict.pop(prefix + scale_of(own), None)
            if powers is not None and prefix + own in state_dict:
                state_dict[prefix + own] = whole(state_dict[prefix + own], powers)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def train(self, mode: bool = True):
        if mode:
            raise RindleError(f"the {type(self).__name__} {NO_TRAINING}")
        return super().train(False)


class HalfLSTM(_Half, nn.LSTM):
    """nn.LSTM with float16 weights."""


class HalfGRU(_Half, nn.GRU):
    """nn.GRU with float16 weights."""


class HalfRNN(_Half, nn.RNN):
    """nn.RNN with float16 weights."""


class HalfLSTMCell(_Half, nn.LSTMCell):
    """nn.LSTMCell with float16 weights."""


class HalfGRUCell(_Half, nn.GRUCell):
    """nn.GRUCell with float16 weights."""


class HalfRNNCell(_Half, nn.RNNCell):
    """nn.RNNCell with float16 weights."""


class HalfRecurrent(_Half, Recurrent):
    """:class:`rindle.Recurrent` with float16 weights."""


class HalfLinear(_Half, nn.Linear):
    """nn.Linear with float16 weights."""


_HALVES = (HalfLSTM, HalfGRU, HalfRNN, HalfLSTMCell, HalfGRUCell, HalfRNNCell, HalfRecurrent, HalfLinear)
HALF = {made.__mro__[2]: made for made in _HALVES}  # the class whose forward it has -> the one with float16 weights


def half(kind: type, module: nn.Module) -> nn.Module:
    """A copy in evaluation mode. kind: the key of STACKS that the module is."""
    made = copy.deepcopy(module).float()
    made.__class__ = HALF[kind]
    made.round()
    return made.eval()
