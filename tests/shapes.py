"""Models of which only the shapes are known: full-size ones without their weights."""

from dataclasses import dataclass, replace

from rindle import CELLS
from rindle.cells import linear
from rindle.program.graph import Graph
from rindle.program.nodes import INPUT, ProgramNode
from rindle.scheme import rezk as presets
from rindle.scheme.rules import resolve


@dataclass
class Shapes:
    """A layer of which only the program is known."""

    program: object


def chain(cells: str | list[str], layers: int, sizes=(23, 1100, 550, 256), outputs: int = 1936) -> Graph:
    """Layers of a cell (or of one each) and a Linear behind them. sizes: of the input, of a later layer's input, H, P."""
    first, width, hidden, projected = sizes
    nodes, source = [], INPUT
    for k, cell in enumerate([cells] * layers if isinstance(cells, str) else cells):
        program = CELLS[cell].program.with_sizes(I=width if k else first, H=hidden, P=projected)
        if not k:  # the paper does not count the matrix that an SRU needs where input and output differ in width
            program = replace(program, sizes=program.sizes | {"x": first, "x.code": first})
        nodes.append(ProgramNode(f"rnn.l{k}", (source,), Shapes(program)))
        source = nodes[-1].name
    nodes.append(ProgramNode("fc", (source,), Shapes(linear.program.with_sizes(I=width, O=outputs))))
    return Graph(first, tuple(nodes), "fc")


def resolved(scheme, graph: Graph) -> dict:
    """(layer, path) -> Rule."""
    keys = {}
    for node in graph.programs:
        program = node.layer.program
        keys[node.name] = [*program.paths, *program.vectors]
        keys[node.name] += [f"{kind}.{gate}.{source}" for kind in ("weight", "code") for gate, source in program.blocks]
    return resolve(presets.rules(scheme, graph), None, keys)
