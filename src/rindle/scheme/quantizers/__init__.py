"""How a scale is chosen from data. A quantizer is a file here and a line in QUANTIZERS.

Each file has one function, and the range (above, up to) of the number that a rule may give it in parentheses:

    step(values, counts, levels, grid, parameter) -> steps [R]
    PARAMETER = (lowest, highest)        (0, 0): it takes none
    NEEDS_ZERO = True                    only if it cannot serve level sets without a 0

values: |v| [R, N]. counts: how often each column occurred [N], or None for once. levels: what
codes can be, a ``numbers.levels.Levels``. grid: the steps that the format allows, rising, or None for any. parameter: that number, or None. A row of zeros gets 0.
"""

from . import aciq, kl, maximum, mmse, percentile

QUANTIZERS = {
    "max": maximum,
    "percentile": percentile,
    "mmse": mmse,
    "aciq": aciq,
    "kl": kl,
}
