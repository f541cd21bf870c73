"""One JSON object or tensor of a hostile file, taken field by field: what does not fit is an error that names the place."""

from __future__ import annotations

import re

import numpy as np

from ..errors import RindleError
from ..numbers.formats import FRAC_LIMIT, WIDTHS, Format, unpack_weight
from ..numbers.levels import LEVELS
from . import limits


class Fields:
    """One JSON object, read key by key: a wrong type, a missing or an unknown key is an error that names the place."""

    def __init__(self, value, where: str):
        if not isinstance(value, dict):
            raise RindleError(f"{where} is {short(value)}; it must be an object")
        self.where, self._left = where, dict(value)

    def take(self, key: str, kind: type, default=...):
        if key not in self._left:
            if default is not ...:
                return default
            raise RindleError(f"{self.where}.{key} is missing")
        value = self._left.pop(key)
        wanted = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            raise RindleError(f"{self.where}.{key} is {short(value)}; it must be {_KINDS[kind]}")
        if kind is str and not is_name(value):
            raise RindleError(
                f"{self.where}.{key} is {short(value)}; a name has 1..{limits.NAME} bytes of UTF-8, and no control or hidden characters"
            )
        if kind is float:
            try:
                return float(value)
            except OverflowError:
                raise RindleError(f"{self.where}.{key} is {short(value)}; it must be a float64") from None
        return value

    def take_any(self, key: str):
        """A value of a type that the caller checks."""
        return self._left.pop(key)

    def integer(self, key: str, lo: int, hi: int) -> int:
        value = self.take(key, int)
        if not lo <= value <= hi:
            raise RindleError(f"{self.where}.{key} is {value}; it must be {lo}..{hi}")
        return value

    def has(self, key: str) -> bool:
        return key in self._left

    def is_list(self, key: str) -> bool:
        return isinstance(self._left.get(key), list)

    def done(self) -> None:
        if self._left:
            raise RindleError(f"{self.where} has an unknown key {next(iter(self._left))!r}")


_KINDS = {
    int: "an integer",
    float: "a number",
    str: "a string",
    dict: "an object",
    list: "an array",
    bool: "true or false",
}


# Control characters, and those that change the direction of a text or show nothing: a name must be what it looks like.
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def is_name(text: str) -> bool:
    """Whether a text can be a name in a file: 1 to 256 bytes of UTF-8 without control or hidden characters."""
    try:
        return 0 < len(text.encode()) <= limits.NAME and not HIDDEN.search(text)
    except UnicodeEncodeError:
        return False


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def names(value, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RindleError(f"{where} is {short(value)}; it must be an array of names")
    return tuple(value)


class Tensors:
    """The file's tensors; each must be asked for."""

    def __init__(self, tensors: dict[str, np.ndarray]):
        self._tensors, self._asked = tensors, set()

    def take(self, name: str, where: str, dtype, shape: tuple) -> np.ndarray:
        """shape: None stands for any size >= 1."""
        if name not in self._tensors:
            raise RindleError(f"{where} names the tensor {name!r}, which the file does not have")
        if where.startswith("golden.") and name in self._asked:
            raise RindleError(
                f"{where} names the tensor {name!r}, which serves elsewhere; a golden tensor stands alone"
            )
        self._asked.add(name)
        tensor = self._tensors[name]
        if tensor.dtype != dtype:
            raise RindleError(f"the tensor {name!r} has dtype {tensor.dtype}; {where} must be {np.dtype(dtype)}")
        if len(tensor.shape) != len(shape) or any(n < 1 or w not in (None, n) for n, w in zip(tensor.shape, shape)):
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise RindleError(f"the tensor {name!r} has shape {list(tensor.shape)}; {where} must be [{wanted}]")
        if tensor.size >= limits.ELEMENTS:
            raise RindleError(f"the tensor {name!r} has {tensor.size} elements; at most 2^31 - 1 are allowed")
        return tensor

    def done(self) -> None:
        extra = sorted(set(self._tensors) - self._asked)
        if extra:
            raise RindleError(f"the file has a tensor {extra[0]!r} that the document does not name")


def read_bits(entry: Fields) -> int:
    """Takes the width of a code of integers."""
    return entry.integer("bits", WIDTHS[0], WIDTHS[-1])


def read_format(entry: Fields, product: bool, levels: str | None = None) -> Format:
    """Takes bits, frac or scale, and signed from entry. levels: of a weight of that level set, which has its own bits."""
    bits = LEVELS[levels].bits if levels else read_bits(entry)
    signed = not entry.has("signed")
    if not signed and entry.take("signed", bool):
        raise RindleError(f"{entry.where}.signed is true; it must be false, or left out")
    if entry.has("frac") == entry.has("scale"):
        raise RindleError(f"{entry.where} must have one of frac and scale")
    if entry.has("frac"):
        scale = {"frac": entry.integer("frac", -FRAC_LIMIT, FRAC_LIMIT)}
    else:
        scale = {"step": entry.take("scale", float)}
    try:
        return Format(bits, **scale, signed=signed, product=product or not signed, levels=levels)
    except RindleError as error:
        raise RindleError(f"{entry.where}: {error}") from None


def write_format(fmt: Format) -> dict:
    entry = {"bits": fmt.bits} | ({"frac": fmt.frac} if fmt.is_fixed else {"scale": fmt.step})
    return entry if fmt.signed else entry | {"signed": False}


def unpack_codes(packed: np.ndarray, fmt: Format, columns: int, where: str) -> np.ndarray:
    try:
        codes = unpack_weight(packed, fmt, columns)
    except RindleError as error:
        raise RindleError(f"{where}: {error}") from None
    check_range(codes, fmt, where)
    return codes


def check_range(codes: np.ndarray, fmt: Format, where: str) -> None:
    if codes.min() < fmt.lo or codes.max() > fmt.hi:
        worst = codes.min() if codes.min() < fmt.lo else codes.max()
        raise RindleError(f"{where} holds the code {worst}, outside the range {fmt.lo}..{fmt.hi} of {fmt}")
