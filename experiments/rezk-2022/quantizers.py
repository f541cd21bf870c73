"""The published quantizers: MMSE clipping over 201 bins, integer codes, and 16-bit fixed point by decimals.

Source: Rezk et al. 2022 and the authors' code (its Outlier Channel Splitting quantizer, without splitting).
"""

from __future__ import annotations

import torch

WIDE = 16  # bits of what is not an integer: fixed point
BINS = 201
ALPHAS = torch.arange(1, 100) / 100  # candidates, as shares of the largest magnitude; 1 is none


def levels(bits: int) -> tuple[int, int, int]:
    """Lowest and highest code, and what the clipping threshold becomes: the lowest is one more than a symmetric one."""
    half = 2 ** (bits - 1)
    return -half, half - 1, half - 1


def mmse(values: torch.Tensor, bits: int, counted: torch.Tensor | None = None) -> torch.Tensor:
    """The clipping threshold with the least mean squared error, for each row of values [R, N]; [R], 0 of a row of zeros.

    counted: bool [R, N], the elements that are there. The values stand in a histogram of 201 bins from the least to the
    largest. Within the threshold an element costs the square of its rounding error, beyond it that of the clipping.
    """
    counted = torch.ones_like(values, dtype=torch.bool) if counted is None else counted
    low = values.masked_fill(~counted, torch.inf).amin(1, keepdim=True)
    high = values.masked_fill(~counted, -torch.inf).amax(1, keepdim=True)
    width = ((high - low) / BINS).clamp_min(1e-12)
    place = ((values - low) / width).long().clamp(0, BINS - 1)
    mass = values.new_zeros(len(values), BINS).scatter_add_(1, place, counted.to(values.dtype))
    mass = (mass / mass.sum(1, keepdim=True))[:, None]  # [R, 1, bins]
    centres = (low + (torch.arange(BINS) + 0.5) * width)[:, None]
    largest = torch.maximum(low.abs(), high.abs())  # [R, 1]
    threshold = (largest * ALPHAS)[:, :, None]  # [R, candidates, 1]
    lo, hi, full = levels(bits)
    scale = full / threshold.clamp_min(1e-12)
    rounded = (centres * scale).round().clamp(lo, hi) / scale
    beyond = centres.abs() > threshold
    error = torch.where(beyond, centres.abs() - threshold, centres - rounded)
    best = (error.square() * mass).sum(-1).argmin(1)
    return threshold[torch.arange(len(values)), best, 0] * (largest[:, 0] > 0)


def weight_codes(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, float]:
    """Integers of a whole matrix, and its scale: code ≈ scale · weight."""
    threshold = float(mmse(weight.flatten()[None], bits))
    lo, hi, full = levels(bits)
    scale = full / threshold if threshold else 1.0
    return (weight * scale).round().clamp(lo, hi), scale


def scale_of(threshold, bits: int) -> torch.Tensor:
    """Codes per value of what enters a product. threshold: a number or a tensor; where it is 0 all codes are."""
    threshold = torch.as_tensor(threshold, dtype=torch.float32)
    return torch.where(threshold > 0, levels(bits)[2] / threshold.clamp_min(1e-12), 0)


def vector_codes(values: torch.Tensor, scale, bits: int) -> torch.Tensor:
    """Integers of what enters a product. scale: a number, or a tensor that broadcasts."""
    lo, hi, _ = levels(bits)
    return (values * scale).clamp_(lo, hi).add_(0.5).floor_()


def decimals_of(largest: float, weights: bool) -> int:
    """Of the 16-bit formats: 1.1.14 holds four, 1.5.10 three, 1.8.7 two. Vectors never have four."""
    if weights and largest < 2:
        return 4
    return 3 if largest < 32 else 2


def fixed_weight(weight: torch.Tensor) -> torch.Tensor:
    return weight.round(decimals=decimals_of(float(weight.abs().max()), True))


def fixed_vector(values: torch.Tensor, largest: float) -> torch.Tensor:
    """largest: the magnitude that the path reached in calibration."""
    return values.round(decimals=decimals_of(largest, False))
