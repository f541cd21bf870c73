"""What is captured of a model: a copy, in evaluation, with plain weights and with registered modules replaced."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

from .registry import replaced


def captured_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` for capture; the model stays as it is. Parametrized weights (weight norm, spectral norm, …) are
    evaluated, since integers are made of what they are now.
    """
    made = copy.deepcopy(model, _computed(model)).eval()
    for module in made.modules():
        _evaluate(module)
    return replaced(made)


def _computed(model: nn.Module) -> dict[int, torch.Tensor]:
    """For deepcopy, which refuses tensors that were computed, as a weight under weight norm was: their values."""
    memo = {}
    for module in model.modules():
        for value in vars(module).values():
            for one in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(one, torch.Tensor) and not one.is_leaf:
                    memo[id(one)] = one.detach().clone()
    return memo


def _evaluate(module: nn.Module) -> None:
    if parametrize.is_parametrized(module):
        values = {name: getattr(module, name).detach() for name in module.parametrizations}
        # not by torch's remove_parametrizations, which takes the names from the class: the original has the same class
        module.__class__ = type(module).__bases__[0]
        del module.parametrizations
        for name, value in values.items():
            setattr(module, name, nn.Parameter(value, requires_grad=False))
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm):  # torch.nn.utils.weight_norm, the older form
            hook.remove(module)
            del module._forward_pre_hooks[key]
