"""Learned steps: LSQ, Esser et al. 2020 (arXiv 1902.08153), for weights and for narrow codes.

The step is learned as its logarithm, relative to the calibrated one: step = start · exp(ρ), ρ = 0 at first (as in Jain et al.
2020, arXiv 1903.08066). So it stays positive, weight decay pulls it to where it began, and Adam, which moves every
parameter by about its learning rate, moves steps of 0.003 and of 3 by the same proportion.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from .numerics import nearest


class _Quantize(torch.autograd.Function):
    """Codes of v by (3), times the step; of a level set, its levels. The gradients are LSQ's (3) and (5): straight through to v inside the range; to
    the step code − v/step inside it and the end of the range outside, summed over what shares the step, times factor.
    """

    @staticmethod
    def forward(ctx, v, step, lo, hi, factor, spacing):
        u = v / step
        code = nearest(u, lo, spacing).clamp_(lo, hi)
        inside = (u > lo) & (u < hi)
        ctx.factor, ctx.learned = factor, torch.is_tensor(step) and step.requires_grad
        ctx.shape = step.shape if ctx.learned else None
        ctx.save_for_backward(inside, *((torch.where(inside, code - u, code),) if ctx.learned else ()))
        return code.mul_(step)

    @staticmethod
    def backward(ctx, grad):
        inside, *slope = ctx.saved_tensors
        step = None
        if ctx.learned:
            step = (grad * slope[0]).sum_to_size(ctx.shape) * ctx.factor
        return grad * inside, step, None, None, None, None


def quantize(v: torch.Tensor, step, lo, hi, factor: float = 1.0, spacing=1) -> torch.Tensor:
    """v on the grid of codes lo, lo + spacing, …, hi. step: a number, or a tensor that broadcasts to v and may be learned; factor:
    LSQ's gradient scale 1/√(n·hi), n being the elements that share a step. lo, hi, spacing: numbers, or tensors that broadcast.
    """
    return _Quantize.apply(v, step, lo, hi, factor, spacing)


class Calibrated(nn.Module):
    """A module whose values come from calibration. A checkpoint that has none of them, of a float model, leaves them."""

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        if any(key.startswith(prefix) for key in state_dict):
            super()._load_from_state_dict(state_dict, prefix, *rest)


class WeightSteps(Calibrated):
    """Quantizes a weight matrix [rows, columns], with a step and a range per row.

    start: the calibrated steps, float32 [rows]; hi: the largest codes [rows], -hi being the lowest; learns: whether a row's step is
    learned; spacing: from one code to the next [rows], 1 throughout if it is left out. Steps of ``fixed`` formats, powers of two, stay.
    """

    def __init__(self, start: np.ndarray, hi: np.ndarray, learns: np.ndarray, spacing: np.ndarray | None = None):
        super().__init__()
        self.register_buffer("start", torch.as_tensor(start, dtype=torch.float32)[:, None])
        self.register_buffer("hi", torch.as_tensor(hi, dtype=torch.float32)[:, None])
        self.register_buffer("learns", torch.as_tensor(learns, dtype=torch.float32)[:, None])
        self.rho = nn.Parameter(torch.zeros(len(start), 1))
        apart = spacing is not None and (np.asarray(spacing) != 1).any()
        spacing = torch.as_tensor(spacing, dtype=torch.float32)[:, None] if apart else None
        self.register_buffer("spacing", spacing, persistent=False)  # the formats say it: checkpoints need not

    def has_codes_of(self, other: WeightSteps) -> bool:
        """Whether the rows have the same codes."""
        alike = self.spacing is None if other.spacing is None else self.spacing is not None
        return (
            torch.equal(self.hi, other.hi)
            and alike
            and (self.spacing is None or torch.equal(self.spacing, other.spacing))
        )

    def steps(self) -> torch.Tensor:
        """[rows, 1]"""
        return self.start * torch.exp(self.rho * self.learns)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        # rows may differ in range, and so in their gradient scale: it is applied to the steps
        scale = 1 / torch.sqrt(weight.shape[1] * self.hi)
        steps = self.steps()
        steps = steps * scale + (steps * (1 - scale)).detach()
        return quantize(weight, steps, -self.hi, self.hi, spacing=1 if self.spacing is None else self.spacing)


class CodeStep(Calibrated):
    """Quantizes a narrow code path [.., features], with one learned step."""

    def __init__(self, start: float, lo: int, hi: int, features: int):
        super().__init__()
        self.register_buffer("start", torch.tensor(start, dtype=torch.float32))
        self.lo, self.hi, self.factor = lo, hi, 1 / math.sqrt(features * hi)
        self.rho = nn.Parameter(torch.zeros(()))

    def step(self) -> torch.Tensor:
        return self.start * torch.exp(self.rho)

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        return quantize(v, self.step(), self.lo, self.hi, self.factor)
