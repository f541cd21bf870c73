"""Whether a captured graph computes what its model does, before any of it is quantized.

An output's error counts beside how much that output varies, not beside its size: 300.0 where 300.1 is wanted is a fault of a model
whose outputs differ by 1, and none of one whose outputs differ by 1,000. What is left of the size is the rounding of float32. The
graph runs in float64; where the module, in its own float32, is too far off, it runs in float64, too, if it can.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from ...errors import RindleError

NEAR = 1e-3  # of an output's spread
ROUNDING = 2e-5  # of its size: what float32 leaves after many sums


@torch.no_grad()
def compare(name: str, model, x: torch.Tensor, y: torch.Tensor, batch_first: bool, captured: int | None = None) -> None:
    """RindleError unless ``model`` gives y, the graph's output on x [B, T, …], by how much and where it does not.

    captured: the frames that the model was captured with, if known: where they are not those of x, the length is what differs.
    """
    wanted = _output(model, x, y, batch_first)
    if wanted.shape != y.shape:
        raise RindleError(
            f"the captured graph gives {list(y.shape)}, {name} {list(wanted.shape)}, on {x.shape[1]} frames; {_why(x, captured)}"
        )
    excess = _excess(wanted, y)
    if excess.max() <= 1:
        return
    exact = _in_double(model, x, y, batch_first)
    if exact is not None and _excess(exact, y).max() <= 1:
        return  # the module's own float32 is what is off
    worst = int(excess.argmax())
    place = [int(one) for one in torch.unravel_index(torch.tensor(worst), y.shape)]
    found, right = y.flatten()[worst].item(), wanted.flatten()[worst].item()
    where = ", ".join(
        f"{what} {at}" for what, at in zip(("row", "frame", "output") if y.ndim == 3 else ("row", "output"), place)
    )
    wrong = f"{int((excess > 1).sum())} of {excess.numel()} values"
    raise RindleError(
        f"the captured graph differs from {name} by {abs(found - right):.2g} on {x.shape[1]} frames, in {wrong}; most at {where}: "
        f"{found:.6g}, not {right:.6g}; {_why(x, captured)}"
    )


def _why(x: torch.Tensor, captured: int | None) -> str:
    if captured is not None and captured == x.shape[1]:
        return (
            "it was captured with as many frames, so the model does something that depends on its data, such as a branch in "
            "forward: rindle.prepare and convert(…, whole=False) leave forward as it is"
        )
    return (
        "the model probably does something that depends on the sequence length"
        + (f", which was {captured} when it was captured" if captured else "")
        + ": rindle.prepare and convert(…, whole=False) leave forward as it is"
    )


def _excess(wanted: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """|error| of every value, relative to what is allowed there."""
    wanted, y = wanted.double(), y.double()
    if not wanted.isfinite().all() or not y.isfinite().all():
        return torch.where(wanted.isfinite() & y.isfinite(), 0.0, torch.inf)
    flat = wanted.reshape(-1, wanted.shape[-1])
    spread, size = (flat - flat.mean(0)).abs().amax(0), flat.abs().amax(0)
    allowed = NEAR * spread + ROUNDING * (size + spread.max())
    return (wanted - y).abs() / allowed.clamp_min(torch.finfo(torch.float32).tiny)


def _output(model, x: torch.Tensor, y: torch.Tensor, batch_first: bool) -> torch.Tensor:
    """The model's, laid out as y."""
    wanted = model(x if batch_first else x.transpose(0, 1))
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    if y.ndim == 3 and not batch_first:
        wanted = wanted.transpose(0, 1)
    if wanted.shape[: y.ndim - 1] == y.shape[:-1] and wanted.numel() == y.numel():
        wanted = wanted.reshape(y.shape)  # features in several dimensions, or in none
    return wanted


def _in_double(model, x: torch.Tensor, y: torch.Tensor, batch_first: bool) -> torch.Tensor | None:
    """The output of a copy in float64; None where there is no such copy, or its forward makes float32 of something."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.fx.GraphModule):
        return None
    try:
        double = copy.deepcopy(model).double()
        return _output(double, x.double() if x.is_floating_point() else x, y, batch_first)
    except (RuntimeError, TypeError, ValueError):  # a user's forward, which may do anything
        return None
