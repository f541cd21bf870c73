"""What a model costs in time, and what bounds it. torch's side comes as a value from outside: this file needs no torch.

A step has three parts, which are measured and not assumed, each by its best slice, so that they can be subtracted:

- *call*: what a model of one unit costs per step: Python and the entry into the core.
- *element-wise*: the same model while nothing changes, all thresholds at their largest: no product has anything to add,
  so what is left, less the call, is rounding, tables, states, and the look at what changed.
- *products*: the rest. Two floors stand below it: the weight bytes over the speed at which a buffer of their size can be
  read, and the multiply-accumulates over the speed of our own kernel where the weights sit in the nearest cache.
"""

from __future__ import annotations

import os
import platform
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle, islice

import numpy as np

from ..cells import linear
from ..engines.golden import with_golden
from ..engines.model import Model
from ..errors import DISTRIBUTION, RindleError
from ..file.artifact import Artifact, Golden, Layer
from ..numbers.codes import Affine, Product, Rescale
from ..numbers.formats import fixed, integer
from ..program.graph import Graph
from ..program.nodes import INPUT, ProgramNode
from ..program.products import terms_of
from .timing import Contender, in_turns, one_core, read_loops

OURS, DENSE = "rindle", "rindle, all products"
FRAMES = 256  # inputs that the timed steps walk through, over and over


@dataclass(frozen=True)
class Row:
    """One contender's time: µs per frame (of one sequence), median and best slice."""

    kind: str
    form: str
    median: float
    best: float


@dataclass(frozen=True)
class Race:
    """Contenders that were timed in turns. batch rows of ``frames`` frames a call; 1 and 1: a step of a stream."""

    batch: int
    frames: int
    rows: tuple[Row, ...]

    def best(self, kind: str) -> Row | None:
        """The fastest form of a kind, by its median."""
        return min((row for row in self.rows if row.kind == kind), key=lambda row: row.median, default=None)

    def speedup(self, kind: str) -> float | None:
        """How many times faster ours is than the fastest form of a kind."""
        ours, other = self.best(OURS), self.best(kind)
        return other.median / ours.median if ours and other else None


@dataclass(frozen=True)
class Bound:
    """Where the time of a step goes, µs, best slices of one run. mac_gs is None where the noise hides it.

    bytes, macs: of all weights, and of those that the changed inputs asked for while the step was timed.
    read_gbs: speed of reading a buffer of ``bytes``; mac_gs: of our kernel from the nearest cache, 10⁹ per second.
    """

    step: float
    call: float
    elementwise: float
    products: float
    bytes: int
    macs: int
    bytes_asked: float
    macs_asked: float
    read_gbs: float
    mac_gs: float | None

    @property
    def bytes_floor(self) -> float:
        """µs to read the weight bytes that were asked for."""
        return self.bytes_asked / self.read_gbs / 1e3

    @property
    def macs_floor(self) -> float | None:
        """µs to multiply what was asked for."""
        return self.macs_asked / self.mac_gs / 1e3 if self.mac_gs else None

    @property
    def by(self) -> str:
        """What most of a step is: "overhead", "element-wise", and of products "bytes" or "operations"."""
        largest = max(
            ("overhead", self.call), ("element-wise", self.elementwise), ("products", self.products), key=_second
        )
        if largest[0] != "products":
            return largest[0]
        return "operations" if (self.macs_floor or 0) > self.bytes_floor else "bytes"


def _second(pair):
    return pair[1]


@dataclass(frozen=True)
class Bench:
    """A benchmark of one model. races: steps, then sequences. missing: what could not be compared, and why."""

    model: str
    kernel: str
    inputs: str
    density: dict[str, float]
    step: Race | None
    sequences: tuple[Race, ...]
    bound: Bound | None
    deviation: dict[str, float]
    missing: str | None
    machine: dict

    def document(self) -> dict:
        """Plain data for JSON: the fields, and what follows from them."""
        races = [race for race in (self.step, *self.sequences) if race]
        others = list(dict.fromkeys(row.kind for race in races for row in race.rows if row.kind != OURS))
        made = asdict(self)
        for race, plain in zip(races, [p for p in (made["step"], *made["sequences"]) if p]):
            plain["speedup"] = {kind: race.speedup(kind) for kind in others}
        if self.bound:
            for name in ("bytes_floor", "macs_floor", "by"):
                made["bound"][name] = getattr(self.bound, name)
        return made


def bench(
    model: Model,
    rivals=None,
    inputs: np.ndarray | None = None,
    source: str = "noise",
    frames: int = 200,
    batch: int = 16,
    sequences: bool = True,
    slices: int = 41,
    seconds: float = 5e-4,
    missing: str | None = None,
) -> Bench:
    """Times a model against its rivals, all in turns, on one core.

    rivals: ``nn.rivals.Rivals`` or None. inputs: float32 [N, I], real frames in their order, which ``source`` names;
    None: noise in which every element changes at every frame, so that thresholds gain nothing. frames, batch: of the
    sequences; batch 1 is timed, and ``batch`` beside it, if ``sequences``. slices, seconds: see ``timing.in_turns``. missing: why there are no
    rivals.
    """
    if model.vocabulary:
        raise RindleError("the model reads ids; only models of float frames are timed so far")
    if inputs is None:
        inputs, source = noise(model, max(FRAMES, frames)), "noise"
    if inputs.ndim != 2 or inputs.dtype != np.float32 or inputs.shape[1] != model.input_size or not len(inputs):
        raise RindleError(
            f"the frames to time on are {inputs.dtype} {list(inputs.shape)}; give float32 [N, {model.input_size}]"
        )
    for name, value in (("frames", frames), ("batch", batch), ("slices", slices)):
        if value < 1:
            raise RindleError(f"{name} is {value}; give at least 1")
    dense = _dense(model)
    with one_core() as core, rivals.environment() if rivals else nullcontext():
        step, bound, density = None, None, {}
        if model.artifact.graph.whole_sequence is None:
            step, bound, density = _steps(model, dense, rivals, inputs, slices, seconds)
        races = []
        for rows in dict.fromkeys((1, batch) if sequences else ()):
            x = np.ascontiguousarray(np.resize(inputs, (rows * frames, model.input_size)).reshape(rows, frames, -1))
            contenders = [_running(model, x), *(rivals.sequences(x) if rivals else ())]
            if dense:
                contenders.insert(1, _running(dense, x, DENSE))
            races.append(_race(contenders, rows, frames, slices, seconds))
    return Bench(
        model.id,
        model.kernel,
        source,
        density,
        step,
        tuple(races),
        bound,
        deviation(model, rivals, inputs[: min(len(inputs), 50)]) if rivals else {},
        missing,
        machine(core) | ({"torch": rivals.version} if rivals else {}),
    )


def noise(model: Model, frames: int) -> np.ndarray:
    """float32 [frames, I]: normal noise whose 3σ are the range of the input's narrowest code, so that it hardly saturates."""
    artifact = model.artifact
    reach = artifact.input_format.hi * artifact.input_format.scale
    for one in terms_of(artifact.graph):
        if (INPUT, one.term.source) in zip(one.node.sources, one.node.layer.program.inputs):
            reach = min(reach, one.code_format.hi * one.code_format.scale)
    reach /= 3
    return (reach * np.random.default_rng(0).standard_normal((frames, model.input_size))).astype(np.float32)


def deviation(model: Model, rivals, frames: np.ndarray) -> dict[str, float]:
    """Largest difference of each torch form's outputs from ours, on frames [T, I]: that it computes the same function.

    The float forms have our quantized weights, so what is left is the rounding of activations.
    """
    ours = model.run(frames[None])
    found = {}
    for (kind, name), y in rivals.outputs(frames[None]).items():
        y = y if y.shape == ours.shape else y[:, -1]
        found[f"{kind}: {name}"] = float(np.abs(y - ours).max())
    return found


def machine(core: int | None = None) -> dict:
    """Where and when: for the record."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "pinned to": core,
        "threads": 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rindle": version(DISTRIBUTION),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# ---------------------------------------------------------------------------------------------- what is timed


def _race(contenders: list[Contender], batch: int, frames: int, slices: int, seconds: float) -> Race:
    timings = in_turns(contenders, slices, seconds)
    per = batch * frames
    rows = (Row(one.kind, one.name, t.median / per, t.best / per) for one, t in zip(contenders, timings))
    return Race(batch, frames, tuple(rows))


def _stepping(model: Model, inputs: np.ndarray, name: str = "stream", stream=None, kind: str = OURS) -> Contender:
    stream = model.stream() if stream is None else stream
    step, frames = stream.step, cycle([np.ascontiguousarray(frame) for frame in inputs])
    out = np.empty(model.output_size, np.float32)

    def loop(n: int) -> None:
        for x in islice(frames, n):
            step(x, out)

    return Contender(kind, name, loop)


def _running(model: Model, x: np.ndarray, kind: str = OURS) -> Contender:
    def loop(n: int) -> None:
        for _ in range(n):
            model.run(x)

    return Contender(kind, "run", loop)


def _dense(model: Model) -> Model | None:
    """A delta model without its thresholds; None where it has none."""
    thresholds = model.thresholds
    return model.with_thresholds(dict.fromkeys(thresholds)) if any(t is not None for t in thresholds.values()) else None


def _steps(model: Model, dense: Model | None, rivals, inputs, slices, seconds) -> tuple[Race, Bound, dict[str, float]]:
    """The race of steps and, in the same turns, what bounds ours."""
    bits = sum(one.bits for one in terms_of(model.artifact.graph))
    stream = model.stream()
    still = model.with_thresholds({name: _largest(model, name) for name in model.thresholds})
    probe = Model(probe_artifact(256, 128), kernel=model.kernel)
    quiet = probe.with_thresholds({name: _largest(probe, name) for name in probe.thresholds})
    one = Model(probe_artifact(1, 1), kernel=model.kernel)
    codes = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    reads = read_loops(bits // 8)
    extra = [
        _stepping(still, np.zeros((1, model.input_size), np.float32), "still"),
        _stepping(one, np.zeros((1, 1), np.float32), "one unit"),
        _stepping(probe, codes, "probe"),
        _stepping(quiet, codes * 0, "quiet probe"),
        *reads,
    ]
    contenders = [_stepping(model, inputs, "stream", stream), *(rivals.steps(inputs) if rivals else ())]
    if dense:
        contenders.insert(1, _stepping(dense, inputs, kind=DENSE))
    race = _race([*contenders, *extra], 1, 1, slices, seconds)
    rows, (at_rest, call, busy, idle, *read) = race.rows[: len(contenders)], race.rows[len(contenders) :]
    race = Race(1, 1, rows)

    asked_macs, asked_bits, density = _asked(model, stream)
    macs = sum(one.macs for one in terms_of(model.artifact.graph))
    step = race.rows[0].best
    overhead = min(call.best, step)
    elementwise = max(min(at_rest.best, step) - overhead, 0.0)
    bound = Bound(
        step=step,
        call=overhead,
        elementwise=elementwise,
        products=step - overhead - elementwise,
        bytes=bits // 8,
        macs=macs,
        bytes_asked=asked_bits / 8,
        macs_asked=asked_macs,
        read_gbs=bits / 8 / min(row.best for row in read) / 1e3,
        mac_gs=256 * 128 / (busy.best - idle.best) / 1e3 if busy.best > idle.best else None,
    )
    return race, bound, density


def _asked(model: Model, stream) -> tuple[float, float, dict[str, float]]:
    """Per frame of what a stream has seen: multiply-accumulates, weight bits, and the density of every input."""
    changes = model._counts(stream._core)[1]
    shares, density = {}, {}
    for name, (node, code) in model.artifact.held_codes().items():
        changed, frames = changes.get((node, code), (1, 0))
        size = model.artifact.graph.program(node).layer.program.sizes[code]
        shares[node, code] = density[name] = changed / (size * frames) if frames else 1.0
    asked = [(shares[one.node.name, one.term.code], one) for one in terms_of(model.artifact.graph)]
    return sum(share * one.macs for share, one in asked), sum(share * one.bits for share, one in asked), density


def _largest(model: Model, name: str) -> int:
    """The largest θ that an input can have."""
    node, code = model.artifact.held_codes()[name]
    return model.artifact.graph.program(node).layer.formats[code].hi - 1


def probe_artifact(rows: int, columns: int) -> Artifact:
    """A Linear of int8 weights, made by hand: y = W x, with W's codes at random."""
    program = linear.program.with_sizes(I=columns, O=rows)
    weight = np.random.default_rng(0).integers(-127, 128, (rows, columns))
    value, code = fixed(16, 12), integer(8, 2.0**-5)
    affine = Affine((Product(weight, integer(8, 2.0**-12), np.full(rows, 1)),), np.zeros(rows, np.int64), 5)
    (name,) = program.codes
    layer = Layer(
        program,
        {program.inputs[0]: value, name: code, program.output: value},
        {name: Rescale(1, 7), program.output: affine},
        {},
    )
    graph = Graph(columns, (ProgramNode("probe", (INPUT,), layer),), "probe")
    bare = Artifact(graph, value, Golden(None, None, None))
    return with_golden(bare, np.zeros((1, 1, columns), np.int64), np.ones(1, np.int64))
