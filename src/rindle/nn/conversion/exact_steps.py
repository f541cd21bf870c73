"""Weights whose multipliers would be too coarse get steps for which they are exact, docs/numerics.md (8c).

All products of an affine share one shift, and the coarsest of them says how far it can go: M < 2²² (8a). Beside a product of 2 by 2
bits, one of 16 by 16 has no bits left in its M. But the steps of weights are free at conversion: where M would be rounded, the step is raised (never lowered, so that nothing clips) to the next one that makes M an integer.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from ...errors import RindleWarning
from ...numbers.formats import weight_format

ENOUGH = 2**11  # an M from here on is fine enough, (8b)
REMARKABLE = 1.5  # a step that grows by more is warned of


def with_exact_steps(name: str, op, plan, shift: int):
    """The LayerPlan, with such steps for the weights of an affine; None where no step can change, their codes being given."""
    weights, changed = dict(plan.weights), False
    for term in op.terms:
        fmt, steps = plan.weights[term.key]
        rows = [plan.program.block_shape(f"{gate}.{term.source}")[0] for gate in term.gates]
        scale = np.full(sum(rows), fmt.scale) if steps is None else steps.astype(np.float64)
        y_scale = np.repeat([plan.formats[gate].scale for gate in term.gates], rows)
        per_step = plan.formats[term.code].scale / y_scale * 2.0**shift
        multipliers = np.maximum(np.ceil(scale * per_step * (1 - 2.0**-22)), 1)
        raised = np.where(multipliers < ENOUGH, np.maximum(scale, multipliers / per_step), scale)
        if term.key in plan.codes or np.allclose(raised, scale, rtol=2.0**-22, atol=0):
            continue
        changed = True
        weights[term.key] = weight_format(fmt.bits, fmt.levels), raised.astype(np.float32)
        growth = float((raised / scale).max())
        if growth > REMARKABLE:
            warnings.warn(
                f"{name}/weight.{term.key}: its steps grow up to {growth:.3g} times, so that it can share a shift with the "
                f"coarser products of {'_'.join(op.out)}; formats that lie closer together lose less",
                RindleWarning,
                stacklevel=2,
            )
    return replace(plan, weights=weights) if changed else None
