"""Modules of integers that take the place of recurrent and linear ones: the same forward, the C++ runtime inside."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ...engines.golden import with_golden
from ...engines.model import Model
from ...errors import RindleError
from ...file.artifact import Artifact, Golden
from ...file.container import loads
from ...program.graph import Graph
from ...program.nodes import INPUT, GatherNode
from ..capture.stacks import Direction, Stack, take, walk
from ..modules import Recurrent
from .traced import refuse_recording

NO_TRAINING = "holds integers and cannot be trained; train what rindle.prepare returned, and convert it again"


class _Frozen(torch.autograd.Function):
    """y, which came of x. A gradient that is asked for is an error, not a silent zero."""

    @staticmethod
    def forward(ctx, y, x, name):
        ctx.name = name
        return y.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RindleError(f"{ctx.name} {NO_TRAINING}")


class Integers(nn.Module):
    """A stack of layers of integers. model: the :class:`rindle.Model` inside, which ``rindle.save`` writes.

    Each direction of each layer runs frame by frame, so that initial states can be given and final ones returned: float ->
    16-bit code (3) -> float. With none given, the integers are those of ``model.run``, which takes several inputs side by side, their
    features joined, in one format. saturations: "node/operation" -> elements
    that saturated in all calls so far; of given initial states, "node/state". state_dict holds the bytes of the .rindle file. Refuses ``train()`` and gradients.
    """

    def __init__(self, stack: Stack, path: str, model: Model):
        super().__init__()
        self.stack, self.path = stack, path
        self.saturations: Counter[str] = Counter()
        self._set(model)
        super().train(False)

    def _set(self, model: Model) -> None:
        names = [self.stack.node_name(self.path, direction) for direction in self.stack.directions]
        found = [node.name for node in model.artifact.graph.programs]
        if names != found:
            raise RindleError(
                f"the .rindle bytes hold {', '.join(found)}; {self.path or 'the module'} is {', '.join(names)}"
            )
        self.model = model
        self.parts = {name: part(model.artifact, name) for name in names}

    def run(self, input, states=None):
        refuse_recording(self.path, "convert the whole model instead, and `rindle export` writes it")
        return self._run(input, states)

    @torch.compiler.disable
    def _run(self, input, states):
        return walk(self.stack, take(self.stack, input, states), self._direction)

    def _direction(self, direction: Direction, frames: list[torch.Tensor], initial: dict) -> tuple[list, dict]:
        name = self.stack.node_name(self.path, direction)
        rows = [len(frame) for frame in frames]
        joined = torch.cat(frames)
        x = np.ascontiguousarray(joined.detach().cpu().float().numpy())
        if not np.isfinite(x).all():
            raise RindleError(f"the input of {name} holds NaN or infinity; give finite values")
        y, finals = self._rows(self.parts[name], name, x, rows, initial)
        y = torch.from_numpy(y).to(joined)
        if torch.is_grad_enabled() and joined.requires_grad:
            y = _Frozen.apply(y, joined, name)
        return list(y.split(rows)), {state: value.to(joined) for state, value in finals.items()}

    def _rows(self, model: Model, name: str, x: np.ndarray, rows: list[int], initial: dict):
        """x: [Σ rows, I], frame after frame. Returns the output likewise, and every row's final states."""
        stream, states = model.stream(), list(initial)
        y = np.empty((len(x), model.output_size), np.float32)
        finals = {state: np.empty(value.shape, np.float32) for state, value in initial.items()}
        starts = np.cumsum([0, *rows])
        given = {state: value.detach().cpu().float().numpy() for state, value in initial.items() if value.any()}
        for row in range(rows[0]):
            if states:
                stream.reset()
                if given:
                    stream.set_states({f"{name}/{state}": value[row] for state, value in given.items()})
            for t in range(sum(count > row for count in rows)):
                stream.step(x[starts[t] + row], y[starts[t] + row])
            if states:
                after = stream.states()
                for state, value in finals.items():
                    value[row] = after[f"{name}/{state}"]
        self.saturations.update({"/".join(place): n for place, n in stream.measure().saturations.items() if n})
        return y, {state: torch.from_numpy(value) for state, value in finals.items()}

    def train(self, mode: bool = True):
        if mode:
            raise RindleError(f"{self.path or 'the module'} {NO_TRAINING}")
        return super().train(False)

    def get_extra_state(self) -> torch.Tensor:
        """The .rindle file's bytes, uint8."""
        return torch.frombuffer(bytearray(self.model.data), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        data = state.cpu().numpy().tobytes()
        self._set(Model(loads(data, f"the state of {self.path or 'the module'}"), data))

    def extra_repr(self) -> str:
        return repr(self.model)


def part(artifact: Artifact, name: str) -> Model:
    """One program node alone, forward in time: the same integers, with states of its own. What it gathers of the model's input
    it goes on gathering; any other source is its input.
    """
    graph = artifact.graph
    node = replace(graph.program(name), reverse=False)
    sources = [graph.node(source) for source in node.sources if source != INPUT]
    if sources and isinstance(sources[0], GatherNode):
        nodes, source = (*sources, node), INPUT
    else:
        nodes, source = (replace(node, sources=(INPUT,)),), node.source
    size, fmt = graph.size_of(source), artifact.format_of(source)
    alone = Artifact(Graph(size, nodes, name), fmt, Golden(None, None, None))
    return Model(with_golden(alone, np.zeros((1, 1, size), np.int64), np.ones(1, np.int32)))


class IntegerRNN(Integers):
    """Of torch's: nn.LSTM, nn.GRU, nn.RNN and their cells."""

    def forward(self, input, hx=None):
        return self.run(input, hx)


class IntegerRecurrent(Integers):
    """Of :class:`rindle.Recurrent`."""

    def forward(self, x, states=None):
        return self.run(x, states)


class IntegerLinear(Integers):
    """Of nn.Linear."""

    def forward(self, input):
        return self.run(input)


def drop_in(kind: type) -> type:
    """The class that takes the place of a key of STACKS."""
    return {nn.Linear: IntegerLinear, Recurrent: IntegerRecurrent}.get(kind, IntegerRNN)
