"""The .rindle file: a safetensors container round one JSON document. Bytes <-> :class:`~rindle.file.artifact.Artifact`."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ..errors import RindleError
from . import limits
from .artifact import VERSION, Artifact
from .document import describe, from_document, to_document
from .parts import identity, is_of_parts, join, split

DTYPES = ("U8", "I16", "I32", "I64", "F32")


def dumps(artifact: Artifact) -> bytes:
    """The file's bytes; the same artifact always gives the same."""
    return _close(*_whole(artifact))


def dumps_parts(parts: dict[str, Artifact]) -> bytes:
    """The bytes of a file of several models. parts: by name, in order; RindleError for a name that cannot stand in a file."""
    return _close(*join({name: _whole(artifact) for name, artifact in parts.items()}))


def loads(data: bytes, name: str = "the file") -> Artifact:
    """Reads and validates a file of one model. Raises RindleError, which names the field, for anything that docs/format.md
    forbids, and for a file of parts, which it names.
    """
    found = loads_all(data, name)
    if isinstance(found, dict):
        raise RindleError(
            f"{name} has several models, the parts {', '.join(found)}; where one is wanted, save it alone"
        )
    return found


def loads_all(data: bytes, name: str = "the file") -> Artifact | dict[str, Artifact]:
    """As :func:`loads`; of a file of several models its parts, by name and in order."""
    try:
        document, tensors = _open(data)
        if not is_of_parts(document):
            return _read(document, tensors)
        return {part: _read_part(part, *whole) for part, whole in split(document, tensors, VERSION).items()}
    except RindleError as error:
        raise RindleError(f"{name} is not a valid .rindle file: {error}") from None


def _read(document: dict, tensors: dict[str, np.ndarray]) -> Artifact:
    found = document.get("version")
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= VERSION:
        remedy = "; update rindle to read it" if isinstance(found, int) and found > VERSION else ""
        raise RindleError(f"version is {found!r}; this rindle reads the versions 1 to {VERSION}{remedy}")
    artifact = from_document(document, tensors)
    if document["id"] != _identity(document, tensors):
        raise RindleError("id does not match the contents: the file was edited; convert the model again")
    return artifact


def _read_part(name: str, document: dict, tensors: dict[str, np.ndarray]) -> Artifact:
    try:
        return _read(document, tensors)
    except RindleError as error:
        raise RindleError(f"part {name!r}: {error}") from None


def _whole(artifact: Artifact) -> tuple[dict, dict[str, np.ndarray]]:
    """The document, id included, and the tensors."""
    document, tensors = to_document(artifact)
    return document | {"id": _identity(document, tensors)}, tensors


def _close(document: dict, tensors: dict[str, np.ndarray]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return safetensors.numpy.save(tensors, {"rindle": text})


def model_id(artifact: Artifact) -> str:
    """64 hex digits over all that the model computes; a saved stream state carries it."""
    return _identity(*describe(artifact))


def parts_id(ids: dict[str, str]) -> str:
    """64 hex digits over all that a file's parts compute. ids: theirs, by name and in order."""
    return identity(dict(ids))


def _identity(document: dict, tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 of what the model computes: everything but the golden vector and the provenance. docs/format.md."""
    described = {key: value for key, value in document.items() if key not in ("id", "golden", "provenance")}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(set(tensors) - set(document.get("golden", {}).values())):
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def _open(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """Header, document and tensors of a safetensors file, its own rules checked by the safetensors library."""
    try:
        length = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else 0
        if not 0 < length <= len(data) - 8:
            raise RindleError(
                f"its {len(data)} bytes end inside the header, which says {length}: it is truncated, or not safetensors"
            )
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_unique)
        metadata = header.pop("__metadata__", {})
        if set(metadata) != {"rindle"}:
            raise RindleError(f'the safetensors metadata has the keys {sorted(metadata)}; it must have "rindle" alone')
        for name, entry in header.items():
            if entry["dtype"] not in DTYPES:
                raise RindleError(f"the tensor {name!r} has dtype {entry['dtype']}; only {', '.join(DTYPES)} occur")
            if entry["data_offsets"][1] > len(data) - 8 - length:
                raise RindleError(f"its {len(data)} bytes end before those of the tensor {name!r}: it is truncated")
        tensors = safetensors.numpy.load(data)
        check_depth(metadata["rindle"])
        document = json.loads(metadata["rindle"], object_pairs_hook=_unique, parse_float=_number, parse_int=_number)
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except RindleError:
        raise
    except (SafetensorError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise RindleError(f"{type(error).__name__}: {error}") from None
    if not isinstance(document, dict):
        raise RindleError("the rindle document is not a JSON object")
    return document, tensors


def check_depth(text: str, limit: int = limits.DEPTH) -> None:
    """Raises if brackets nest deeper than limit, before a recursive parser meets them."""
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > limit:
            raise RindleError(f"the document nests deeper than {limit} levels")


def _unique(pairs: list) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise RindleError(f"a key stands twice in one JSON object: {', '.join(sorted(key for key, _ in pairs))}")
    return result


def _number(text: str) -> int | float:
    value = float(text)
    if math.isinf(value) or (value == 0 and re.search("[1-9]", text.lower().split("e")[0])):
        raise RindleError(f"the number {text[:40]} is beyond the range of float64")
    return value if re.search("[.eE]", text) else int(text)
