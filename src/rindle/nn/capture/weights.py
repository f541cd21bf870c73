"""Weights from a safetensors file into a module."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ...errors import RindleError


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Loads a safetensors file of ``model.state_dict()``; float16 values become the parameters' own type.

    Raises RindleError that lists what is missing, unexpected (with the near match) or differs in shape. Then the model
    is unchanged. Returns the model.
    """
    try:
        found = load_file(path)
    except OSError as error:
        raise RindleError(f"the weights file {path} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise RindleError(f"{path} is not a safetensors file: {error}") from None
    wanted = model.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in found]
    for name in found:
        if name not in wanted:
            near = get_close_matches(name, wanted, 1)
            faults.append(f"{name} is unexpected" + (f" (did you mean {near[0]}?)" if near else ""))
        elif found[name].shape != wanted[name].shape:
            faults.append(f"{name} has shape {list(found[name].shape)}, not {list(wanted[name].shape)}")
    if faults:
        raise RindleError(f"{path} does not fit {type(model).__name__}: " + "; ".join(faults))
    model.load_state_dict(found)
    return model
