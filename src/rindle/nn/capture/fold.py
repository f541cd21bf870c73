"""Batch norm in evaluation as part of the product beside it."""

from __future__ import annotations

import torch
from torch import nn

from ...errors import RindleError


def batch_norm(norm: nn.modules.batchnorm._BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale s and shift t, [n] each, of a norm that computes s ⊙ y + t. Ioffe & Szegedy 2015 (arXiv 1502.03167), alg. 2.

    Raises RindleError for a norm without running statistics: what it computes depends on the batch.
    """
    if norm.running_var is None:
        raise RindleError(
            "the batch norm keeps no running statistics (track_running_stats=False), so it cannot be folded"
        )
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = norm.weight.detach() * scale
    shift = -scale * norm.running_mean
    return scale, shift if norm.bias is None else norm.bias.detach() + shift


def norm_of_product(weight: torch.Tensor, bias: torch.Tensor | None, norm) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [n, columns] and bias [n] of norm(W x + b)."""
    scale, shift = batch_norm(norm)
    return scale[:, None] * weight, shift if bias is None else scale * bias + shift


def product_of_norm(weight: torch.Tensor, bias: torch.Tensor | None, norm) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [rows, n] and bias [rows] of W norm(x) + b."""
    scale, shift = batch_norm(norm)
    return weight * scale, weight @ shift if bias is None else bias + weight @ shift
