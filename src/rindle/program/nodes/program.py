"""A layer: a program that runs once per frame, over any numerics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from ...numbers.formats import Format
from ..program import Program, step
from .node import Node


class HasProgram(Protocol):
    """What any layer has; a converted one has formats and thresholds, too (``file.artifact.Layer``)."""

    @property
    def program(self) -> Program: ...


L = TypeVar("L", bound=HasProgram)


@dataclass(frozen=True)
class ProgramNode(Node, Generic[L]):
    """layer: the program with its parameters, as floats or converted.

    reverse: it goes over each row from its last frame to its first, (22); its value is in the order of time again.
    """

    layer: L
    reverse: bool = False

    kind: ClassVar[str] = "program"
    arity: ClassVar[tuple[int, int]] = (1, 64)
    keeps_format: ClassVar[bool] = False

    @property
    def label(self) -> str:
        return self.layer.program.cell + (", reversed" if self.reverse else "")

    @property
    def version(self) -> int:
        program = self.layer.program
        if len(self.sources) > 1 or any(term.conv for op in program.affines for term in op.terms):
            return 3
        return 2 if self.reverse else 1

    @property
    def _sizes(self) -> dict[str, int]:
        """Path -> its size: a layer's program has numbers, no names, for sizes."""
        return cast(dict[str, int], self.layer.program.sizes)

    def size(self, sizes: Sequence[int]) -> int:
        return self._sizes[self.layer.program.output]

    def elements(self, sizes: Sequence[int]) -> int:
        return sum(self._sizes.values())

    def saved(self, sizes: Sequence[int]) -> int:
        program, thetas = self.layer.program, cast(Any, self.layer).thetas
        return sum(self._sizes[path] for path in (*(state for state, _ in program.states), *thetas))

    @property
    def own_format(self) -> Format | None:
        return cast(Any, self.layer).formats[self.layer.program.output]

    @property
    def why_whole(self) -> str | None:
        return "reads the sequence from its end" if self.reverse else None

    def run(self, xp: Any, sources: list, numerics: Any) -> Any:
        is_sequence = isinstance(sources[0], list)
        sequences = sources if is_sequence else [[source] for source in sources]
        sequences = [flipped(xp, sequence) for sequence in sequences] if self.reverse else sequences
        frames = list(zip(*sequences, strict=True))
        outputs, *_ = run_layer(self.layer.program, numerics, frames, *numerics.initial(len(frames[0][0])))
        outputs = flipped(xp, outputs) if self.reverse else outputs
        return outputs if is_sequence else outputs[0]


def flipped(xp: Any, frames: list) -> list:
    """Each row from its own end to its start, (22). Its own inverse."""
    ends = [0, *(len(frame) for frame in reversed(frames))]  # the rows of length T - i end at ends[i + 1]
    blocks = [(len(frames) - i, a, b) for i, (a, b) in enumerate(pairwise(ends)) if a < b]
    return [
        xp.concat([frames[length - 1 - t][a:b] for length, a, b in blocks if length > t]) for t in range(len(frames))
    ]


def run_layer(program: Program, numerics: Any, frames: list, states: dict, held: dict) -> tuple[list, dict, dict]:
    """One layer over a sequence, from the given states. frames: per frame, a tuple of one array [k_t, F] per input.

    Returns (outputs, states, held) after the last frame.
    """
    outputs = []
    running = None
    for inputs in frames:
        if running != len(inputs[0]):  # some rows have ended
            running = len(inputs[0])
            states, held = ({path: v[:running] for path, v in d.items()} for d in (states, held))
        y, states, held = step(program, numerics, inputs, states, held)
        numerics.frames += running
        outputs.append(y)
    return outputs, states, held
