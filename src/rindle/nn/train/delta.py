"""Delta-aware training: prepared modules with thresholds in the loop, and a penalty on what changes.

    model = rindle.prepare(net, "int8", calibration)
    rindle.nn.hold(model, {"rnn.l0/h": 8})           # θ in code units, as Model.with_thresholds has them
    loss = task_loss(model(x)) + β * rindle.nn.activity(model).penalty
    …
    rindle.convert(model)                            # the file has these thresholds

A held input gives its products v̂, numerics (20): v̂ ← v where |v − v̂| > θ, element by element, v̂ = 0 before the first frame.
The gradient passes straight through to v, which is never further than θ from it. The penalty is the L1 norm of
Δ = v − v̂ of the frame before, which trains states that move little (Neil et al. 2017, arXiv 1612.05571, equation 16, has
it of Δh); what it is taken from counts as a constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import nn

from ...errors import RindleError
from .prepared import NAME, Quantization


@dataclass(frozen=True)
class Activity:
    """Of the last call of every module. penalty: a scalar, Σ over held inputs of the mean |Δ| of an element and a frame, in the
    unit of the values; it has gradients. densities: input -> share of its elements that changed, 0..1.
    """

    penalty: torch.Tensor
    densities: dict[str, float]


def hold(prepared: nn.Module, thresholds: dict[str, int | None]) -> None:
    """Sets θ of the inputs of recurrent layers in what :func:`rindle.prepare` returned (of whole sequences: a GRUCell and its like
    see one frame); "layer/source" -> a whole number of code units, or None for an input that is not held. Inputs that are not named keep theirs; at first none is held.

    θ = 0 changes nothing but is counted. Raises RindleError for an unknown name, for a θ that is negative, fractional or not
    below the largest code, and where only weights were prepared.
    """
    known = {name: (quantization, direction, code) for quantization, direction, code, name in _inputs(prepared)}
    for name, theta in thresholds.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise RindleError(f"no input named {name!r}; {hint}")
        quantization, direction, code = known[name]
        largest = quantization.plans[direction].formats[code].hi
        if theta is not None and (theta != int(theta) or not 0 <= theta < largest):
            raise RindleError(f"θ of {name} is {theta}; it must be a whole number 0..{largest - 1}, in code units")
    for name, theta in thresholds.items():
        quantization, direction, code = known[name]
        quantization.seen.clear()
        own = quantization.thetas.setdefault(direction, {})
        own.pop(code, None)
        if theta is not None:
            own[code] = int(theta)


def thresholds(prepared: nn.Module) -> dict[str, int]:
    """θ of every input that is held."""
    return {
        name: quantization.thetas[direction][code]
        for quantization, direction, code, name in _inputs(prepared, needed=False)
        if code in quantization.thetas.get(direction, {})
    }


def activity(prepared: nn.Module) -> Activity:
    """What the held inputs did in the last forward pass. RindleError if none is held, or nothing was run."""
    parts, densities = [], {}
    if not thresholds(prepared):
        raise RindleError("no input is held; set thresholds with rindle.nn.hold, 0 to change nothing")
    for quantization, direction, code, name in _inputs(prepared):
        if seen := quantization.seen.get((direction, code)):
            moved, changed, elements = (sum(part) for part in zip(*seen))
            parts.append(moved / elements)
            densities[name] = float(changed) / elements
    if not parts:
        raise RindleError("the model has not been run since its thresholds were set")
    return Activity(torch.stack(parts).sum(), densities)


def _inputs(prepared: nn.Module, needed: bool = True) -> Iterator[tuple[Quantization, str, str, str]]:
    """(quantization, direction, code path, name) of every input of the recurrent layers, named as ``Model.thresholds`` does."""
    found = False
    for path, module in prepared.named_modules():
        quantization = getattr(module, NAME, None)
        if not isinstance(quantization, Quantization):
            continue
        found = True
        if quantization.stack.style in ("linear", "cell"):  # they know one frame of the sequence, if any
            continue
        if not quantization.activations:
            if needed:
                raise RindleError("only weights were prepared, so no codes can be held; prepare with activations=True")
            continue
        for direction in quantization.stack.directions:
            program = quantization.plans[direction.name].program
            for code, name in program.code_names().items():
                yield quantization, direction.name, code, f"{quantization.stack.node_name(path, direction)}/{name}"
    if not found:
        raise RindleError(f"{type(prepared).__name__} is not a prepared model; give what rindle.prepare returned")
