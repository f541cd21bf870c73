"""Expressions of C whose width follows from a bound on their values."""

from __future__ import annotations

INT32 = 2**31


def finished(v: str, bound: int, shift: int, fmt) -> str:
    """sat(round(v, s)), (14). bound: of |v| and the rounding; v is computed in 64 bits where it is not below 2^31."""
    wide = bound >= INT32
    if shift:
        v = f"rindle_round64({v}, {shift})" if wide else f"rindle_round({v}, {shift})"
    if wide and (bound >> shift) + 1 >= INT32:
        return f"rindle_sat64({v}, {fmt.lo}, {fmt.hi})"
    return f"rindle_sat({f'(int32_t){v}' if wide else v}, {fmt.lo}, {fmt.hi})"


def times(term: str, factor: int, wide: bool) -> str:
    """term · factor, in 64 bits where wide."""
    if wide:
        term = f"(int64_t){term}" if " + " not in term else f"(int64_t)({term})"
    if factor == 1:
        return term
    return f"{term} * {literal(factor)}"


def literal(value: int) -> str:
    return str(value) if -INT32 < value < INT32 else f"INT64_C({value})"
