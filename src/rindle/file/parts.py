"""A file of several models, its parts: their documents and tensors in one, and taken apart again. docs/format.md, "Parts".

A part is a whole document, as it would stand in a file of its own, and its tensors have its name before theirs.
"""

from __future__ import annotations

import hashlib

import numpy as np

from ..errors import RindleError
from . import limits
from .fields import Fields, is_name, short
from .needs import Version

FEATURE = "parts"

Whole = tuple[dict, dict[str, np.ndarray]]  # a document and its tensors


def is_of_parts(document: dict) -> bool:
    """Whether a document says that it holds parts; nothing of it has been checked yet."""
    needs = document.get("needs")
    return document.get("version") == 4 and isinstance(needs, list) and FEATURE in needs


def join(parts: dict[str, Whole]) -> Whole:
    """The document and tensors of a file. parts: by name, in order, each with its id in its document.

    Raises RindleError for a name that cannot stand in a file, and for a number of parts that is not 2..64.
    """
    if not 2 <= len(parts) <= limits.PARTS:
        raise RindleError(
            f"a file has 2..{limits.PARTS} parts, not {len(parts)}; a single model is saved as itself: rindle.save(model, path)"
        )
    tensors = {}
    for name, (_, own) in parts.items():
        check_name(name, "a part")
        for tensor, values in own.items():
            if not is_name(f"{name}/{tensor}"):
                raise RindleError(
                    f"the tensor {short(tensor)} of the part {name!r} has too long a name; a part's name, a slash and a "
                    f"tensor's have at most 256 bytes together"
                )
            tensors[f"{name}/{tensor}"] = values
    document = {
        "version": 4,
        "needs": [FEATURE],
        "id": identity({name: whole["id"] for name, (whole, _) in parts.items()}),
        "parts": [{"name": name, "document": whole} for name, (whole, _) in parts.items()],
    }
    return document, tensors


def split(document: dict, tensors: dict[str, np.ndarray], newest: int) -> dict[str, Whole]:
    """Name -> the document and tensors of each part, in order; what a part holds is not checked. newest: format version.

    Raises RindleError, which names the field, for anything that docs/format.md forbids of the file around them.
    """
    top = Fields(document, "document")
    version = Version.read(top, newest)
    if version.needs != (FEATURE,):
        raise RindleError(
            f"document.needs is {list(version.needs)}; a file of parts needs {FEATURE!r} alone, and each part has its own"
        )
    identifier, entries = top.take("id", str), top.take("parts", list)
    top.done()
    if not 2 <= len(entries) <= limits.PARTS:
        raise RindleError(f"parts has {len(entries)} entries; a file of parts has 2..{limits.PARTS}")
    found: dict[str, Whole] = {}
    for index, value in enumerate(entries):
        entry = Fields(value, f"parts[{index}]")
        name = entry.take("name", str)
        check_name(name, f"{entry.where}.name")
        if name in found:
            raise RindleError(f"{entry.where}.name is {name!r}, which is taken")
        found[name] = entry.take("document", dict), {}
        entry.done()
    for tensor, values in tensors.items():
        name, slash, own = tensor.partition("/")
        if not is_name(tensor) or not slash or name not in found:
            raise RindleError(f"the tensor {short(tensor)} has no part's name and a slash before its own")
        found[name][1][own] = values
    if identifier != identity({name: part.get("id") for name, (part, _) in found.items()}):
        raise RindleError("id does not match the parts: the file was edited; save the parts again")
    return found


def identity(ids: dict[str, object]) -> str:
    """SHA-256 of the parts' names and ids, in order."""
    digest = hashlib.sha256()
    for name, one in ids.items():
        digest.update(f"{name}\0{one}\0".encode())
    return digest.hexdigest()


def check_name(name: object, where: str) -> None:
    if not isinstance(name, str) or not is_name(name) or "/" in name:
        raise RindleError(f"{where} is {short(name)}; a part's name has 1..256 bytes of UTF-8 and no slash")
