"""What the tests share: the table of engines, small models, and random programs."""

import importlib
import sys
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import naive
import numpy as np
import torch
from kept import kept

import rindle
from rindle import SCHEMES, Model
from rindle import _core as core
from rindle.engines import reference
from rindle.file.artifact import Artifact
from rindle.file.container import dumps
from rindle.nn import simulate
from rindle.numbers.formats import Format, decode
from rindle.numbers.levels import Levels, integers
from rindle.program.nodes import INPUT

# ------------------------------------------------------------------------------------------------------- engines


@dataclass
class Outcome:
    """output: what x's type asks for, float32 values or int16 codes. saturations, changes: as ``reference.Result``."""

    output: np.ndarray
    saturations: dict
    changes: dict


def _python(run):
    def engine(artifact, x, lengths):
        result = run(artifact, x, lengths)
        output = result.codes
        if not is_float(artifact):
            output = decode(output, artifact.output_format) if x.dtype.kind == "f" else output.astype(np.int16)
        return Outcome(output, result.saturations, result.changes)

    return engine


def is_float(artifact) -> bool:
    """Whether its output is a float node's, which engines compute closely, not equally."""
    return artifact.graph.is_float(artifact.graph.output)


def _runtime(kernel):
    def engine(artifact, x, lengths):
        model = Model(artifact, kernel=kernel)
        stream = core.Stream(model._core)
        frames = (artifact.graph.frames(artifact.graph.output, x.shape[1]),) if model.is_sequence else ()
        coded = x.dtype.kind == "i" and not is_float(artifact)
        if is_float(artifact) and x.dtype == np.int16:
            x = decode(x, artifact.input_format)  # there are no codes of float values
        y = np.full((len(x), *frames, model.output_size), -1, np.int16 if coded else np.float32)
        stream.run(np.ascontiguousarray(x), y, None if lengths is None else np.asarray(lengths, np.int32))
        return Outcome(y, *model._counts(stream))

    return engine


KERNELS = core.kernels()  # of this CPU
ENGINES = {"reference": _python(reference.run), "simulation": _python(simulate.run)}
ENGINES |= {f"runtime, {kernel}": _runtime(kernel) for kernel in KERNELS}


def assert_agree(artifact, x, lengths=None):
    """Every engine gives the same output and the same counters. Returns the reference's."""
    outcomes = {name: engine(artifact, x, lengths) for name, engine in ENGINES.items()}
    wanted = outcomes["reference"]
    for name, found in outcomes.items():
        assert_equal(artifact, found.output, wanted.output, name)
        assert found.saturations == wanted.saturations, name
        assert found.changes == wanted.changes, name
    return wanted


def assert_equal(artifact, found, wanted, name=""):
    """Outputs are equal; of float nodes, as close as docs/format.md asks of a replay."""
    if is_float(artifact):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5, equal_nan=False, err_msg=name)
    else:
        np.testing.assert_array_equal(found, wanted, err_msg=name)


def assert_naive(artifact, x, lengths=None):
    """The reference is the naive reading of the file, row by row."""
    wanted = reference.run(artifact, x, lengths)
    rows = [x.shape[1]] * len(x) if lengths is None else [int(n) for n in lengths]
    outputs, saturations, changes = naive.run(dumps(artifact), x.tolist(), rows)
    for row, output in enumerate(outputs):
        found = wanted.codes[row]
        assert_equal(artifact, found[: len(output)] if found.ndim == 2 else found, np.array(output))
        assert found.ndim == 1 or not found[len(output) :].any()
    assert {**saturations, (INPUT, INPUT): 0} == wanted.saturations
    assert changes == wanted.changes


def random_frames(rng, artifact, *shape) -> np.ndarray:
    """Extreme codes int16 [*shape, I] for the model's input, or ids int32 [*shape]."""
    if artifact.graph.vocabulary:
        return rng.integers(0, artifact.graph.vocabulary, shape, np.int32)
    return extreme_codes(rng, artifact.input_format, (*shape, artifact.graph.input_size))


def extreme_codes(rng, fmt: Format, shape) -> np.ndarray:
    """int16 codes over the whole range, its ends often."""
    uniform = rng.integers(fmt.lo, fmt.hi + 1, shape)
    ends = rng.choice([fmt.lo, fmt.hi, 0, 1], shape)
    return np.where(rng.random(shape) < rng.choice([0.1, 0.5, 0.9]), ends, uniform).astype(np.int16)


def codes_to(hi: int) -> Levels:
    """The integers -hi..hi, hi being 2^(b-1) - 1."""
    return integers(hi.bit_length() + 1)


# -------------------------------------------------------------------------------------------------- small models

ROOT = Path(__file__).parent.parent


def example(name: str):
    """A module of examples/."""
    if str(ROOT / "examples") not in sys.path:
        sys.path.insert(0, str(ROOT / "examples"))
    return importlib.import_module(name)


# The cells of one input, and those that read more than x: what is made of them differs.
CELLS, SEVERAL_INPUTS = (
    {name: cell for name, cell in rindle.CELLS.items() if (len(cell.program.inputs) > 1) == several}
    for several in (False, True)
)
# what the laws run on: the package's cells of one input, and a user's own
EVERY_CELL = CELLS | {name: getattr(example(name), name) for name in ("mingru", "fastgrnn")}
HEADS = ("all", "last", "mean")  # of TorchModel
FULL = ("lstm", "gru", "sru")  # every scheme and every head; a variant has one of each, in turn
CASES = [(cell, scheme, head) for cell in FULL for scheme in SCHEMES for head in HEADS]
CASES += [
    (cell, list(SCHEMES)[k % len(SCHEMES)], HEADS[k % len(HEADS)])
    for k, cell in enumerate(cell for cell in EVERY_CELL if cell not in FULL)
]


FEATURES, HIDDEN, OUTPUTS = 5, 17, 3


def recurrent(name: str, input_size: int, hidden_size: int, num_layers: int = 1, **options) -> rindle.Recurrent:
    """A Recurrent of a cell by name; where the cell has a projection, of half the features; where it has convolutions, of
    images as wide as the sizes allow.
    """
    cell = EVERY_CELL[name]
    if cell.program.needs_image:
        options = {"image": (1, gcd(input_size, hidden_size)), "kernel": (3, 3)} | options
    if "P" in cell.program.sizes.values():
        options = {"proj_size": max(1, hidden_size // 2)} | options
    return rindle.Recurrent(cell, input_size, hidden_size, num_layers, **options)


class TorchModel(torch.nn.Module):
    """Linear, two layers of a cell, and a Linear on all frames, on the last, or on their mean."""

    def __init__(self, name: str, head: str = "all", layers: int = 2, bias: bool = True):
        super().__init__()
        self.head = head
        self.first = torch.nn.Linear(FEATURES, HIDDEN)
        if name in ("lstm", "gru"):
            make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name]
            self.rnn = make(HIDDEN, HIDDEN, layers, batch_first=True, bias=bias)
        else:
            self.rnn = recurrent(name, HIDDEN, HIDDEN, layers, batch_first=True)
        self.last = torch.nn.Linear(getattr(self.rnn, "output_size", HIDDEN), OUTPUTS)

    def forward(self, x):
        y, _ = self.rnn(self.first(x))
        y = {"all": y, "last": y[:, -1], "mean": y.mean(1)}[self.head]
        return self.last(y)


class BothDirections(torch.nn.Module):
    """Two layers of both directions; the final states of the second, and its first frame."""

    def __init__(self, name: str = "lstm"):
        super().__init__()
        make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name]
        self.rnn = make(FEATURES, 9, 2, batch_first=True, bidirectional=True)
        self.last = torch.nn.Linear(36, OUTPUTS)

    def forward(self, x):
        y, h = self.rnn(x)
        h = h[0] if isinstance(h, tuple) else h
        return self.last(torch.cat([h[-2], h[-1], y[:, 0]], 1))


class MixedCells(torch.nn.Module):
    """Several recurrent layers of different cells, the second in both directions, and what goes in beside it."""

    def __init__(self):
        super().__init__()
        self.gru = torch.nn.GRU(FEATURES, 8, batch_first=True)
        self.lstm = torch.nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.sru = rindle.SRU(12 + FEATURES, 12 + FEATURES, batch_first=True)
        self.last = torch.nn.Linear(12 + FEATURES, OUTPUTS)

    def forward(self, x):
        y = self.lstm(self.gru(x)[0])[0]
        return self.last(self.sru(torch.cat([y, x], -1))[0])


VOCABULARY = 13


class Words(torch.nn.Module):
    """A language model, embedding and output tied; or with another head."""

    def __init__(self, head: str = "all", name: str = "lstm", bidirectional: bool = False):
        super().__init__()
        self.head = head
        self.embedding = torch.nn.Embedding(VOCABULARY, 10)
        make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name]
        self.rnn = make(10, 10, batch_first=True, bidirectional=bidirectional)
        self.last = torch.nn.Linear(20 if bidirectional else 10, VOCABULARY)
        if not bidirectional:
            self.last.weight = self.embedding.weight

    def forward(self, ids):
        y, _ = self.rnn(self.embedding(ids))
        return self.last({"all": y, "last": y[:, -1], "mean": y.mean(1)}[self.head])


def words(rows: int = 8, time: int = 20, seed: int = 0) -> np.ndarray:
    """ids int64 [rows, time]."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, (rows, time))


class Only(torch.nn.Module):
    """A recurrent module's output, without its final states."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x)[0]


def sequences(rows: int = 8, time: int = 20, seed: int = 0) -> np.ndarray:
    """float32 [rows, time, FEATURES]: slow random walks, so that neighbouring frames are alike."""
    rng = np.random.default_rng(seed)
    return (0.4 * rng.normal(size=(rows, time, FEATURES)).cumsum(1)).astype(np.float32)


@kept
def quantized_graph(kind: str, scheme: str) -> Model:
    """One model for each kind of graph: GRAPHS."""
    torch.manual_seed(0)
    make, data = GRAPHS[kind]
    return rindle.quantize(make().eval(), scheme, data())


GRAPHS = {
    "bidirectional lstm": (BothDirections, sequences),
    "bidirectional gru": (lambda: BothDirections("gru"), sequences),
    "mixed": (MixedCells, sequences),
    "words": (Words, words),
    "words, last": (lambda: Words("last", "gru"), words),
    "words, mean": (lambda: Words("mean", "gru"), words),
    "words, both directions": (lambda: Words("all", "gru", True), words),
}


@kept
def _quantized(name: str, scheme: str, head: str, seed: int) -> Model:
    torch.manual_seed(seed)
    return rindle.quantize(TorchModel(name, head).eval(), scheme, sequences())


def quantized(name: str, scheme: str, head: str = "all", seed: int = 0) -> Model:
    """A TorchModel, quantized through the public face."""
    return _quantized(name, scheme, head, seed)


@kept
def _both_directions(name: str) -> Model:
    torch.manual_seed(0)
    layer = recurrent(name, FEATURES, FEATURES, batch_first=True, bidirectional=True)
    return rindle.quantize(Only(layer), "int8", sequences())


def both_directions(name: str) -> Artifact:
    """A cell in both directions, in int8."""
    return _both_directions(name).artifact
