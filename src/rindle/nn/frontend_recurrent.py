"""How captured recurrent layers and their final states become nodes: one function per operation of the exported graph.

Each takes the capture (``frontend._Capture``) and the operation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import cells
from ..program import Cell
from .modules import Recurrent, known_cell


@dataclass(frozen=True)
class Finals:
    """Final states of a stack of layers, or of one layer, whose output is the state; node names from first to last, of
    two directions the forward one before the reversed one.
    """

    nodes: tuple[str, ...]


ZEROS = object()  # an initial state


def gru(capture, fx):
    return _torch_stack(capture, fx, cells.gru, [fx.args[1]])


def lstm(capture, fx):
    return _torch_stack(capture, fx, cells.lstm, fx.args[1])


def _torch_stack(capture, fx, cell: Cell, initial):
    """aten.gru.input and aten.lstm.input: (x, h0, parameters, has_biases, layers, dropout, train, bidirectional, batch_first)."""
    flat, biases, layers, _, _, bidirectional, batch_first = fx.args[2:]
    if any(capture.values.get(state) is not ZEROS for state in initial):
        raise capture.refuse(
            fx, "is given an initial state; only zeros (or none) are supported, and a stream carries the state"
        )
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if biases else 2]
    directions = (False, True) if bidirectional else (False,)
    if len(flat) != layers * len(directions) * len(names):
        raise capture.refuse(fx, "has a projection (proj_size), which is not supported yet")
    value, arguments = capture.sequence(fx, batch_first), iter(flat)
    source, finals = value.node, []
    for k in range(layers):
        made = []
        for reverse in directions:
            parameters = {name: capture.parameter(fx, next(arguments)) for name in names}
            width, hidden = parameters["weight_ih"].shape[1], parameters["weight_hh"].shape[1]
            made.append(_layer(capture, fx, k, source, cell, parameters, reverse, I=width, H=hidden))
        finals += made
        source = (
            capture.add(f"{_layer_name(capture, fx, k, cell)}.concat", "concat", tuple(made))
            if bidirectional
            else made[0]
        )
    # only the output's own state, h, can be read off the output sequence
    return (replace(value, node=source), Finals(tuple(finals)), None)[: 1 + len(initial)]


def recurrent(capture, fx):
    """One layer of our own Recurrent, whose module says which cell it is."""
    value = capture.sequence(fx, False)
    hidden, k, name = fx.args[2], fx.args[3], fx.args[5]
    module = capture.model.get_submodule(capture.path(fx)) if capture.model is not None else None
    if capture.model is not None and not isinstance(module, Recurrent):
        raise capture.refuse(fx, "is used outside a Recurrent module")
    cell = known_cell(name) if module is None else module.cell
    tensors = [capture.parameter(fx, argument) for argument in fx.args[1]]
    width = int(fx.args[0].meta["val"].shape[2])
    made = _layer(capture, fx, k, value.node, cell, dict(zip(cell.layout, tensors)), I=width, H=hidden)
    program = cell.program
    finals = [Finals((made,)) if following == program.output else None for _, following in program.states]
    return [replace(value, node=made), *finals]


def _layer_name(capture, fx, k: int, cell: Cell) -> str:
    return f"{capture.path(fx) or cell.name}.l{k}"


def _layer(capture, fx, k: int, source: str, cell: Cell, parameters: dict, reverse: bool = False, **sizes: int) -> str:
    name = _layer_name(capture, fx, k, cell) + "_reverse" * reverse  # as torch names its weights
    return capture.program(name, source, cell, parameters, reverse, **sizes)


def final(capture, source: str):
    """The final state of a layer: a reversed one ends at the first frame."""
    (node,) = (node for node in capture.nodes if node.name == source)
    return capture.pick(source, "first" if node.reverse else "last")


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
