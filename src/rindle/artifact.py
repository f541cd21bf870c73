"""The waist: a converted model as one .rindle file. docs/format.md says what the file holds."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
import tempfile
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from .formats import Format, RindleError
from .graph import Graph
from .program import Program

VERSION = 1
DTYPES = ("U8", "I16", "I32", "I64", "F32")


@dataclass(frozen=True, eq=False)
class Layer:
    """One program node, converted.

    program: with sizes as numbers. formats: path -> Format, codes and vectors included. constants: an operation's first
    result -> Affine, Rescale, Table or clip bounds in codes. vectors: name -> int64 codes [n].
    thetas: held code path -> θ, an int or an int64 array [n].
    """

    program: Program
    formats: dict[str, Format]
    constants: dict[str, object]
    vectors: dict[str, np.ndarray]
    thetas: dict[str, int | np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Golden:
    """inputs: int16 [B, T, I]; lengths: int32 [B]; outputs: int16 [B, T, O] or [B, O]. Codes to codes."""

    inputs: np.ndarray
    lengths: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True, eq=False)
class Artifact:
    """A converted model: all that any backend needs. provenance: free-form, for people."""

    graph: Graph
    input_format: Format
    golden: Golden
    provenance: dict = field(default_factory=dict)

    @property
    def output_format(self) -> Format:
        return self.format_of(self.graph.output)

    @property
    def output_size(self) -> int:
        return self.graph.size_of(self.graph.output)

    def format_of(self, name: str) -> Format:
        """Format of a node's value, or of the input."""
        return self.graph.format_of(name, self.input_format)

    def held_codes(self) -> dict[str, tuple[str, str]]:
        """Every input that can have a threshold: "node/source" -> (node, code path); see ``Model.thresholds``."""
        names = {}
        for node in self.graph.programs:
            sources = {}
            for op in node.layer.program.affines:
                for term in op.terms:
                    sources.setdefault(term.source, {})[term.code] = None
            for source, codes in sources.items():
                for code in codes:
                    name = source if len(codes) == 1 else code
                    names[f"{node.name}/{name}"] = (node.name, code)
        return names

    def with_thresholds(self, thresholds: dict) -> Artifact:
        """A copy whose inputs are held with these θ. "node/source" -> None (dense), an integer, or one per element.

        θ is in code units, 0 <= θ < the code's largest value; 0 gives the integers of the dense model. Inputs that are
        not named keep theirs. The golden vector is computed anew.
        """
        known = self.held_codes()
        thetas = {node.name: dict(node.layer.thetas) for node in self.graph.programs}
        for name, theta in thresholds.items():
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
                raise RindleError(f"no input named {name!r}{hint}")
            node, code = known[name]
            layer = self.graph.node(node).layer
            thetas[node].pop(code, None)
            if theta is not None:
                thetas[node][code] = check_theta(theta, layer.formats[code], layer.program.sizes[code], name)
        nodes = tuple(
            replace(node, layer=replace(node.layer, thetas=ordered(node.layer.program, thetas[node.name])))
            if node.layer
            else node
            for node in self.graph.nodes
        )
        changed = replace(self, graph=replace(self.graph, nodes=nodes))
        return changed.with_golden(self.golden.inputs, self.golden.lengths)

    def with_golden(self, inputs: np.ndarray, lengths: np.ndarray) -> Artifact:
        """A copy whose golden outputs the reference computes from these input codes."""
        from .reference import run

        outputs = run(self, inputs, lengths).codes.astype(np.int16)
        return replace(self, golden=Golden(inputs.astype(np.int16), lengths.astype(np.int32), outputs))

    def to_bytes(self) -> bytes:
        from .document_write import to_document

        document, tensors = to_document(self)
        document["id"] = identity(document, tensors)
        return safetensors.numpy.save(tensors, {"rindle": json.dumps(document, sort_keys=True, separators=(",", ":"))})

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "the file") -> Artifact:
        """Reads and validates. Raises RindleError, which names the field, for anything that docs/format.md forbids."""
        from .document_read import from_document

        try:
            document, tensors = _open(data)
            if document.get("version") != VERSION:
                found = document.get("version")
                newer = isinstance(found, int) and found > VERSION
                remedy = "; update rindle to read it" if newer else ""
                raise RindleError(f"version is {found!r}; this rindle reads version {VERSION}{remedy}")
            artifact = from_document(document, tensors)
            if document["id"] != identity(document, tensors):
                raise RindleError("id does not match the contents: the file was edited; convert the model again")
            return artifact
        except RindleError as error:
            raise RindleError(f"{name} is not a valid .rindle file: {error}") from None

    @property
    def id(self) -> str:
        from .document_write import to_document

        return identity(*to_document(self))


def ordered(program: Program, thetas: dict) -> dict:
    """Held codes in the order in which their requantize operations stand."""
    return {code: thetas[code] for code in program.codes if code in thetas}


def check_theta(theta, fmt: Format, size: int, where: str) -> int | np.ndarray:
    """θ as an int or int64 array [size]; RindleError unless integers in 0..hi-1."""
    values = np.asarray(theta)
    if values.dtype == bool or values.dtype.kind not in "iu":
        if values.dtype.kind != "f" or not np.all(np.isfinite(values)) or np.any(values != np.floor(values)):
            raise RindleError(
                f"{where}: θ is {theta!r}; thresholds are whole numbers in code units (one is {fmt.scale:.4g})"
            )
    if values.shape not in ((), (size,)):
        raise RindleError(
            f"{where}: θ has shape {values.shape}; give one number, or one for each of the {size} elements"
        )
    if np.any(values < 0) or np.any(values >= fmt.hi):
        raise RindleError(
            f"{where}: θ is {theta!r}; it must be 0..{fmt.hi - 1}: codes reach {fmt.hi}, so that a larger one would never fire"
        )
    return int(values) if values.ndim == 0 else values.astype(np.int64)


def identity(document: dict, tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 of what the model computes: everything but the golden vector and the provenance. docs/format.md."""
    described = {key: value for key, value in document.items() if key not in ("id", "golden", "provenance")}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(set(tensors) - set(document["golden"].values())):
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
        document = json.loads(metadata["rindle"], object_pairs_hook=_unique, parse_float=_float64)
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except RindleError:
        raise
    except (SafetensorError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise RindleError(f"{type(error).__name__}: {error}") from None
    if not isinstance(document, dict):
        raise RindleError("the rindle document is not a JSON object")
    return document, tensors


def check_depth(text: str, limit: int = 32) -> None:
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


def _float64(text: str) -> float:
    value = float(text)
    if math.isinf(value) or (value == 0 and re.search("[1-9]", text.lower().split("e")[0])):
        raise RindleError(f"the number {text[:40]} is beyond the range of float64")
    return value


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes beside, then renames: a reader sees the old file or the whole new one."""
    path = Path(path)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
