"""Any cell as a torch module."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..cells import CELLS, sru
from ..formats import RindleError
from ..graph import run_layer
from ..program import Cell
from .numerics import FloatLayer, Real


def blocks_of(cell: Cell, parameters: dict[str, torch.Tensor], program) -> dict[str, torch.Tensor]:
    """Parameters by name -> the program's blocks; a bias that stands in two parameters is their sum."""
    blocks: dict[str, torch.Tensor] = {}
    for name, rows in cell.layout.items():
        if parameters.get(name) is None:
            continue
        for block, part in zip(rows, parameters[name].split([program.block_shape(b)[0] for b in rows])):
            blocks[block] = blocks[block] + part if block in blocks else part
    for op in program.affines:
        for gate in op.biased:
            if gate not in blocks:
                blocks[gate] = torch.zeros(program.sizes[gate])
    return blocks


class Recurrent(nn.Module):
    """A stack of one cell's layers, unidirectional, with torch's conventions.

    cell: a :class:`rindle.Cell`. input_size, hidden_size: features of x and of the states. Parameters are named
    ``<name in cell.layout>_l<layer>``.

    forward(x) takes float [T, B, input_size], or [B, T, input_size] with batch_first, and returns (y, states): y laid
    out as x, [.., hidden_size]; states: a tuple with one tensor [num_layers, B, hidden_size] per state of the cell.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int, num_layers: int = 1, batch_first: bool = False):
        super().__init__()
        self.cell, self.batch_first = cell, batch_first
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        for layer in range(num_layers):
            program = self._program(layer)
            for name, rows in cell.layout.items():
                shapes = [program.block_shape(block) for block in rows]
                value = torch.empty(sum(shape[0] for shape in shapes), *shapes[0][1:])
                nn.init.uniform_(value, -1 / math.sqrt(hidden_size), 1 / math.sqrt(hidden_size))
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(value))

    def _program(self, layer: int):
        width = self.input_size if layer == 0 else self.hidden_size
        program = self.cell.program
        if program.sizes[program.inputs[0]] == "H" and width != self.hidden_size:
            raise RindleError(
                f"the cell {self.cell.name!r} needs an input as wide as its state, not {width} and {self.hidden_size}; "
                f"put a Linear({width}, {self.hidden_size}) before it"
            )
        return program.with_sizes(I=width, H=self.hidden_size)

    def parameters_of(self, layer: int) -> dict[str, torch.Tensor]:
        return {name: getattr(self, f"{name}_l{layer}") for name in self.cell.layout}

    def forward(self, x):
        time_first = x.transpose(0, 1) if self.batch_first else x
        finals = []
        for layer in range(self.num_layers):
            parameters = list(self.parameters_of(layer).values())
            if torch.compiler.is_exporting():  # one operation in the exported graph, not an unrolled loop
                states = len(self.cell.program.states)
                time_first, *after = recurrent_op(
                    time_first, parameters, self.hidden_size, layer, states, self.cell.name
                )
            else:
                time_first, *after = run_cell(self.cell, self._program(layer), time_first, parameters)
            finals.append(after)
        y = time_first.transpose(0, 1) if self.batch_first else time_first
        return y, tuple(torch.stack(layers) for layers in zip(*finals))

    def extra_repr(self) -> str:
        return f"{self.cell.name}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"


def run_cell(cell: Cell, program, x: torch.Tensor, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    """One layer over x [T, B, I], from zero states. Returns its output [T, B, H] and its final states [B, H]."""
    numerics = Real(FloatLayer(program, blocks_of(cell, dict(zip(cell.layout, parameters)), program)))
    frames, states, _ = run_layer(program, numerics, [(frame,) for frame in x], *numerics.initial(x.shape[1]))
    return [torch.stack(frames), *states.values()]


@torch.library.custom_op("rindle::recurrent", mutates_args=())
def recurrent_op(
    x: torch.Tensor, parameters: list[torch.Tensor], hidden_size: int, layer: int, states: int, cell: str
) -> list[torch.Tensor]:
    """One layer of a Recurrent in a graph captured by torch.export. To run one needs a cell of ``CELLS``."""
    known = known_cell(cell)
    program = known.program.with_sizes(I=x.shape[2], H=hidden_size)
    return [result.clone() for result in run_cell(known, program, x, parameters)]


def known_cell(name: str) -> Cell:
    """The cell that an exported graph names. RindleError for a user's own, which only its program can say."""
    if name not in CELLS:
        raise RindleError(
            f"the exported model uses the cell {name!r}, which is not one of Rindle's ({', '.join(CELLS)}); give the model "
            f"itself, or package.module:factory on the command line"
        )
    return CELLS[name]


@recurrent_op.register_fake
def _(x, parameters, hidden_size, layer, states, cell):
    return [x.new_empty(*x.shape[:2], hidden_size)] + [x.new_empty(x.shape[1], hidden_size) for _ in range(states)]


class SRU(Recurrent):
    """Simple recurrent unit (``cells/sru.py``); input_size must equal hidden_size."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, batch_first: bool = False):
        super().__init__(sru, input_size, hidden_size, num_layers, batch_first)
