"""Model: a converted model in the C++ core. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from .. import _core
from ..errors import RindleError
from ..file.artifact import Artifact
from ..file.container import dumps, loads, model_id
from ..numbers.formats import Format, decode
from ..program.nodes import INPUT, ProgramNode
from .golden import with_thresholds
from .inputs import Inputs, Rows
from .measurement import Measurement, measured_inputs
from .reference import Result
from .reference import run as reference_run
from .stream import Stream


class Model:
    """A model of integers, ready to run. ``rindle.quantize`` and ``rindle.load`` make them; it never changes.

    It may be used by any number of threads at once; streams belong to one thread at a time.
    """

    def __init__(self, artifact: Artifact, data: bytes | None = None, kernel: str | None = None):
        """data: the artifact's bytes, where they are at hand. kernel: forces one by name; else RINDLE_KERNEL or the best."""
        self.artifact = artifact
        if data is not None:
            self.data = data
        try:
            self._core = _core.Model(self.data, kernel)
        except ValueError as error:
            raise RindleError(str(error)) from None

    @cached_property
    def data(self) -> bytes:
        """The bytes of the .rindle file."""
        return dumps(self.artifact)

    def __repr__(self) -> str:
        nodes = " -> ".join(node.name for node in self.artifact.graph.nodes)
        return (
            f"<rindle.Model {self.input_size} -> {nodes} -> {self.output_size}, {len(self.data)} bytes, {self.kernel}>"
        )

    def __reduce__(self):
        return _read, (self.data, self.kernel)

    def __deepcopy__(self, memo) -> Model:
        return self  # it never changes

    @property
    def parts(self) -> Mapping[str, Model]:
        """The models of a file that has several, by name and in order; empty where the model is one."""
        return {}

    def part(self, name: str) -> Model:
        """One model of a file that has several. RindleError, which names those that there are, for any other name."""
        if name not in self.parts:
            there = f"there are {', '.join(self.parts)}" if self.parts else "this is one model, used as it is"
            raise RindleError(f"there is no part {name!r}: {there}")
        return self.parts[name]

    @property
    def input_size(self) -> int:
        """Features of one input frame, I; 1 where a frame is an id."""
        return self.artifact.graph.input_size

    @property
    def vocabulary(self) -> int:
        """V, where the model's input is one id 0..V-1 per frame; else 0."""
        return self.artifact.graph.vocabulary

    @property
    def output_size(self) -> int:
        """Features of one output, O."""
        return self.artifact.output_size

    @property
    def is_sequence(self) -> bool:
        """Whether the output has a value for every frame, [B, T', O], or one for the whole row, [B, O]."""
        return self.artifact.graph.is_sequence(self.artifact.graph.output)

    @property
    def is_float(self) -> bool:
        """Whether the output is a float node's: close on every machine, and without codes."""
        return self._core.output_is_float

    def output_frames(self, frames: int) -> int:
        """T': frames of the output for so many of the input, of which windows make fewer or more; 1 where the output has one
        value for the whole row. 0 where the frames are too few for a window.
        """
        return self._core.output_frames(frames)

    @cached_property
    def id(self) -> str:
        """64 hex digits that name what the model computes: equal for equal integers, thresholds included."""
        return self._core.id or model_id(self.artifact)

    @cached_property
    def _named_core(self):
        """The core's model with an id, which saved states carry. Thresholds are set without one, since only streams need it."""
        return self._core if self._core.id else _core.Model(self._core, [], self.id)

    @property
    def kernel(self) -> str:
        """The kernel in use."""
        return self._core.kernel

    @property
    def thresholds(self) -> dict[str, int | np.ndarray | None]:
        """θ of every product input, "node/source" -> None (dense), an integer in code units, or one per element."""
        layers = {node.name: node.layer for node in self.artifact.graph.programs}
        return {name: layers[node].thetas.get(code) for name, (node, code) in self.artifact.held_codes().items()}

    @property
    def threshold_values(self) -> dict[str, float | np.ndarray | None]:
        """The same in units of the value: θ times what one code is worth."""
        formats = {
            name: self.artifact.graph.program(n).layer.formats[c] for name, (n, c) in self.artifact.held_codes().items()
        }
        return {name: None if t is None else t * formats[name].scale for name, t in self.thresholds.items()}

    def with_thresholds(self, thresholds: dict, unit: str = "code") -> Model:
        """The same model with other thresholds; it shares the weights, and no file is made before it is asked for.

        thresholds: "node/source" -> None (dense), one θ for all elements, or one for each of them [n]. Inputs that are not named
        keep theirs. unit: "code": θ is an integer in code units, as :attr:`thresholds` has them. "value": a number in the units
        of the input itself, whatever the width of its codes, as :attr:`threshold_values` has them: a change that is not larger is
        skipped. Raises RindleError for an unknown name, and for a θ that is negative, fractional (of codes) or too large.
        """
        artifact = with_thresholds(self.artifact, thresholds, unit)
        known = artifact.held_codes()
        changes = []
        for node, code in (known[name] for name in thresholds):
            theta = artifact.graph.program(node).layer.thetas.get(code)
            changes.append((node, code, None if theta is None else np.atleast_1d(np.asarray(theta, np.int16))))
        return self._sharing(artifact, _core.Model(self._core, changes))

    def with_provenance(self, provenance: dict) -> Model:
        """The same model with another provenance: free-form, for people."""
        return self._sharing(replace(self.artifact, provenance=provenance), self._core)

    @staticmethod
    def _sharing(artifact: Artifact, core) -> Model:
        model = Model.__new__(Model)
        model.artifact, model._core = artifact, core
        return model

    def run(self, x: np.ndarray, lengths=None, engine: str = "runtime") -> np.ndarray:
        """Whole sequences, each from the initial states: zeros, unless the model has its own.

        x: float32 [B, T, I] or [T, I]; or ids, int32 or int64 [B, T] or [T]. lengths: real frames of each row, int [B],
        1..T; the rest of a row is not read.
        engine: "runtime" (the C++ core) or "reference" (NumPy): they give the same bits.
        Returns float32 [B, T', O], with zeros past what becomes of a row's length, or [B, O]; without B for an input without
        it. T' is T unless the graph has windows: see :meth:`output_frames`.
        Raises RindleError for a wrong shape, dtype or length, for a row that is too short for a window, for NaN or infinity,
        and for an id out of range.
        """
        rows = self._inputs.rows(x, np.float32, lengths)
        if engine == "runtime":
            y, _ = self._runtime(rows, np.float32)
        else:
            found = self._reference(engine, rows).codes
            y = found if self.is_float else decode(found, self.artifact.output_format)
        return rows.as_given(y)

    def run_codes(self, codes: np.ndarray, lengths=None, engine: str = "runtime") -> np.ndarray:
        """As :meth:`run`, from int16 input codes (or ids) to int16 output codes: what the promise of equal bits is about.
        RindleError where the output is float.
        """
        self._refuse_floats()
        rows = self._inputs.rows(codes, np.int16, lengths)
        if engine == "runtime":
            y, _ = self._runtime(rows, np.int16)
        else:
            y = self._reference(engine, rows).codes.astype(np.int16)
        return rows.as_given(y)

    def replay(self, engine: str = "runtime") -> np.ndarray:
        """The golden inputs, run: int16 codes, or float32 values where the output is float."""
        golden = self.artifact.golden
        if not self.is_float:
            return self.run_codes(golden.inputs, golden.lengths, engine)
        return self.run(self.golden_frames, golden.lengths, engine)

    @property
    def golden_frames(self) -> np.ndarray:
        """The golden inputs as :meth:`run` takes them: ids, or float32 values that become the golden codes again."""
        inputs = self.artifact.golden.inputs
        return inputs if self.vocabulary else decode(inputs, self.artifact.input_format)

    def disagreements(self, found: np.ndarray) -> int:
        """How many of these golden outputs are not the file's: codes that differ; floats further off than docs/format.md allows."""
        wanted = self.artifact.golden.outputs
        if not self.is_float:
            return int(np.count_nonzero(found != wanted))
        near = np.abs(found.astype(np.float64) - wanted) <= 1e-5 * np.maximum(1, np.abs(wanted.astype(np.float64)))
        return int(np.count_nonzero(~near))

    def _refuse_floats(self) -> None:
        if self.is_float:
            node = self.artifact.graph.output
            raise RindleError(f"the output {node!r} is a float node: it has no codes; use run or step")

    def measure(self, x: np.ndarray, lengths=None) -> Measurement:
        """Runs x as :meth:`run` does, and reports what it cost: the density of every product input of the recurrent
        layers, eliminated multiply-accumulates and weight bytes, and what saturated; on real frames only.
        """
        rows = self._inputs.rows(x, np.float32, lengths)
        y, stream = self._runtime(rows, np.float32)
        saturations, changes = self._counts(stream)
        inputs, others = (
            measured_inputs(self.artifact, changes, rows.frames, recurrent) for recurrent in (True, False)
        )
        return Measurement(rows.as_given(y), inputs, saturations, others)

    def activity(self, x: np.ndarray, lengths=None) -> tuple[np.ndarray, dict[str, float]]:
        """What :meth:`run` gives, and the density of every held input of all layers, those before and behind the recurrent ones
        included: "node/source" -> share of its elements that changed, 0..1, over real frames.
        """
        rows = self._inputs.rows(x, np.float32, lengths)
        y, stream = self._runtime(rows, np.float32)
        _, changes = self._counts(stream)
        layers = {node.name: node.layer for node in self.artifact.graph.programs}
        found = {}
        for name, key in self.artifact.held_codes().items():
            if key in changes:
                changed, frames = changes[key]
                found[name] = changed / (layers[key[0]].program.sizes[key[1]] * frames) if frames else 1.0
        return rows.as_given(y), found

    def stream(self) -> Stream:
        """A new stream at its initial states. RindleError if the graph needs whole sequences; it names the node."""
        name = self.artifact.graph.whole_sequence
        if name is not None:
            why = self.artifact.graph.node(name).why_whole
            raise RindleError(
                f"the node {name!r} needs the whole sequence: it {why}. This model has no stream; use run"
            )
        return Stream(self)

    # -- what both engines and both kinds of value share

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs(self.input_size, self.vocabulary, self.artifact.input_format)

    def _runtime(self, rows: Rows, dtype) -> tuple[np.ndarray, _core.Stream]:
        """Outputs of the core, [B, T', O] or [B, O], float32 or int16; and the stream that made them, for its counters."""
        frames = (self.output_frames(rows.batch.shape[1]),) if self.is_sequence else ()
        y, stream = np.empty((len(rows.batch), *frames, self.output_size), dtype), _core.Stream(self._core)
        self._call(stream.run, rows.batch, y, rows.lengths)
        return y, stream

    @staticmethod
    def _call(method, *arguments) -> None:
        try:
            method(*arguments)
        except ValueError as error:
            raise RindleError(str(error)) from None

    def _reference(self, engine: str, rows: Rows) -> Result:
        if engine != "reference":
            raise RindleError(f"unknown engine {engine!r}; there are runtime and reference")
        frames, least = rows.frames, self.artifact.graph.least_frames
        if frames.min() < least:
            raise RindleError(
                f"row {frames.argmin()} has {frames.min()} frames: too short for this model's windows, which need {least}"
            )
        self._inputs.check_values(rows)
        return reference_run(self.artifact, rows.batch, frames)

    @cached_property
    def _places(self) -> list[tuple[str, str]]:
        """(node, first result) of every counter of saturations, in the core's order."""
        places = [(INPUT, INPUT)]
        for node in self.artifact.graph.programs:
            places += [(node.name, op.out[0]) for op in node.layer.program.ops if op.kind not in ("clip", "table")]
        return places

    @cached_property
    def _states(self) -> dict[str, tuple[slice, Format]]:
        """ "node/state" -> its place among the values of a saved state, and its format."""
        graph, places, start = self.artifact.graph, {}, 0
        for node in graph.nodes:
            if isinstance(node, ProgramNode):
                at, program = start, node.layer.program
                for state, _ in program.states:
                    places[f"{node.name}/{state}"] = slice(at, at + program.sizes[state]), node.layer.formats[state]
                    at += program.sizes[state]
            start += node.saved(graph.sizes_of(node.sources))
        return places

    def _counts(self, stream) -> tuple[dict, dict]:
        """A core stream's counters as ``reference.Result`` has them: saturations, changes."""
        frames, changed, saturated = (counts.tolist() for counts in stream.counters())
        held = [(node.name, code) for node in self.artifact.graph.programs for code in node.layer.thetas]
        return dict(zip(self._places, saturated)), {key: (c, f) for key, c, f in zip(held, changed, frames)}


def _read(data: bytes, kernel: str | None = None) -> Model:
    """A pickled model; on a machine without its kernel the best that there is, which gives the same integers."""
    return Model(loads(data), data, kernel if kernel in _core.kernels() else None)
