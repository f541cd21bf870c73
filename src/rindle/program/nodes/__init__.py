"""The kinds of nodes, one a file. A new kind is a file here, its name below, and how a file holds it in ``file/nodes.py``."""

from .concat import ConcatNode
from .embedding import EmbeddingNode
from .first import FirstNode
from .floats import FloatNode
from .gather import GatherNode
from .last import LastNode
from .maximum import MaxNode
from .mean import MeanNode
from .node import INPUT, Node, each
from .program import ProgramNode, flipped, run_layer
from .window import Window, WindowNode

NODES: dict[str, type[Node]] = {
    node.kind: node
    for node in (
        ProgramNode,
        LastNode,
        FirstNode,
        MeanNode,
        ConcatNode,
        EmbeddingNode,
        WindowNode,
        GatherNode,
        MaxNode,
        FloatNode,
    )
}

__all__ = [
    "INPUT",
    "NODES",
    "ConcatNode",
    "EmbeddingNode",
    "FirstNode",
    "FloatNode",
    "GatherNode",
    "LastNode",
    "MaxNode",
    "MeanNode",
    "Node",
    "ProgramNode",
    "Window",
    "WindowNode",
    "each",
    "flipped",
    "run_layer",
]
