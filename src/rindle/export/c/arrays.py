"""What the exported C declares: constant arrays, and structs of the state, with the bytes that they take."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from ...numbers.formats import pack

WIDTHS = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4, "uint32_t": 4, "int64_t": 8}
PLANES = (4, 2, 1)  # bits: the digits of a width below 8
RESERVED = frozenset(
    # C99's keywords, what stdint.h and stddef.h may define, and the names that the text round the arrays uses
    """auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while NULL ptrdiff_t
    size_t wchar_t offsetof main asm typeof linux unix
    state work values out k row lane line column group""".split()
)


class Names:
    """Unique C identifiers for names of any letters. own: what all of them begin with."""

    def __init__(self, own: str = ""):
        self._own, self._taken = own, set(RESERVED)

    def take(self, text: str) -> str:
        word = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")[:40] or "n"
        word = f"n{word}" if word[0].isdigit() or word.lower().startswith("rindle") else word
        word = self._own + word
        name, number = word, 2
        while name in self._taken:
            name, number = f"{word}_{number}", number + 1
        self._taken.add(name)
        return name


def comment(text: str) -> str:
    """A name, which may hold anything, as it can stand in a comment."""
    return re.sub(r"[^\w .,/+=()·-]", "?", text, flags=re.ASCII).replace("*/", "?").replace("/*", "?")


def smallest(values: np.ndarray) -> str:
    """The narrowest signed type that holds all."""
    lo, hi = int(values.min()), int(values.max())
    return next(f"int{bits}_t" for bits in (8, 16, 32, 64) if -(2 ** (bits - 1)) < lo and hi < 2 ** (bits - 1))


class Constants:
    """The ``static const`` arrays of a model. Equal ones are one.

    sizes: what they hold -> bytes, of flash.
    """

    def __init__(self, names: Names):
        self._names = names
        self._known: dict[tuple, str] = {}
        self.text: list[str] = []
        self.sizes: dict[str, int] = {}

    def add(self, name: str, values: np.ndarray, ctype: str, kind: str) -> str:
        """The array's name. values: flat integers that fit ctype."""
        flat = np.asarray(values).reshape(-1)
        key = ctype, flat.astype(np.int64).tobytes()
        if key not in self._known:
            self._known[key] = self._names.take(name)
            self.text.append(array_text(f"static const {ctype} {self._known[key]}[{len(flat)}]", flat, ctype))
            self.sizes[kind] = self.sizes.get(kind, 0) + len(flat) * WIDTHS[ctype]
        return self._known[key]

    def codes(self, name: str, codes: np.ndarray, bits: int, kind: str) -> str:
        """Codes [rows, columns] at their width: 9 to 16 bits as int16, 8 as int8, fewer as the file packs them, but as
        w + 2^(bits-1).
        """
        if bits >= 8:
            return self.add(name, codes, "int8_t" if bits == 8 else "int16_t", kind)
        return self.add(name, pack(np.asarray(codes) + 2 ** (bits - 1), bits), "uint8_t", kind)

    def geometry(self, name: str, conv, channels: int) -> str:
        """A ``rindle_conv``. channels: of a group."""
        numbers = (channels, *conv.image, *conv.kernel, *conv.stride, *conv.dilation, *conv.padding)
        key = "rindle_conv", numbers
        if key not in self._known:
            self._known[key] = self._names.take(name)
            self.text.append(f"static const rindle_conv {self._known[key]} = {{{', '.join(map(str, numbers))}}};")
            self.sizes["geometry"] = self.sizes.get("geometry", 0) + 4 * len(numbers)
        return self._known[key]


def words(columns: int, bits: int) -> int:
    """Of 32 bits, of a row of ``planes``."""
    return sum(-(-columns * (bits & width) // 32) for width in PLANES)


def planes(q: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned codes [rows, columns] of fewer than 8 bits as uint32 [rows, words], in the layout that products.c explains."""
    left, parts = np.asarray(q, np.int64), []
    for width in (width for width in PLANES if bits & width):
        part, left = left & (2**width - 1), left >> width
        part = np.pad(part, ((0, 0), (0, -part.shape[1] % (32 // width))))
        pairs = part.reshape(len(part), -1, 16 // width, 2)
        parts.append((pairs << (width * np.arange(16 // width)[:, None] + np.array([0, 16]))).sum((2, 3)))
    return np.concatenate(parts, 1).astype(np.uint32)


def array_text(head: str, flat: np.ndarray, ctype: str) -> str:
    form = {"int64_t": "INT64_C({})", "uint32_t": "0x{:08x}u"}.get(ctype, "{}")
    numbers = [form.format(v) for v in flat.tolist()]
    per_line = {"int64_t": 4, "uint32_t": 10}.get(ctype, 20)
    lines = [", ".join(numbers[i : i + per_line]) for i in range(0, len(numbers), per_line)]
    return f"{head} = {{\n    " + ",\n    ".join(lines) + "};"


@dataclass
class Struct:
    """A C struct, or the union in one: fields of (type, name, elements), a type being a name or another Struct."""

    name: str
    union: bool = False
    fields: list[tuple] = field(default_factory=list)
    names: Names = field(default_factory=Names)

    def array(self, ctype: str, name: str, elements: int) -> str:
        """A new member's name."""
        unique = self.names.take(name)
        self.fields.append((ctype, unique, elements))
        return unique

    def codes(self, name: str, elements: int) -> str:
        """The same of int16_t, at the address of a word: SIMD forms read two at once."""
        both = Struct("", union=True)
        both.array("uint32_t", "words", (elements + 1) // 2)
        inner = both.array("int16_t", "codes", elements)
        unique = self.names.take(name)
        self.nest(both, unique)
        return f"{unique}.{inner}"

    def nest(self, inner: Struct, name: str) -> None:
        """Unless it is empty, which C does not allow."""
        if inner.fields:
            self.fields.append((inner, name, 1))

    @property
    def ordered(self) -> list[tuple]:
        """The widest first, so that no padding stands between them."""
        return sorted(self.fields, key=lambda one: -_alignment(one[0]))

    @property
    def alignment(self) -> int:
        return max(_alignment(ctype) for ctype, _, _ in self.fields)

    @property
    def size(self) -> int:
        """sizeof, where every integer is aligned to its own size."""
        if not self.fields:
            return 0
        at = 0
        for ctype, _, elements in self.ordered:
            size = ctype.size if isinstance(ctype, Struct) else WIDTHS[ctype] * elements
            at = max(at, size) if self.union else -(-at // _alignment(ctype)) * _alignment(ctype) + size
        return -(-at // self.alignment) * self.alignment

    def members(self) -> list[str]:
        lines = []
        for ctype, name, elements in self.ordered:
            if not isinstance(ctype, Struct):
                lines.append(f"{ctype} {name}[{elements}];")
            elif ctype.union:
                lines += ["union {", *(f"    {line}" for line in ctype.members()), f"}} {name};"]
            else:
                lines.append(f"{ctype.name} {name};")
        return lines

    def typedef(self) -> str:
        return "\n".join(["typedef struct {", *(f"    {line}" for line in self.members()), f"}} {self.name};"])


def _alignment(ctype) -> int:
    return ctype.alignment if isinstance(ctype, Struct) else WIDTHS[ctype]
