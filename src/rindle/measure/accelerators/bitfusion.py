"""Bitfusion: 2-bit multipliers that fuse to the widths of each product (Sharma et al. 2018).

Speedup over 16 by 16 bits as MOHAQ's public code has it (arXiv 2108.01192): 256 / (w·a), w and a powers of two from 2 to 16.
"""

from __future__ import annotations

from .workload import Workload

WIDTHS = (2, 4, 8, 16)


def measures(workload: Workload) -> dict[str, float]:
    """speedup: times as fast as the same model in 16 bits without element-wise work."""
    fused = sum(one.macs * 256 / (_width(one.weight_bits) * _width(one.code_bits)) for one in workload.products)
    return {"speedup": fused / workload.operations}


def _width(bits: int) -> int:
    return next(width for width in WIDTHS if bits <= width)
