"""One call from a trained torch model to a model of integers."""

from __future__ import annotations

import torch
from torch import nn

from ..formats import RindleError
from ..scheme import load_overrides
from .calibrate import Plan, batches, calibrate
from .convert import convert, hash_of
from .frontend import capture


def quantize(model: nn.Module, scheme="int8", calibration=None, overrides=None):
    """Quantizes a trained model after training.

    model: any ``nn.Module`` that maps one sequence, float or ids for an ``nn.Embedding``, to one tensor through
        ``nn.LSTM``, ``nn.GRU`` (both of one direction or two), :class:`rindle.SRU` or :class:`rindle.Recurrent` layers,
        ``nn.Linear``, ``torch.cat`` of features, and the last frame (``y[:, -1]`` or ``h[-1]``), the first, or the mean
        over time.
    scheme: a preset's name (``rindle.SCHEMES``), or a dict like one.
    calibration: real sequences in the model's own layout ([B, T, I], or [T, B, I] where the model is not batch
        first; ids: [B, T] or [T, B]): a tensor, an array, or an iterable of them such as a DataLoader. Lengths may differ between batches.
    overrides: path -> rule, as a dict or a .toml or .json file; see ``rindle.scheme``.

    Returns a :class:`rindle.Model`, whose input is always batch first. Raises RindleError, which names what is
    wrong, the value and the remedy. Warns (RindleWarning) of constant paths and rows of zeros.
    """
    from ..runtime import Model

    return Model(convert(*_prepared(model, scheme, calibration, overrides)))


def _prepared(model: nn.Module, scheme, calibration, overrides) -> tuple[Plan, dict]:
    if not isinstance(model, nn.Module):
        raise RindleError(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
    if calibration is None:
        raise RindleError("calibration is missing; give real sequences, a hundred or so are usually enough")
    if not isinstance(calibration, (torch.Tensor, list, tuple)) and not hasattr(calibration, "ndim"):
        calibration = list(calibration)
    first = next(iter(batches(calibration, True)))
    graph, batch_first = capture(model, torch.from_numpy(first))

    def check(x, y):
        """The captured graph must compute what the model does, before any of it is quantized."""
        was_training = model.training
        with torch.no_grad():
            wanted = model.eval()(x if batch_first else x.transpose(0, 1))
        model.train(was_training)
        wanted = wanted[0] if isinstance(wanted, tuple) else wanted
        if wanted.ndim == 3 and not batch_first:
            wanted = wanted.transpose(0, 1)
        if wanted.shape != y.shape or not torch.allclose(wanted.float(), y, rtol=1e-3, atol=1e-4):
            off = (wanted.float() - y).abs().max().item() if wanted.shape == y.shape else float("nan")
            raise RindleError(
                f"the captured graph differs from {type(model).__name__} by {off:.2g} on {x.shape[1]} frames; "
                f"the model probably does something that depends on the sequence length"
            )

    plan = calibrate(graph, calibration, batch_first, scheme, overrides, check)
    provenance = {
        "model": {"class": type(model).__name__, "sha256": hash_of(model.state_dict())},
        "scheme": scheme,
        "overrides": load_overrides(overrides),
        "calibration": {"batches": plan.batches, "frames": plan.frames},
    }
    return plan, provenance
