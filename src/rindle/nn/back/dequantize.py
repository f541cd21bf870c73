"""A .rindle file back in torch: the float modules whose weights are the file's, for comparison and for timing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ...cells import gru, linear, lstm
from ...engines.real import dequantized
from ...errors import RindleError
from ...file.artifact import Artifact, Layer
from ...program.nodes import INPUT, LastNode, MeanNode, ProgramNode
from ...program.tracer import Cell

TORCH_CELLS = {"lstm": (nn.LSTM, nn.LSTMCell), "gru": (nn.GRU, nn.GRUCell)}


class NoTorchForm(RindleError):
    """torch has no module for a part of the model; the message names it."""


@dataclass(frozen=True)
class Stage:
    """A step of the chain. kind: "lstm", "gru", "linear", "last" or "mean". parameters: torch's, a dict per layer."""

    kind: str
    nodes: tuple[str, ...]
    parameters: tuple[dict[str, torch.Tensor], ...] = ()


def stages(artifact: Artifact) -> list[Stage]:
    """The model as torch's modules, in order; layers that torch can stack in one module are one stage.

    Raises NoTorchForm for a cell that torch lacks, and where the graph is no chain.
    """
    known = {cell.name: cell for cell in (gru, linear, lstm)}
    made: list[Stage] = []
    before = INPUT
    for node in artifact.graph.nodes:
        if node.sources != (before,):
            raise NoTorchForm(f"{node.name} reads {', '.join(node.sources)}: only chains of layers are built in torch")
        before = node.name
        if not isinstance(node, ProgramNode):
            if not isinstance(node, (LastNode, MeanNode)):
                raise NoTorchForm(f"{node.name} is a {node.kind!r} node, which is not built in torch")
            made.append(Stage(node.kind, (node.name,)))
            continue
        if node.layer.initial:
            raise NoTorchForm(
                f"{node.name} begins from states of its own, which torch's modules are given by their caller"
            )
        cell = known.get(node.layer.program.cell)
        if cell is None or not _same_equation(cell, node.layer):
            raise NoTorchForm(
                f"{node.name} is a layer of the cell {node.layer.program.cell!r}, which torch does not have"
            )
        parameters = parameters_of(cell, node)
        if made and made[-1].kind == cell.name and cell.program.states and _stacks(made[-1], parameters):
            made[-1] = Stage(cell.name, (*made[-1].nodes, node.name), (*made[-1].parameters, parameters))
        else:
            made.append(Stage(cell.name, (node.name,), (parameters,)))
    if before != artifact.graph.output:
        raise NoTorchForm(f"the output is {artifact.graph.output}, but the chain ends with {before}")
    return made


def _same_equation(cell: Cell, layer: Layer) -> bool:
    """Whether a program is this cell, and not another one of the same name. Lowering splits products, no operation."""

    def skeleton(program):
        return [(op.kind, op.out, op.args, op.function) for op in program.ops if op.kind != "requantize"]

    program = layer.program
    return (skeleton(program), program.states, program.output) == (
        skeleton(cell.program),
        cell.program.states,
        cell.program.output,
    )


def _stacks(stage: Stage, parameters: dict) -> bool:
    """Whether a layer continues an nn.LSTM or nn.GRU: as wide as the one below it."""
    return parameters["weight_hh"].shape == stage.parameters[-1]["weight_hh"].shape


def parameters_of(cell: Cell, node: ProgramNode) -> dict[str, torch.Tensor]:
    """A layer's parameters under torch's names, float32: codes times their scales. See ``Cell.layout``."""
    return laid_out(cell, {block: torch.from_numpy(value).float() for block, value in dequantized(node.layer).items()})


def laid_out(cell: Cell, blocks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Blocks -> parameters by their names in the cell's layout. A bias that stands in two is put in the first; the second is zero."""
    parameters, used = {}, set()
    for name, rows in cell.layout.items():
        parts = [blocks[block] if block not in used else torch.zeros_like(blocks[block]) for block in rows]
        used.update(rows)
        parameters[name] = torch.cat(parts)
    return parameters


class Whole(nn.Module):
    """The model of nn.LSTM, nn.GRU and nn.Linear modules, over sequences.

    forward(x, states) takes float [B, T, I] and a list of states as torch's modules take them (None: zeros); returns
    ([B, T, O] or [B, O], states).
    """

    def __init__(self, chain: list[Stage]):
        super().__init__()
        self.kinds = [stage.kind for stage in chain]
        self.layers = nn.ModuleList(self._module(stage) for stage in chain)

    @staticmethod
    def _module(stage: Stage) -> nn.Module:
        if stage.kind in TORCH_CELLS:
            first = stage.parameters[0]["weight_ih"].shape[1]
            hidden = stage.parameters[0]["weight_hh"].shape[1]
            module = TORCH_CELLS[stage.kind][0](first, hidden, len(stage.parameters), batch_first=True)
            state = {f"{name}_l{k}": v for k, one in enumerate(stage.parameters) for name, v in one.items()}
            return _loaded(module, state)
        return _linear(stage)

    def forward(self, x, states: list | None = None):
        following = []
        for k, (kind, layer) in enumerate(zip(self.kinds, self.layers)):
            state = None if states is None else states[k]
            if kind in TORCH_CELLS:
                x, state = layer(x, state)
            elif kind == "linear":
                x = layer(x)
            else:
                x = x[:, -1] if kind == "last" else x.mean(1)
            following.append(state)
        return x, following


class Cells(nn.Module):
    """The same of nn.LSTMCell and nn.GRUCell modules, frame by frame: the last frame is the output, so "last" is nothing.

    forward(x, states) takes float [B, I] and a list with each cell's state (None: zeros); returns ([B, O], states).
    """

    def __init__(self, chain: list[Stage]):
        super().__init__()
        self.kinds, modules = [], []
        for stage in chain:
            if stage.kind in TORCH_CELLS:
                for one in stage.parameters:
                    (_, width), (_, hidden) = one["weight_ih"].shape, one["weight_hh"].shape
                    modules.append(_loaded(TORCH_CELLS[stage.kind][1](width, hidden), one))
                    self.kinds.append(stage.kind)
            elif stage.kind == "linear":
                modules.append(_linear(stage))
                self.kinds.append(stage.kind)
            elif stage.kind == "mean":
                raise NoTorchForm(f"{stage.nodes[0]} needs the whole sequence, so there is no step")
        self.layers = nn.ModuleList(modules)

    def forward(self, x, states: list | None = None):
        following = []
        for k, (kind, layer) in enumerate(zip(self.kinds, self.layers)):
            state = None if states is None else states[k]
            if kind == "linear":
                x = layer(x)
            else:
                state = layer(x, state)
                x = state[0] if kind == "lstm" else state
            following.append(state)
        return x, following


def _linear(stage: Stage) -> nn.Module:
    if stage.kind != "linear":
        return nn.Identity()
    rows, columns = stage.parameters[0]["weight"].shape
    return _loaded(nn.Linear(columns, rows), stage.parameters[0])


def _loaded(module: nn.Module, state: dict) -> nn.Module:
    module.load_state_dict(state)
    return module.eval()
