"""How a scale is chosen from data. One file each, behind one function:

    step(values, counts, hi, grid, parameter) -> steps [R]

values: |v| [R, N]. counts: how often each column occurred [N], or None for once. hi: the largest code. grid: the steps
that the format allows, rising, or None for any. parameter: the number in a rule's parentheses. A row of zeros gets 0.
"""

from . import maximum, mmse, percentile

QUANTIZERS = {"max": maximum.step, "percentile": percentile.step, "mmse": mmse.step}
