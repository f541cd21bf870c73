"""Which path has which format: presets as plain data, and overrides from one file.

A scheme maps patterns to rules; a later rule wins. It is a preset's name, a dict, or one of the family ``fixed(w,a)``: weights
of w bits and codes of a bits, powers of two throughout (shifts only); ``fixed(w,a,e)`` with element-wise paths of e bits.

A rule is a format and how its scale is calibrated:

    "int8 max"          8 bits, any scale (weights: one per row), so that the largest value just fits
    "int4 mmse"         the scale with the least squared error
    "int8 percentile(99.9)"
    "fixed16 max(1.25)" 16 bits, a power-of-two scale, with 25 % headroom
    "fixed(16,11)"      fraction bits given: nothing is calibrated
    "uniform2 mmse"     a level set, of weights alone, with a scale per row: see rindle.numbers.levels

Words may follow, those of MODIFIERS: "int4 mmse gptq corrected" (docs/rounding.md).

Keys are ``layer/path`` with shell wildcards; without a slash they hold for every layer. The paths of a layer:

    weight.<gate>.<source>   a block of a weight matrix              weight.g.h: the candidate's recurrent weights
    code.<gate>.<source>     the code that this block multiplies     code.*.h:   every narrow code of h
    <path>                   an element-wise path, a state, a constant vector: c, f.sigmoid, v_f

and two kinds of key whose rules are no formats; only patterns that begin with these words mean them:

    table.<path>             how the function that makes this path becomes a table: "linear 64 range(6)", see rindle.tables
    accumulator.<gate>       the widest accumulator that the products of this gate may need: "24 bits"
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import RindleError
from ..numbers.formats import FRAC_LIMIT, WIDTHS, check_bits
from ..numbers.levels import LEVELS, Levels, integers
from ..numbers.tables import TableRule, parse_table
from .quantizers import QUANTIZERS

SCHEMES: dict[str, dict[str, str]] = {
    "int8": {"*": "fixed16 max(1.25)", "weight.*": "int8 max", "code.*": "int8 mmse wide"},
    "w4a8": {"*": "fixed16 max(1.25)", "weight.*": "int4 mmse", "code.*": "int8 mmse wide"},
    "fixed16": {"*": "fixed16 max(1.25)", "weight.*": "fixed16 max", "code.*": "fixed16 max(1.25)"},
    "fixed8": {"*": "fixed16 max(1.25)", "weight.*": "fixed8 mmse", "code.*": "fixed8 mmse"},
}
FAMILIES = "fixed(w,a) or fixed(w,a,e) with 2..16 bits each, also written fixed-w-a"
ACCUMULATOR_BITS = range(2, 65)


def named_scheme(name: str) -> dict[str, str]:
    """The rules of a preset, or of ``fixed(w,a)``, ``fixed(w,a,e)``; a shell likes ``fixed-w-a`` better. RindleError if there is none."""
    if name in SCHEMES:
        return SCHEMES[name]
    plain = re.sub(r"(-|\s+)strict\s*$", "", name)
    if plain != name and plain in SCHEMES:  # for a target that has no wider codes
        return {pattern: re.sub(r"\bwide$", "strict", rule) for pattern, rule in SCHEMES[plain].items()}
    if not re.match(r"\s*fixed\s*[(-]", name):
        near = get_close_matches(name, SCHEMES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SCHEMES)}, and {FAMILIES}"
        raise RindleError(f"unknown scheme {name!r}; {hint}")
    form = re.fullmatch(r"\s*fixed\s*(?:\(\s*\d+(?:\s*,\s*\d+)*\s*\)|-\d+(?:-\d+)*)\s*", name)
    bits = [int(number) for number in re.findall(r"\d+", name)]
    if not form or len(bits) not in (2, 3) or not all(one in WIDTHS for one in bits):
        raise RindleError(f"the scheme is {name!r}; write {FAMILIES}")
    weight, code, element = (*bits, 16)[:3]
    wide = "max(1.25)" if element == 16 else "mmse"
    return {"*": f"fixed{element} {wide}", "weight.*": f"fixed{weight} mmse", "code.*": f"fixed{code} mmse"}


@dataclass(frozen=True)
class Rule:
    """kind: "int" or "fixed". frac: given, or None to calibrate by ``method`` with its ``parameter``. levels: a name of ``LEVELS``, of
    kind "int", or None for integers.
    """

    kind: str
    bits: int
    frac: int | None = None
    method: str = "max"
    parameter: float | None = None
    modifiers: frozenset[str] = frozenset()
    levels: str | None = None

    @property
    def level_set(self) -> Levels:
        """What a code of the format is worth."""
        return integers(self.bits) if self.levels is None else LEVELS[self.levels]

    def __str__(self) -> str:
        words = "".join(f" {word}" for word in sorted(self.modifiers))
        if self.frac is not None:
            return f"fixed({self.bits},{self.frac}){words}"
        number = "" if self.parameter is None else f"({self.parameter:g})"
        return f"{self.levels or f'{self.kind}{self.bits}'} {self.method}{number}{words}"


# word -> the kinds of path whose rule it may stand in: "weight", "code", "element" (anything else)
MODIFIERS: dict[str, frozenset[str]] = {
    "median": frozenset(
        {"code", "element"}
    ),  # of the steps that each calibration sequence alone would give: nn/median.py
    "wide": frozenset(
        {"code"}
    ),  # 16 bits where 8 do not hold its products: nn/calibrate/wide.py; "int8 strict" warns instead
    "strict": frozenset({"code"}),  # a warning there instead
    "gptq": frozenset({"weight"}),  # nn/rounding/gptq.py
    "actorder": frozenset({"weight"}),  # of gptq
    "learned": frozenset({"weight"}),  # nn/rounding/learned.py
    "corrected": frozenset({"weight"}),  # nn/rounding/bias.py
}


def parse_rule(text: str, where: str = "a rule") -> Rule:
    """Raises RindleError for anything that is not a rule."""
    if not isinstance(text, str):
        hint = "; quote a key that has dots in it" if isinstance(text, dict) else ""
        raise RindleError(f'{where} is {text!r}; write for example "int8 max"{hint}')
    match = re.fullmatch(
        rf"\s*(?:({'|'.join(LEVELS)})|(int|fixed)\s*(?:(\d+)|\(\s*(\d+)\s*,\s*(-?\d+)\s*\)))(?:\s+([a-z]+)(?:\((\d+(?:\.\d+)?)\))?)?((?:\s+[a-z]+)*)\s*",
        text,
    )
    if not match and (known := re.match(rf"\s*({'|'.join(LEVELS)})\s*\(", text)):
        raise RindleError(
            f'{where} is {text!r}; {known[1]} has a scale per row and no fraction bits; write "{known[1]} mmse"'
        )
    if not match:
        raise RindleError(f'{where} is {text!r}; write for example "int8 max", "fixed16 mmse" or "fixed(16,11)"')
    levels, kind, plain, bits, frac, method, parameter, words = match.groups()
    words = words.split()
    if method in MODIFIERS and parameter is None:
        method, words = None, [method, *words]
    if frac is not None and (kind == "int" or method):
        raise RindleError(f"{where} is {text!r}; only a fixed format has given fraction bits, and then no calibration")
    if method not in (None, *QUANTIZERS):
        near = get_close_matches(method, QUANTIZERS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(QUANTIZERS)}"
        raise RindleError(f"{where}: unknown calibration {method!r}; {hint}")
    rule = Rule(
        kind or "int",
        LEVELS[levels].bits if levels else int(plain or bits),
        None if frac is None else int(frac),
        method or "max",
        None if parameter is None else float(parameter),
        frozenset(words),
        levels,
    )
    for word in words:
        if word not in MODIFIERS:
            near = get_close_matches(word, MODIFIERS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(MODIFIERS) or 'none'}"
            raise RindleError(f"{where} is {text!r}: unknown word {word!r}; {hint}")
    if frac is not None and "median" in words:
        raise RindleError(f"{where} is {text!r}; nothing of given fraction bits is calibrated, so there is no median")
    lowest, highest = QUANTIZERS[rule.method].PARAMETER
    if not levels:
        check_bits(rule.bits, f"{where} is {text!r}; a format")
    if getattr(QUANTIZERS[rule.method], "NEEDS_ZERO", False) and not rule.level_set.has_zero:
        raise RindleError(
            f'{where} is {text!r}; {rule.method} is for codes with a 0, which {levels} lacks; write "{levels} mmse"'
        )
    if rule.frac is not None and abs(rule.frac) > FRAC_LIMIT:
        raise RindleError(f"{where} is {text!r}; a format has -{FRAC_LIMIT}..{FRAC_LIMIT} fraction bits")
    if rule.parameter is not None and not lowest < rule.parameter <= highest:
        limits = f"takes a number above {lowest} and up to {highest}" if highest else "takes no number"
        raise RindleError(f"{where} is {text!r}; {rule.method} {limits}")
    return rule


@dataclass(frozen=True)
class AccumulatorRule:
    """bits: of the signed integer that must hold every partial sum of a product, acc in numerics (7)."""

    bits: int

    def __str__(self) -> str:
        return f"{self.bits} bits"


def parse_accumulator(text: str, where: str = "a rule") -> AccumulatorRule:
    """Raises RindleError for anything that is not a width."""
    match = re.fullmatch(r"\s*(\d+)(?:\s+bits)?\s*", text) if isinstance(text, str) else None
    if not match or int(match[1]) not in ACCUMULATOR_BITS:
        low, high = ACCUMULATOR_BITS[0], ACCUMULATOR_BITS[-1]
        raise RindleError(f'{where} is {text!r}; write for example "24 bits", {low} to {high}')
    return AccumulatorRule(int(match[1]))


SPECIAL = {"table": parse_table, "accumulator": parse_accumulator}  # first word of a key -> what reads its rules


def special(key: str) -> str | None:
    """The word of SPECIAL with which a key or a pattern begins, its layer aside."""
    word, dot, _ = key.rpartition("/")[2].partition(".")
    return word if dot and word in SPECIAL else None


def parse_any(pattern: str, text: str, where: str) -> Rule | TableRule | AccumulatorRule:
    """The rule of a pattern, of whatever kind it is."""
    return SPECIAL.get(special(pattern), parse_rule)(text, where)


def load_overrides(source) -> dict[str, str]:
    """None, a dict, or a .toml or .json file of one: key -> rule text."""
    if source is None:
        return {}
    if isinstance(source, dict):
        table = source
    else:
        path = Path(source)
        try:
            text = path.read_text()
            table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except OSError as error:
            raise RindleError(f"the override file {path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise RindleError(f"the override file {path} is not valid {path.suffix[1:] or 'TOML'}: {error}") from None
    if not isinstance(table, dict):
        raise RindleError(f"the override file {source} holds a {type(table).__name__}; it must map paths to rules")
    for key, text in table.items():
        parse_any(key, text, f"the override of {key!r}")
    return dict(table)


def fitting(rules, keys: dict[str, list[str]]) -> dict[str, str]:
    """The rules, of a scheme or of overrides, that fit a path of these layers."""
    everything = [(layer, path) for layer, paths in keys.items() for path in paths]
    table = load_overrides(rules)
    return {pattern: text for pattern, text in table.items() if any(_fits(pattern, *key) for key in everything)}


def resolve(scheme, overrides, keys: dict[str, list[str]]) -> dict[tuple[str, str], Rule]:
    """The rule of every (layer, path); of the keys of SPECIAL only where one was given.

    scheme: a name that :func:`named_scheme` knows, or a dict of rules. keys: layer -> its paths. Raises RindleError for an
    unknown scheme, and for a pattern that fits no path, with the nearest one.
    """
    if isinstance(scheme, str):
        scheme, named = named_scheme(scheme), True
    elif isinstance(scheme, dict):
        named = False
    else:
        raise RindleError(f"the scheme is {scheme!r}; give one of {', '.join(SCHEMES)}, {FAMILIES}, or a dict of rules")
    everything = [(layer, path) for layer, paths in keys.items() for path in paths]
    rules: dict[tuple[str, str], Rule] = {}
    for table, must_fit in ((scheme, not named), (load_overrides(overrides), True)):
        for pattern, text in table.items():
            rule = parse_any(pattern, text, f"the rule for {pattern!r}")
            fits = [key for key in everything if _fits(pattern, *key)]
            if must_fit and not fits:
                names = [f"{layer}/{path}" for layer, path in everything] + [path for _, path in everything]
                near = get_close_matches(pattern, names, 1, cutoff=0.4)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise RindleError(f"no path fits {pattern!r}{hint}")
            rules.update(dict.fromkeys(fits, rule))
    for layer, path in everything:
        if special(path):
            continue
        if (layer, path) not in rules:
            raise RindleError(f'the scheme has no rule for {layer}/{path}; add one for "*"')
        kind = path.split(".")[0] if path.startswith(("weight.", "code.")) else "element"
        for word in rules[layer, path].modifiers:
            if kind not in MODIFIERS[word]:
                raise RindleError(
                    f"{layer}/{path}: {word!r} stands at rules of {' and '.join(sorted(MODIFIERS[word]))} paths"
                )
        if kind != "weight" and rules[layer, path].levels:
            raise RindleError(
                f"{layer}/{path} is {rules[layer, path]}; a level set is for weights alone, so give it an int or fixed format"
            )
        element_wise = kind == "element"
        if element_wise and rules[layer, path].kind != "fixed":
            raise RindleError(f"{layer}/{path} is element-wise, and so it must be fixed, not {rules[layer, path]}")
    return rules


def _fits(pattern: str, layer: str, path: str) -> bool:
    if special(pattern) != special(path):  # "*" is every format, and no table
        return False
    return fnmatchcase(f"{layer}/{path}" if "/" in pattern else path, pattern)
