"""How captured recurrent layers and their final states become nodes: one function per operation of the exported graph.

Each takes the capture (``frontend._Capture``) and the operation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .... import cells
from ....program.nodes import ConcatNode, ProgramNode
from ....program.tracer import Cell
from ...modules import Recurrent, chunks, known_cell, read_dimensions
from .values import TIME_BATCH


@dataclass(frozen=True)
class Finals:
    """Final states of a stack of layers, or of one layer, whose output is the state; node names from first to last, of
    two directions the forward one before the reversed one.
    """

    nodes: tuple[str, ...]


ZEROS = object()  # an initial state

Initial = list[
    dict[str, torch.Tensor]
]  # of each layer and direction: state -> [n] before the first frame, none where it is zero


def rnn_tanh(capture, fx):
    return _torch_stack(capture, fx, cells.rnn_tanh, [fx.args[1]])


def rnn_relu(capture, fx):
    return _torch_stack(capture, fx, cells.rnn_relu, [fx.args[1]])


def gru(capture, fx):
    return _torch_stack(capture, fx, cells.gru, [fx.args[1]])


def lstm(capture, fx):
    return _torch_stack(capture, fx, cells.lstm, fx.args[1])


# torch's parameters of one direction of one layer, by their number
PARAMETERS = {
    2: ("weight_ih", "weight_hh"),
    3: ("weight_ih", "weight_hh", "weight_hr"),
    4: ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
    5: ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"),
}


def _torch_stack(capture, fx, cell: Cell, initial):
    """aten.lstm.input and its kin: (x, h0, parameters, has_biases, layers, dropout, train, bidirectional, batch_first)."""
    flat, _, layers, _, _, bidirectional, batch_first = fx.args[2:]
    value, directions = capture.sequence(fx, batch_first), (False, True)[: 1 + bidirectional]
    begins = _initial(capture, fx, cell, initial, layers * len(directions))
    names = PARAMETERS[len(flat) // (layers * len(directions))]
    source, finals, arguments = value.node, [], iter(flat)
    for k in range(layers):
        made = []
        for reverse in directions:
            parameters = {name: capture.parameter(fx, next(arguments)) for name in names}
            sizes = {"I": parameters["weight_ih"].shape[1], "H": parameters["weight_hh"].shape[1]}
            if "weight_hr" in parameters:
                cell = cells.lstm_projection
                sizes |= dict(zip("PH", parameters["weight_hr"].shape))
            made.append(_layer(capture, fx, k, source, cell, parameters, reverse, sizes, begins.pop(0)))
        finals += made
        source = _joined(capture, fx, k, cell, made)
    # only the output's own state, h, can be read off the output sequence
    return (replace(value, node=source), Finals(tuple(finals)), None)[: 1 + len(initial)]


def recurrent(capture, fx):
    """One layer of our own Recurrent, whose module says which cell it is."""
    value = capture.sequence(fx, False)
    _, tensors, initial, _, dimensions, k, bidirectional, name, others = fx.args
    module = capture.model.get_submodule(capture.path(fx)) if capture.model is not None else None
    if capture.model is not None and not isinstance(module, Recurrent):
        raise capture.refuse(fx, "is used outside a Recurrent module")
    cell = known_cell(name) if module is None else module.cell
    begins = _initial(capture, fx, cell, initial, 1 + bidirectional, k * (1 + bidirectional))
    sizes = {"I": int(fx.args[0].meta["val"].shape[2])} | read_dimensions(dimensions)
    made = []
    for reverse, one in enumerate(chunks(list(tensors), 1 + bidirectional)):
        parameters = {name: capture.parameter(fx, argument) for name, argument in zip(cell.layout, one)}
        beside = [_own_part(capture, fx, other, reverse, 1 + bidirectional) for other in others]
        sources = (value.node, *beside) if beside else value.node
        made.append(_layer(capture, fx, k, sources, cell, parameters, bool(reverse), sizes, begins[reverse]))
    program = cell.program
    finals = [
        Finals((node,)) if following == program.output else None for node in made for _, following in program.states
    ]
    return [replace(value, node=_joined(capture, fx, k, cell, made)), *finals]


def _own_part(capture, fx, other, reverse: int, directions: int) -> str:
    """The node that a direction reads as a further input, whose features are those of all directions."""
    value = capture.sequence_of(fx, capture.checked(fx, capture.laid_node(fx, other)), TIME_BATCH)
    size = len(value.index) // directions
    return capture.ordered(fx, replace(value, index=value.index[reverse * size : (reverse + 1) * size]))


def _initial(capture, fx, cell: Cell, given: list, directions: int, first: int = 0) -> Initial:
    """What so many directions begin from, the first of them being that number of the stack. given: a tensor [directions of the
    stack, B, n] per state, or none.
    """
    found: Initial = [{} for _ in range(directions)]
    for (state, _), argument in zip(cell.program.states, given):
        if capture.values.get(argument) is ZEROS:
            continue
        values = capture.constant(argument)
        if values is None:
            raise capture.refuse(
                fx,
                "is given an initial state that follows from the input; a captured model begins from zeros or from a constant, such "
                "as an nn.Parameter that is expanded over the rows. A stream carries the state from frame to frame, saves and "
                "restores it, and takes any with set_states; rindle.prepare and convert(…, whole=False) keep it an argument",
            )
        values = values.to(torch.float32)
        if not torch.isfinite(values).all():
            raise capture.refuse(fx, f"is given an initial state {state} with NaN or infinity")
        if (values != values[:, :1]).any():
            raise capture.refuse(
                fx,
                f"is given an initial state {state} that differs from row to row; a captured model begins every row alike. A stream "
                f"takes any state with set_states",
            )
        for one, value in zip(found, values[first:, 0]):
            if value.any():
                one[state] = value.clone()
    return found


def _layer_name(capture, fx, k: int, cell: Cell) -> str:
    return f"{capture.path(fx) or cell.name}.l{k}"


def _layer(capture, fx, k: int, source, cell: Cell, parameters: dict, reverse: bool, sizes: dict, initial: dict) -> str:
    name = _layer_name(capture, fx, k, cell) + "_reverse" * reverse  # as torch names its weights
    return capture.program(name, source, cell, parameters, reverse, initial, **sizes)


def _joined(capture, fx, k: int, cell: Cell, made: list[str]) -> str:
    if len(made) == 1:
        return made[0]
    return capture.add(ConcatNode(f"{_layer_name(capture, fx, k, cell)}.concat", tuple(made)))


def final(capture, source: str):
    """The final state of a layer: a reversed one ends at the first frame."""
    (node,) = (node for node in capture.nodes if node.name == source)
    return capture.pick(source, "first" if isinstance(node, ProgramNode) and node.reverse else "last")


def squeeze(capture, fx):
    source = capture.values.get(fx.args[0])
    if isinstance(source, Finals) and fx.args[1] == 0 and len(source.nodes) == 1:
        return final(capture, source.nodes[0])
    raise capture.refuse(fx, "is supported only on the final state of one layer")


def stack(capture, fx):
    parts = [capture.values.get(part) for part in fx.args[0]]
    if all(isinstance(part, Finals) for part in parts):
        return Finals(tuple(node for part in parts for node in part.nodes))
    return None  # final states that are not the output: an error only if something reads them
