"""SiLago: a coarse-grained reconfigurable architecture whose unit makes one 16-bit, two 8-bit or four 4-bit products.

Speedup over 16 bits, and energy of a step, as MOHAQ's public code has them (arXiv 2108.01192; constants read there, the sums
checked against its corner values by our arithmetic). Both operands have one width: the wider of the two, rounded up.
"""

from __future__ import annotations

from ...errors import RindleError
from .workload import Workload

WIDTHS = (4, 8, 16)
PRODUCTS = {4: 4, 8: 2, 16: 1}  # that a unit makes at once
MAC = {4: 0.613 / 4, 8: 1.084 / 2, 16: 1.666}  # pJ, of one multiply-accumulate
BIT = 0.08  # pJ, to read one bit of the weights


def measures(workload: Workload) -> dict[str, float]:
    """speedup: times as fast as the same model in 16 bits without element-wise work. energy: µJ per frame.

    RindleError below 4 bits, which the unit has not.
    """
    widths = [_width(one.name, one.weight_bits, one.code_bits) for one in workload.products]
    work = list(zip(workload.products, widths))
    return {
        "speedup": sum(one.macs * PRODUCTS[width] for one, width in work) / workload.operations,
        "energy": (workload.bits * BIT + sum(one.macs * MAC[width] for one, width in work)) / 1e6,
    }


def _width(name: str, weight_bits: int, code_bits: int) -> int:
    if min(weight_bits, code_bits) < WIDTHS[0]:
        raise RindleError(
            f"{name} multiplies {weight_bits}-bit weights and {code_bits}-bit codes; SiLago has {', '.join(map(str, WIDTHS))} "
            f"bits: give both at least {WIDTHS[0]}"
        )
    return next(width for width in WIDTHS if max(weight_bits, code_bits) <= width)
