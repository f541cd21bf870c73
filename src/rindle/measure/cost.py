"""What a model takes: bytes of its file, by what they hold."""

from __future__ import annotations

from ..file.container import dumps
from ..file.document import to_document
from ..program.products import blocks_of


def weight_bytes(graph, rules) -> int:
    """What the weights of a graph will take in a file, from shapes and bits alone: each row of a matrix padded to a byte.

    rules: (layer, "weight.gate.source") -> what has ``bits``, as ``scheme.resolve`` gives.
    """
    total = 0
    for one in blocks_of(graph):
        total += one.rows * (-(-one.columns * rules[one.weight_key].bits // 8))
    return total


def sizes(artifact) -> dict[str, int]:
    """Bytes of the file by what they hold: weights, embeddings, scaling (multipliers, scales, biases), tables, …; sums to
    its size.
    """
    _, tensors = to_document(artifact)
    names = ("weights", "embeddings", "scaling and biases", "tables", "vectors and thresholds", "golden vector")
    kinds = dict.fromkeys(names, 0)
    looked_up = {f"{node.name}/embedding" for node in artifact.graph.embeddings}
    for name, tensor in tensors.items():
        leaf = name.split("/", 1)[1]
        if name.startswith("golden/"):
            kind = "golden vector"
        elif name.startswith("table/"):
            kind = "tables"
        elif name in looked_up:
            kind = "embeddings"
        elif leaf.startswith("bias.") or leaf.endswith((".multiplier", ".scales")):
            kind = "scaling and biases"
        elif leaf.startswith("weight."):
            kind = "weights"
        else:
            kind = "vectors and thresholds"
        kinds[kind] += tensor.nbytes
    return kinds | {"document": len(dumps(artifact)) - sum(kinds.values())}
