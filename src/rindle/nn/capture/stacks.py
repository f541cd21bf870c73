"""What a torch module is to Rindle: a stack of cells with named parameters; and its forward's arguments, taken apart.

Every form of a recurrent module (prepared, of integers, dynamic) has the forward of its origin, so all share this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ...cells import CELLS, linear
from ...errors import RindleError
from ...program.graph import Graph
from ...program.nodes import INPUT, ConcatNode, GatherNode, Node, ProgramNode, flipped
from ...program.program import Program
from ...program.tracer import Cell
from ..modules import Recurrent, blocks_of
from ..numerics import FloatLayer, RealArrays


@dataclass(frozen=True)
class Direction:
    """One direction of one layer. name: "l0", "l0_reverse", … names: parameter in ``cell.layout`` -> the module's own. columns:
    input path -> its features among those of all inputs side by side, where there are several.
    """

    name: str
    cell: Cell
    program: Program  # its sizes are numbers
    names: dict[str, str]
    reverse: bool = False
    columns: dict[str, range] = field(default_factory=dict)

    def inputs(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Input path -> its own of the features of x, [.., I]."""
        if not self.columns:
            return {self.program.inputs[0]: x}
        return {path: x[..., own.start : own.stop] for path, own in self.columns.items()}

    def layer(self, module: nn.Module, instead: dict[str, torch.Tensor] | None = None) -> FloatLayer:
        """With the module's parameters as they are now. instead: own name -> a value that takes the parameter's place."""
        instead = instead or {}
        parameters = {
            name: instead[own] if own in instead else getattr(module, own) for name, own in self.names.items()
        }
        return FloatLayer(self.program, blocks_of(self.cell, parameters, self.program))

    def rows(self, own: str) -> dict[str, slice]:
        """Block -> its rows in the parameter ``own``."""
        (name,) = (name for name, given in self.names.items() if given == own)
        found, start = {}, 0
        for block in self.cell.layout[name]:
            size = self.program.block_shape(block)[0]
            found[block] = slice(start, start + size)
            start += size
        return found

    @property
    def matrices(self) -> tuple[str, ...]:
        """The module's parameters that are weight matrices."""
        return tuple(own for name, own in self.names.items() if "." in self.cell.layout[name][0])


@dataclass(frozen=True)
class Stack:
    """layers: from the bottom up, each of one direction or two. style: whose forward it has, one of "torch" (nn.LSTM, …),
    "cell" (nn.LSTMCell, …), "recurrent" (:class:`rindle.Recurrent`) and "linear". tuple_states: states come in a tuple.
    """

    layers: tuple[tuple[Direction, ...], ...]
    style: str
    tuple_states: bool = False
    batch_first: bool = False
    dropout: float = 0.0

    @property
    def directions(self) -> tuple[Direction, ...]:
        return tuple(direction for layer in self.layers for direction in layer)

    def node_name(self, path: str, direction: Direction) -> str:
        """As the captured graph of a whole model names it."""
        if self.style == "linear":
            return path or "linear"
        return f"{path or direction.cell.name}.{direction.name}"

    def graph(self, path: str, module: nn.Module) -> Graph:
        """The module alone as a graph of float layers."""
        nodes: list[Node] = []
        source = INPUT
        for number, layer in enumerate(self.layers):
            made = []
            for direction in layer:
                name = self.node_name(path, direction)
                blocks = direction.layer(module).blocks
                blocks = {block: value.detach().to("cpu", torch.float32) for block, value in blocks.items()}
                float_layer = FloatLayer(direction.program, blocks)
                parts = [GatherNode(f"{name}.{p}", (source,), tuple(c)) for p, c in direction.columns.items()]
                own = tuple(part.name for part in parts) or (source,)
                nodes += [*parts, ProgramNode(name, own, float_layer, direction.reverse)]
                made.append(name)
            if len(made) > 1:
                source = f"{path or layer[0].cell.name}.l{number}.concat"
                nodes.append(ConcatNode(source, tuple(made)))
            else:
                source = made[0]
        return Graph(self.input_size, tuple(nodes), source)

    @property
    def input_size(self) -> int:
        """Of several inputs, the features of all."""
        return sum(self.input_sizes.values())

    @property
    def input_sizes(self) -> dict[str, int]:
        """Input path -> its features; behind the first, those of all directions."""
        program, directions = self.layers[0][0].program, len(self.layers[0])
        return {path: program.sizes[path] * (directions if k else 1) for k, path in enumerate(program.inputs)}


def _torch_cell(module: nn.Module) -> str:
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return "lstm_projection" if getattr(module, "proj_size", 0) else "lstm"
    return "gru" if isinstance(module, (nn.GRU, nn.GRUCell)) else f"rnn_{module.nonlinearity}"


def _cell(name: str) -> Cell:
    if name not in CELLS:
        raise RindleError(f"there is no cell {name!r}; there are {', '.join(CELLS)}")
    return CELLS[name]


def _torch_stack(module: nn.RNNBase) -> Stack:
    cell, projected = _cell(_torch_cell(module)), module.proj_size or module.hidden_size
    layers = []
    for k in range(module.num_layers):
        width = module.input_size if k == 0 else projected * (2 if module.bidirectional else 1)
        program = cell.program.with_sizes(I=width, H=module.hidden_size, P=projected)
        directions = []
        for reverse in (False, True) if module.bidirectional else (False,):
            suffix = f"l{k}" + "_reverse" * reverse
            names = {name: f"{name}_{suffix}" for name in cell.layout if module.bias or not name.startswith("bias")}
            directions.append(Direction(suffix, cell, program, names, reverse))
        layers.append(tuple(directions))
    return Stack(tuple(layers), "torch", isinstance(module, nn.LSTM), module.batch_first, module.dropout)


def _cell_stack(module: nn.RNNCellBase) -> Stack:
    cell = _cell(_torch_cell(module))
    program = cell.program.with_sizes(I=module.input_size, H=module.hidden_size)
    names = {name: name for name in cell.layout if module.bias or not name.startswith("bias")}
    return Stack(((Direction("l0", cell, program, names),),), "cell", isinstance(module, nn.LSTMCell))


def _recurrent_stack(module: Recurrent) -> Stack:
    layers = []
    for k in range(module.num_layers):
        directions = []
        for reverse, suffix in enumerate(module._suffixes(k)):
            names = {name: name + suffix for name in module.cell.layout}
            name = f"l{k}" + "_reverse" * reverse
            program = module._program(k)
            directions.append(
                Direction(
                    name, module.cell, program, names, bool(reverse), _columns(program, reverse, module.bidirectional)
                )
            )
        layers.append(tuple(directions))
    return Stack(tuple(layers), "recurrent", True, module.batch_first)


def _columns(program: Program, reverse: int, both: bool) -> dict[str, range]:
    """Where a direction's inputs stand, of several side by side: the first, that all directions read, then each of the others
    with a part for every direction.
    """
    if len(program.inputs) == 1:
        return {}
    first, *others = program.inputs
    found, start = {first: range(program.sizes[first])}, program.sizes[first]
    for path in others:
        size = program.sizes[path]
        found[path] = range(start + reverse * size, start + (reverse + 1) * size)
        start += size * (1 + both)
    return found


def _linear_stack(module: nn.Linear) -> Stack:
    program = linear.program.with_sizes(I=module.in_features, O=module.out_features)
    names = {"weight": "weight"} | ({"bias": "bias"} if module.bias is not None else {})
    return Stack(((Direction("l0", linear, program, names),),), "linear")


# What is quantized, by the class whose forward it has.
STACKS: dict[type, Callable[[nn.Module], Stack]] = {
    nn.LSTM: _torch_stack,
    nn.GRU: _torch_stack,
    nn.RNN: _torch_stack,
    nn.LSTMCell: _cell_stack,
    nn.GRUCell: _cell_stack,
    nn.RNNCell: _cell_stack,
    Recurrent: _recurrent_stack,
    nn.Linear: _linear_stack,
}
RECURRENT = tuple(kind for kind in STACKS if kind is not nn.Linear)


def kind_of(module: nn.Module, path: str) -> type | None:
    """The key of STACKS that a module is; None for any other module. RindleError for a class derived from one that has a
    forward of its own: what it computes is not known.
    """
    for kind in STACKS:
        if isinstance(module, kind):
            if type(module).forward is not kind.forward:
                raise RindleError(
                    f"{path or 'the model'} is a {type(module).__name__}, a {kind.__name__} with a forward of its own; let it "
                    f"hold a {kind.__name__} instead of being one"
                )
            return kind
    return None


def stack_of(module: nn.Module, path: str) -> Stack:
    return STACKS[kind_of(module, path)](module)


@dataclass
class Call:
    """One call's arguments. frames: [rows still running, I], rows sorted by falling length. states: one dict per direction,
    state path -> [rows, n], zero unless given. give: (frames, final states) -> what the module's forward returns.
    """

    frames: list[torch.Tensor]
    states: list[dict[str, torch.Tensor]]
    give: Callable


@dataclass
class Whole:
    """One call's arguments, not cut to frames. x: [T, rows, I]; of a PackedSequence [Σ rows, I], and rows its batch_sizes. states:
    state path -> [directions, rows, n], in the order of x's rows, zero unless given. give: (y as x is, final states as those) ->
    what the module's forward returns.
    """

    x: torch.Tensor
    rows: torch.Tensor | None
    states: dict[str, torch.Tensor]
    give: Callable


def arrange(stack: Stack, input, states=None) -> Whole:
    """The arguments of a recurrent module's forward, checked. RindleError for shapes that do not fit."""
    packed = isinstance(input, PackedSequence)
    sizes = stack.input_sizes
    if len(sizes) > 1:
        input = _side_by_side(stack, input)
    data = input.data if packed else input
    cell = stack.style == "cell"
    one = 1 if cell else 2  # dimensions of an input without a batch
    if data.shape[-1] != sum(sizes.values()) or (not packed and input.ndim not in (one, one + 1)):
        raise RindleError(f"the input is {list(data.shape)}; the module takes {stack.input_size} features")
    batched = packed or input.ndim == one + 1
    swapped = batched and stack.batch_first and not packed
    if packed:
        x = data
    elif cell:
        x = input[None] if batched else input[None, None]
    else:
        x = input.transpose(0, 1) if swapped else input if batched else input[:, None]
    if not packed and x.shape[0] == 0:
        raise RindleError("the input has no frames; a sequence has at least one")
    order, back = (input.sorted_indices, input.unsorted_indices) if packed else (None, None)
    rows = int(input.batch_sizes[0]) if packed else x.shape[1]

    def give(y, finals):
        finals = [state.index_select(1, back) if back is not None else state for state in finals]
        finals = [state if batched else state[:, 0] for state in finals]
        finals = [state[0] for state in finals] if cell else finals
        after = tuple(finals) if stack.tuple_states else finals[0]
        if cell:
            return after
        if packed:
            return PackedSequence(y, input.batch_sizes, order, back), after
        return (y.transpose(0, 1) if swapped else y if batched else y[:, 0]), after

    return Whole(x, input.batch_sizes if packed else None, _initial(stack, states, x, rows, batched, order), give)


def take(stack: Stack, input, states=None) -> Call:
    """The arguments of a module's forward, taken apart to frames. RindleError for shapes that do not fit."""
    if stack.style == "linear":
        rows = input.reshape(-1, input.shape[-1])
        return Call([rows], [{}], lambda frames, _: frames[0].reshape(*input.shape[:-1], frames[0].shape[-1]))
    whole = arrange(stack, input, states)
    frames = list(whole.x.unbind(0) if whole.rows is None else whole.x.split(whole.rows.tolist()))
    initial = [{name: state[k] for name, state in whole.states.items()} for k in range(len(stack.directions))]

    def give(outputs, finals):
        after = [torch.stack([final[name] for final in finals]) for name in whole.states]
        return whole.give(torch.stack(outputs) if whole.rows is None else torch.cat(outputs), after)

    return Call(frames, initial, give)


def _side_by_side(stack: Stack, inputs) -> torch.Tensor:
    """Several inputs as one tensor: their features joined."""
    sizes = stack.input_sizes
    given = inputs if isinstance(inputs, (tuple, list)) and not isinstance(inputs, PackedSequence) else (inputs,)
    if len(given) != len(sizes):
        raise RindleError(
            f"the module takes {len(sizes)} inputs ({', '.join(sizes)}), not {len(given)}; give a tuple of {len(sizes)} tensors, "
            f"and no PackedSequence"
        )
    for (name, size), one in zip(sizes.items(), given):
        wanted = (*given[0].shape[:-1], size)
        if tuple(one.shape) != wanted:
            raise RindleError(f"the input {name} is {list(one.shape)}; it must be {list(wanted)}")
    return torch.cat(list(given), -1)


def _initial(stack: Stack, states, x: torch.Tensor, rows: int, batched: bool, order) -> dict[str, torch.Tensor]:
    program, directions = stack.layers[0][0].program, sum(map(len, stack.layers))
    sizes = {name: program.sizes[name] for name, _ in program.states}
    if states is None:
        return {name: x.new_zeros(directions, rows, size) for name, size in sizes.items()}
    given = tuple(states) if isinstance(states, (tuple, list)) else (states,)
    if len(given) != len(sizes):
        raise RindleError(f"{len(given)} initial states are given; the module has {', '.join(sizes)}")
    found = {}
    for (name, size), state in zip(sizes.items(), given):
        wanted = ((rows,) if batched else ()) + (size,)
        wanted = wanted if stack.style == "cell" else (directions, *wanted)
        if tuple(state.shape) != wanted:
            raise RindleError(f"the initial state {name} is {list(state.shape)}; it must be {list(wanted)}")
        state = state.reshape(directions, rows, size).to(x)
        found[name] = state.index_select(1, order) if order is not None else state
    return found


def walk(stack: Stack, call: Call, run: Callable, between: Callable | None = None):
    """Runs the stack: run(direction, frames, states) -> (outputs, final states of every row), for a reversed direction over
    flipped frames (22). between: what happens to the frames between two layers. Returns what the module's forward does.
    """
    frames, finals, states = call.frames, [], iter(call.states)
    for number, layer in enumerate(stack.layers):
        if number and between is not None:
            frames = between(frames)
        parts = []
        for direction in layer:
            reverse = direction.reverse and len(frames[0])  # of no rows there is nothing to flip
            flip = (lambda f: flipped(RealArrays, f)) if reverse else (lambda f: f)
            outputs, final = run(direction, flip(frames), next(states))
            parts.append(flip(outputs))
            finals.append(final)
        frames = parts[0] if len(parts) == 1 else [torch.cat(part, -1) for part in zip(*parts)]
    return call.give(frames, finals)
