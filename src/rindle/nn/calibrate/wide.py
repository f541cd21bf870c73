"""Codes of 8 bits that do not hold their products, and what becomes of them: the words ``wide`` and ``strict`` of a code's rule.

One step for all features of a value leaves the small ones no codes where one feature is far larger, and turns quiet frames into
zeros where loud ones decide. The noise of the code itself shows neither: a large feature or a loud frame hides it. So what is
measured is the noise of the *products* that read a code, over all frames and of the median frame:

    P = Σ_r var(W x)_r / mean |W (x − q(x))|²            M = median over frames of |W x_t|² / |W (x_t − q(x_t))|²

in dB, for every matrix W behind the code, on a sample of the calibration frames, in float64. A code below LEAST gets 16 bits
under ``wide``, and is warned of under ``strict``. Any rule without these words stays as it is.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...errors import RindleError, RindleWarning
from ...numbers.formats import Format
from ...program.program import Term
from ...scheme.rules import Rule
from ..numerics import convolve

WIDE, STRICT = "wide", "strict"
LEAST = 30.0  # dB; in the design study every fault of eight trained models was below 25 and all else above 28: docs/codes.md
FRAMES, ELEMENTS = 3000, 2**22  # of a sample
HEADROOM = 1.25  # of a code that has been widened, as of other 16-bit paths
ACCUMULATOR = 2**31  # what a wide code's products shall stay below, so that 32-bit accumulators do
NARROWEST = 12  # bits that a widened code has at least

log = logging.getLogger("rindle")


class Sample:
    """Frames of a value, evenly spread over all that come: float32 [n, F], at most FRAMES of them."""

    def __init__(self):
        self.parts: list[torch.Tensor] = []
        self.stride, self.seen, self.kept = 1, 0, 0

    def add(self, values: torch.Tensor) -> None:
        """values: [n, F], the next frames in their order."""
        first = -self.seen % self.stride
        self.seen += len(values)
        self.parts.append(values[first :: self.stride].detach().float().cpu().clone())
        self.kept += len(self.parts[-1])
        most = max(1, min(FRAMES, ELEMENTS // max(values.shape[1], 1)))
        while self.kept > most:
            self.parts = [torch.cat(self.parts)[::2].clone()]
            self.stride, self.kept = 2 * self.stride, len(self.parts[0])

    def values(self) -> torch.Tensor:
        """float64 [n, F]."""
        return torch.cat(self.parts).double()


@dataclass(frozen=True)
class Held:
    """How well a code holds its products. code: "layer/code path". bits: what it had. products: P, and median: M, in dB, of the worst
    matrix behind it. rule: what it got, None where it stays; keys: "layer/path" of the rules that it is.
    """

    code: str
    bits: int
    products: float
    median: float
    rule: str | None = None
    keys: tuple[str, ...] = ()

    @property
    def least(self) -> float:
        return min(self.products, self.median)

    def __str__(self) -> str:
        found = f"{self.code}: {self.bits} bits hold its products at {self.products:.1f} dB, those of the median frame at {self.median:.1f} dB"
        return found if self.rule is None else f"{found}; it gets {self.rule!r}"


def choices(held: list[Held], overrides: dict[str, str]) -> dict:
    """What a file says of the choices: its overrides, with which the same choices are made again without being measured, and
    why they were made.
    """
    chosen = [one for one in held if one.rule is not None]
    found: dict = {"overrides": overrides | {key: one.rule for one in chosen for key in one.keys}}
    if chosen:
        found["widened"] = {
            one.code: {"products": _rounded(one.products), "median frame": _rounded(one.median)} for one in chosen
        }
    return found


def _rounded(decibels: float) -> float | None:
    return round(decibels, 1) if np.isfinite(decibels) else None


def asked(rules: dict[tuple[str, str], Rule], node: str, program) -> dict[str, list[str]]:
    """Source path -> the keys of its codes' rules that have one of the words."""
    found: dict[str, list[str]] = {}
    for gate, source in program.blocks:
        key = f"code.{gate}.{source}"
        if {WIDE, STRICT} & getattr(rules.get((node, key)), "modifiers", frozenset()):
            found.setdefault(source, []).append(key)
    return found


def collect(samples: dict, rules: dict, node: str, program, observed: dict[str, list[torch.Tensor]]) -> None:
    """Adds to the samples what a node's code sources held. observed: path -> its frames."""
    for source in asked(rules, node, program):
        for path, frames in observed.items():
            if program.format_name(path) == program.format_name(source):
                samples.setdefault((node, program.format_name(source)), Sample()).add(torch.cat(frames))


def widened(name: str, layer, plan, rules: dict, samples: dict) -> tuple[dict[tuple[str, str], Rule], list[Held]]:
    """What a layer's codes hold of their products, and the rules of those that get more bits.

    layer: the FloatLayer. plan: its LayerPlan. Warns (RindleWarning) of what stays below LEAST under ``strict``.
    """
    changed: dict[tuple[str, str], Rule] = {}
    found: list[Held] = []
    program = plan.program
    for code in program.codes:
        terms = [term for op in program.affines for term in op.terms if term.code == code]
        keys = [(name, f"code.{gate}.{term.source}") for term in terms for gate in term.gates]
        words = frozenset().union(*(rules[key].modifiers for key in keys))
        sample = samples.get((name, program.format_name(terms[0].source)))
        if not words & {WIDE, STRICT} or plan.formats[code].bits >= NARROWEST:
            continue
        if sample is None:
            raise RindleError(
                f"{name}/{code}: its rule says {' or '.join(sorted(words & {WIDE, STRICT}))}, and the calibration that is at hand kept no "
                f"frames for it; calibrate with that rule, or leave the word out"
            )
        fmt, x = plan.formats[code], sample.values()
        matrices = [_matrix(layer, term) for term in terms]
        ratios = [_ratios(term, w, x, fmt) for term, w in zip(terms, matrices)]
        one = Held(f"{name}/{code}", fmt.bits, min(p for p, _ in ratios), min(m for _, m in ratios))
        if one.least < LEAST and WIDE in words:
            rule = _wider(terms, matrices, plan, x)
            one = replace(one, rule=str(rule), keys=tuple(map("/".join, keys)))
            changed |= dict.fromkeys(keys, rule)
            log.info("%s", one)
        elif one.least < LEAST:
            warnings.warn(f"{one}; the scheme without 'strict' would widen it", RindleWarning, stacklevel=2)
        found.append(one)
    return changed, found


def _matrix(layer, term: Term) -> torch.Tensor:
    return torch.cat([layer.blocks[f"{gate}.{term.source}"].detach() for gate in term.gates]).double().cpu()


def _product(term: Term, matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x @ matrix.T if term.conv is None else convolve(term.conv, x, matrix)


def _ratios(term: Term, matrix: torch.Tensor, x: torch.Tensor, fmt: Format) -> tuple[float, float]:
    """P and M, in dB; infinite without noise, or where nothing varies."""
    rounded = torch.clamp(torch.floor(x / fmt.scale + 0.5), fmt.lo, fmt.hi) * fmt.scale
    y, noise = _product(term, matrix, x), _product(term, matrix, x - rounded)
    return (
        _decibels(y.var(0, unbiased=False).sum().item(), noise.square().sum(1).mean().item()),
        _median(y.square().sum(1), noise.square().sum(1)),
    )


def _decibels(signal: float, noise: float) -> float:
    return float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else float("inf")


def _median(signal: torch.Tensor, noise: torch.Tensor) -> float:
    """Of the frames that are not zero."""
    heard = signal > 0
    if not heard.any():
        return float("inf")
    ratios = signal[heard] / noise[heard].clamp_min(1e-300)
    return float(10 * np.log10(np.median(ratios.numpy())))


def _wider(terms: list[Term], matrices: list[torch.Tensor], plan, x: torch.Tensor) -> Rule:
    """16 bits, or as many from NARROWEST on as keep A = Σ|w|·max|x| of every row within 32-bit accumulators."""
    reach = 0.0
    for term, matrix in zip(terms, matrices):
        fmt, steps = plan.weights[term.key]
        scale = (
            torch.full((len(matrix),), fmt.scale, dtype=torch.float64)
            if steps is None
            else torch.from_numpy(steps).double()
        )
        reach = max(reach, (matrix.abs().sum(1) / scale).max().item())
    bits = 16
    while bits > NARROWEST and reach * (2 ** (bits - 1) - 1) >= ACCUMULATOR:
        bits -= 1
    return Rule("fixed", bits, None, "max", HEADROOM)
