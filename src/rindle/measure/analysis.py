"""Where a model loses accuracy: per path the range in use, what saturates, and the noise against the float program.

The integers and the real values go through the same program side by side (``codes.Codes``, ``floats.Real``), and are
compared path by path. Without the original weights, the float side has the file's own, dequantized: then the noise is that
of rounding, saturation and thresholds. With them it includes what quantizing the weights costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..engines.real import Blocks, Floats, Real, parameters, with_real_embeddings
from ..file.artifact import Artifact
from ..file.dataset import Dataset
from ..numbers.codes import Codes, NumPy
from ..numbers.formats import Format, decode, encode_input
from ..program.graph import execute
from ..program.nodes import INPUT, ProgramNode
from ..program.program import ARITY

POSITIONS = 8
FEW = 20_000  # frames that are enough for a look
CHUNK = 32 * 2**20  # values kept at a time


@dataclass(frozen=True)
class PathReport:
    """One path over all real frames.

    kind: the operation that makes it, "input" for the model's. elements: values seen. largest: of |code|. used: its share
    of what the format reaches. saturated: values that were clipped (numerics, section 8), None where nothing can be.
    sqnr: signal-to-quantization-noise ratio in dB; infinite without noise, -infinite without signal. growth: the same
    at ``Analysis.positions``, None where the path has one value per row. noise: root mean square of the difference at
    these positions, in value units.
    """

    node: str
    path: str
    kind: str
    format: Format
    elements: int
    largest: int
    used: float
    saturated: int | None
    sqnr: float
    growth: tuple[float, ...] | None
    noise: tuple[float, ...] | None

    @property
    def name(self) -> str:
        return self.path if self.node == INPUT else f"{self.node}/{self.path}"

    @property
    def saturation_rate(self) -> float:
        return (self.saturated or 0) / self.elements


@dataclass(frozen=True)
class Analysis:
    """paths: in the order in which they are computed. positions: shares of a row's length, 0 its first frame and 1 its last;
    a layer that runs backwards counts from where it starts. weights: "dequantized" or "original".
    """

    weights: str
    rows: int
    frames: int
    positions: tuple[float, ...]
    paths: tuple[PathReport, ...]


@dataclass
class _Sums:
    """Of one path so far. signal, noise: Σ v², Σ (v − code·scale)², whole and at each position."""

    elements: int = 0
    largest: int = 0
    saturated: int = 0
    signal: float = 0.0
    noise: float = 0.0
    signals: np.ndarray = field(default_factory=lambda: np.zeros(POSITIONS))
    noises: np.ndarray = field(default_factory=lambda: np.zeros(POSITIONS))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(POSITIONS, np.int64))


class _Doubles(NumPy):
    """Codes in float64 arrays, which BLAS multiplies fast; exact, since everything stays below 2^52 (numerics, section 3)."""

    @staticmethod
    def array(values):
        return np.asarray(values, np.float64)

    @staticmethod
    def zeros(rows, columns):
        return np.zeros((rows, columns))

    @staticmethod
    def floor_shift(v, s):
        return np.floor(v * 2.0**-s)

    @staticmethod
    def take(table, k):
        return table[k.astype(np.int64)]

    @staticmethod
    def mean(total, count):
        return np.floor((2 * total + count) / (2 * count))


class _CountingCodes(Codes):
    """Codes that count saturations of every path, where the core counts those of an operation."""

    def __init__(self, layer, xp):
        super().__init__(layer, xp)
        self.clipped: dict[str, int] = dict.fromkeys((out for op in layer.program.ops for out in op.out), 0)

    def saturate(self, op, path, v):
        fmt = self._format(path)
        self.clipped[path] += self.xp.count((v < fmt.lo) | (v > fmt.hi))
        return super().saturate(op, path, v)


class _Recorded:
    """Any numerics, which keeps what every operation gave: path -> a list of frames [rows, n]. Of a held code: v̂."""

    def __init__(self, inner):
        self.inner, self.values, self.frames, self.vectors = inner, defaultdict(list), 0, inner.vectors

    def __getattr__(self, name: str):
        found = getattr(self.inner, name)
        if name not in ARITY:
            return found

        def record(op, *args):
            results = found(op, *args)
            for path, value in zip(op.out, results if op.kind == "affine" else (results,)):
                self.values[path].append(value)
            return results

        return record

    def hold(self, code, v, held):
        self.values[code][-1] = kept = self.inner.hold(code, v, held)
        return kept


def analyse(
    artifact: Artifact,
    data: Dataset,
    original: dict[str, Blocks] | None = None,
    seen: Callable[[int], None] | None = None,
) -> Analysis:
    """Runs data through the artifact and its float twin.

    original: node -> block -> float64, the float model's parameters (``nn.source.float_parameters``); else the file's own,
    dequantized. seen(rows): called as rows are done. Raises RindleError where data or parameters do not fit the model.
    """
    data.check_fits(artifact.graph)
    blocks = parameters(artifact, original)
    sums: dict[tuple[str, str], _Sums] = defaultdict(_Sums)
    width = sum(sum(node.layer.program.sizes.values()) for node in artifact.graph.programs)
    rows = max(1, CHUNK // (2 * width * data.x.shape[1]))
    for start in range(0, len(data), rows):
        chunk = data.rows(slice(start, start + rows))
        _add(artifact, blocks, chunk, sums)
        if seen:
            seen(len(chunk))
    reports = []
    if artifact.input_format is not None:  # ids are exact
        reports.append(_report(INPUT, INPUT, "input", artifact.input_format, sums[INPUT, INPUT], True))
    for node in artifact.graph.programs:
        layer, sequence = node.layer, artifact.graph.is_sequence(node.name)
        for op in layer.program.ops:
            for path in op.out:
                one = sums[node.name, path]
                reports.append(_report(node.name, path, op.kind, layer.formats[path], one, sequence))
    positions = tuple(float(p) for p in np.linspace(0, 1, POSITIONS))
    weights = "dequantized" if original is None else "original"
    return Analysis(weights, len(data), data.frames, positions, tuple(reports))


def few(data: Dataset) -> Dataset:
    """Rows, evenly spread, of at most FEW frames together (or one): the analysis runs in NumPy."""
    count = max(1, min(len(data), int(FEW * len(data) / data.frames)))
    return data.rows(np.unique(np.linspace(0, len(data) - 1, count).astype(int)))


def over_time(artifact: Artifact, found: Analysis) -> tuple[PathReport, ...]:
    """Of an analysis, what says how errors grow along a sequence: each state, each recurrent layer's output, and the model's."""
    kept = {(node.name, path) for node in artifact.graph.recurrent for _, path in node.layer.program.states}
    kept |= {(node.name, node.layer.program.output) for node in artifact.graph.recurrent}
    name = artifact.graph.output
    while name != INPUT:
        node = artifact.graph.node(name)
        if isinstance(node, ProgramNode):
            kept.add((name, node.layer.program.output))
            break
        name = node.sources[0]
    return tuple(one for one in found.paths if (one.node, one.path) in kept)


def _add(artifact: Artifact, blocks: dict[str, Blocks], data: Dataset, sums: dict) -> None:
    order = np.argsort(-data.lengths, kind="stable")
    lengths = data.lengths[order]
    real = codes = [data.x[order[lengths > t], t] for t in range(int(lengths[0]))]
    if not data.has_ids:
        real = [frame.astype(np.float64) for frame in real]
        coded = [encode_input(frame, artifact.input_format) for frame in codes]
        codes = [_Doubles.array(found) for found, _ in coded]
        sums[INPUT, INPUT].saturated += sum(outside for _, outside in coded)
        _compare(sums[INPUT, INPUT], codes, real, artifact.input_format, lengths)
    numerics = {node.name: _Recorded(_CountingCodes(node.layer, _Doubles)) for node in artifact.graph.programs}
    execute(artifact.graph, numerics, _Doubles, codes, lambda name, v: decode(v, artifact.format_of(name)))
    twins = {node.name: _Recorded(Real(node.layer, blocks[node.name])) for node in artifact.graph.programs}
    execute(with_real_embeddings(artifact), twins, Floats, real, lambda _, v: v)
    for node in artifact.graph.programs:
        found, wanted = numerics[node.name], twins[node.name].values
        sequence = artifact.graph.is_sequence(node.name)
        ends = [artifact.graph.frames(node.name, int(n)) for n in lengths] if sequence else np.ones_like(lengths)
        for path, frames in found.values.items():
            one = sums[node.name, path]
            one.saturated += found.inner.clipped[path]
            _compare(one, frames, wanted[path], node.layer.formats[path], np.asarray(ends))


def _compare(sums: _Sums, codes: list, values: list, fmt: Format, lengths: np.ndarray) -> None:
    """codes, values: a list of frames [rows still running, n]; one frame of all rows where there is no time."""
    at = np.round(np.linspace(0, 1, POSITIONS)[:, None] * (lengths - 1)).astype(int)  # [positions, rows]: their frames
    for t, (code, value) in enumerate(zip(codes, values)):
        noise = ((value - code * fmt.scale) ** 2).sum(1)
        signal = (value**2).sum(1)
        sums.elements += code.size
        sums.largest = max(sums.largest, int(np.abs(code).max()))
        sums.signal += float(signal.sum())
        sums.noise += float(noise.sum())
        here = at[:, : len(code)] == t
        sums.signals += here @ signal
        sums.noises += here @ noise
        sums.counts += here.sum(1) * code.shape[1]


def _report(node: str, path: str, kind: str, fmt: Format, sums: _Sums, sequence: bool) -> PathReport:
    growth = noise = None
    if sequence:
        growth = tuple(decibel(s, n) for s, n in zip(sums.signals, sums.noises))
        noise = tuple(np.sqrt(sums.noises / np.maximum(sums.counts, 1)).tolist())
    return PathReport(
        node,
        path,
        kind,
        fmt,
        sums.elements,
        sums.largest,
        sums.largest / max(-fmt.lo, fmt.hi),
        None if kind in ("clip", "table") else sums.saturated,
        decibel(sums.signal, sums.noise),
        growth,
        noise,
    )


def decibel(signal: float, noise: float) -> float:
    """10·log10(signal/noise); infinite without noise, -infinite without signal but noise."""
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 else float("-inf")
