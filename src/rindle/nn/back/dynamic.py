"""quantize_dynamic: torch.ao's call, for recurrent and linear modules, without calibration.

Only products are of integers: weights of 8 bits with a scale per output row, x and h scaled per row of the batch and per frame. States
and gates stay in float, as torch.ao has them: whatever the weights, the length and the initial states, nothing saturates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from difflib import get_close_matches

import torch
from torch import nn

from ...errors import RindleError
from ..capture.stacks import STACKS, kind_of, stack_of
from ..modules import Recurrent
from .dynamic_half import half
from .dynamic_modules import DynamicLinear, DynamicRecurrent, DynamicRNN

DTYPES = (torch.qint8, torch.float16)
CLASSES = {nn.Linear: DynamicLinear, Recurrent: DynamicRecurrent}  # of all other kinds DynamicRNN


def quantize_dynamic(
    model: nn.Module, qconfig_spec=None, dtype=torch.qint8, mapping=None, inplace: bool = False
) -> nn.Module:
    """Replaces recurrent (and linear) modules by ones with narrow weights, as ``torch.ao.quantization.quantize_dynamic`` does.

    qconfig_spec: a set of module types or names of modules; None: every recurrent type and nn.Linear. Types: nn.LSTM, nn.GRU,
        nn.RNN, their cells, :class:`rindle.Recurrent` of any cell without convolutions, nn.Linear.
    dtype: torch.qint8: products of 8-bit codes, the rest in float32; torch.float16: weights of half precision, sums in float32.
    mapping: must be None; it is there for torch.ao's sake. inplace: changes the model itself.

    Returns the model in evaluation mode. What it computes is outside the promise of equal bits between engines, and cannot be written
    to a .rindle file. Raises RindleError for what cannot be replaced, with the reason.
    """
    if not isinstance(model, nn.Module):
        raise RindleError(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
    if dtype not in DTYPES:
        raise RindleError(f"dtype is {dtype}; quantize_dynamic knows torch.qint8 and torch.float16")
    if mapping is not None:
        raise RindleError("mapping is given; Rindle has one module for each, leave it None")
    paths = _chosen(model, qconfig_spec)
    made = {path: _replacement(model.get_submodule(path), path, dtype) for path in paths}  # all, or an error and none
    if "" in made:
        return made[""]
    model = model if inplace else copy.deepcopy(model)
    for path, module in made.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, module)
    return model.eval()


def _chosen(model: nn.Module, spec) -> list[str]:
    """Paths of the modules to replace."""
    if spec is None:
        spec = set(STACKS)
    if isinstance(spec, (dict, str)) or not isinstance(spec, Iterable):
        raise RindleError(
            f"qconfig_spec is {spec!r}; give a set of module types or of names, or None for all that are known"
        )
    modules = dict(model.named_modules())
    types, names = [], []
    for one in spec:
        if isinstance(one, str):
            if one not in modules:
                near = get_close_matches(one, modules, 1)
                raise RindleError(f"the model has no module {one!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
            if kind_of(modules[one], one) is None:
                raise RindleError(f"{one} is a {type(modules[one]).__name__}; {_known()}")
            names.append(one)
        elif one in STACKS or (isinstance(one, type) and issubclass(one, Recurrent)):
            types.append(one)
        else:
            raise RindleError(f"qconfig_spec has {one!r}; {_known()}")
    found = [path for path, module in modules.items() if path in names or isinstance(module, tuple(types))]
    if not found:
        raise RindleError(
            f"{type(model).__name__} has none of the modules in qconfig_spec; there is nothing to quantize"
        )
    return found


def _known() -> str:
    return f"quantize_dynamic replaces {', '.join(kind.__name__ for kind in STACKS)}"


def _replacement(module: nn.Module, path: str, dtype: torch.dtype) -> nn.Module:
    kind = kind_of(module, path)
    if dtype == torch.float16:
        return half(kind, module)
    return CLASSES.get(kind, DynamicRNN)(stack_of(module, path), path, module)
