"""The rows of the study: how many bits which matrices and vectors have, which paths are skipped, and what that weighs.

Source: the precision vectors, shares and size formula of Rezk et al. 2022 (Information 13(4), 176) and of the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

from rindle.formats import RindleError

WIDE = 16  # bits of what is not an integer: fixed point

# label -> W·x in the first and the other layers, U·h likewise, x likewise, h, and the read-out's weights and input.
# Of SRU "U" is the projection before W, and "h" its input.
ROWS: dict[str, tuple[int, ...]] = {
    "uniform8": (8, 8, 8, 8, 8, 8, 8, 8, 8),
    "uniform4": (4, 4, 4, 4, 4, 4, 4, 4, 4),
    "M1": (8, 2, 2, 2, 8, 8, 8, 8, 8),
    "M2": (8, 2, 2, 2, 8, 8, 8, 4, 4),
    "M3": (8, 2, 2, 2, 8, 8, 8, 2, 8),
    "M4": (2, 2, 2, 2, 8, 8, 8, 2, 8),
    "M6": (8, 2, 2, 2, 8, 4, 4, 4, 4),
    "M7": (8, 2, 2, 2, 8, 4, 4, 2, 4),
    "M8": (4, 2, 4, 2, 4, 4, 4, 2, 4),
}
SKIPS = ("none", "all", "first")
FIRST = {"lstm": 2, "gru": 3, "ligru": 3}  # layers that "first" skips in, for models of the paper's depth
# cell -> the gate and source of the product that is left at 16 bits. torch's GRU resets after the product.
SKIPPED = {"lstm": ("g", "h"), "gru_reset_before": ("n", "rh"), "gru": ("nh", "h"), "ligru": ("a", "h")}


@dataclass(frozen=True)
class Product:
    """One weight block of a captured model: W's rows of a gate. layer: its number from below; role: "x", "h" or "fc".

    skippable: it is the path that the paper skips.
    """

    node: str
    layer: int
    gate: str
    source: str
    role: str
    skippable: bool

    @property
    def unit(self) -> str:
        """What shares a clipping threshold and a scale: a gate, of SRU (and the read-out) all of the matrix."""
        return f"{self.gate}.{self.source}" if self.role == "h" and self.gate != "p" else self.source


def base_of(name: str) -> str:
    """Both directions of a layer are two nodes, and one layer."""
    return name.removesuffix("_reverse")


def products_of(graph) -> list[Product]:
    """Every product of the recurrent layers and of the linear nodes, with its part in the study."""
    layers = list(dict.fromkeys(base_of(node.name) for node in graph.recurrent))
    if not layers:
        raise RindleError("the model has no recurrent layer; the study is of those")
    found = []
    for node in graph.programs:
        program = node.layer.program
        recurrent = bool(program.states)
        layer = layers.index(base_of(node.name)) if recurrent else layer_above(graph, node.name, layers)
        for gate, source in program.products:
            if not recurrent:
                role = "fc" if layer is None else "h"
            else:
                role = "h" if gate == "p" or source not in (*program.inputs, "p") else "x"
            skip = (gate, source) == SKIPPED.get(program.cell)
            found.append(Product(node.name, -1 if layer is None else layer, gate, source, role, skip))
    return found


def layer_above(graph, name: str, layers: list[str]) -> int | None:
    """The recurrent layer that reads a linear node, which is then its projection; None of a read-out."""
    reached = {name}
    for node in graph.nodes:
        if reached & set(node.sources):
            if node.kind == "program" and node.layer.program.states:
                return layers.index(base_of(node.name))
            reached.add(node.name)
    return None


@dataclass(frozen=True)
class Precision:
    """A row and a skip mode, for any depth."""

    row: str
    skip: str = "none"

    def __post_init__(self):
        if self.row not in ROWS or self.skip not in SKIPS:
            raise RindleError(
                f"there is no row {self.row!r} with skip {self.skip!r}; rows: {', '.join(ROWS)}; skip: {', '.join(SKIPS)}"
            )

    def skips(self, product: Product, cell: str) -> bool:
        """Whether the product stays at 16 bits."""
        if not product.skippable or self.skip == "none":
            return False
        return self.skip == "all" or product.layer < FIRST[cell.split("_")[0]]

    def bits(self, product: Product, cell: str) -> tuple[int, int]:
        """Of its weights, and of the vector that they multiply."""
        first, wx, first_h, wh, first_x, ax, ah, fc, fc_in = ROWS[self.row]
        if self.skips(product, cell):
            return WIDE, WIDE
        if product.role == "fc":
            return fc, fc_in
        if product.role == "h":
            return (wh if product.layer else first_h), ah
        return (wx if product.layer else first), (ax if product.layer else first_x)

    def scheme(self, graph, wide: int = WIDE) -> dict[str, str]:
        """Rindle's rules of the same widths: every product by name, fixed point elsewhere. wide: bits of skipped paths."""
        rules = {"*": "fixed16 max(1.25)"}
        for one in products_of(graph):
            weight, code = self.bits(one, graph.node(one.node).layer.program.cell)
            rules[f"{one.node}/weight.{one.gate}.{one.source}"] = (
                f"fixed{wide} max" if weight == WIDE else f"int{weight} mmse"
            )
            rules[f"{one.node}/code.{one.gate}.{one.source}"] = (
                f"fixed{wide} max(1.25)" if code == WIDE else f"int{code} mmse"
            )
        return rules


@dataclass(frozen=True)
class Count:
    """Of one product: distinct weights, how often a frame multiplies by them, and whether it is skipped."""

    product: Product
    weights: int
    macs: int
    bits: int
    skipped: bool


def shared_directions(graph, name: str) -> bool:
    """Whether a layer's two directions have the same matrices, as in pytorch-kaldi."""
    other = next((node for node in graph.programs if node.name == f"{name}_reverse"), None)
    if other is None:
        return False
    blocks, twin = graph.node(name).layer.blocks, other.layer.blocks
    return all(bool((blocks[key] == twin[key]).all()) for key in blocks)


def counts(graph, precision: Precision) -> list[Count]:
    """Where both directions share their weights, these are stored once, and W·x is computed once, U·h twice.

    A projection of SRU belongs to both directions, too, and is both stored and computed once.
    """
    found, seen = [], {}
    for one in products_of(graph):
        node = graph.node(one.node)
        block = node.layer.blocks[f"{one.gate}.{one.source}"]
        base = base_of(one.node)
        if base not in seen:
            seen[base] = shared_directions(graph, base)
        twin = base != one.node
        same = twin and (
            seen[base] or (one.gate == "p" and bool((block == graph.node(base).layer.blocks["p.x"]).all()))
        )
        weights = 0 if same else block.numel()
        macs = block.numel() if one.role == "h" and one.gate != "p" else weights
        cell = node.layer.program.cell
        found.append(Count(one, weights, macs, precision.bits(one, cell)[0], precision.skips(one, cell)))
    return found


def vectors(graph) -> int:
    """Elements that always have 16 bits: SRU's v and b, the others' (folded) biases, those of the read-out included."""
    total, seen = 0, set()
    for node in graph.programs:
        base = base_of(node.name)
        if base in seen and shared_directions(graph, base):
            continue
        seen.add(base)
        total += sum(value.numel() for name, value in node.layer.blocks.items() if "." not in name)
    return total


def size_bytes(graph, precision: Precision) -> float:
    """The published convention: matrices at their bits, 16 bits for each vector element, no scales, tables or headers."""
    matrices = sum(one.weights * one.bits for one in counts(graph, precision))
    return (matrices + 16 * vectors(graph)) / 8


def float_bytes(graph) -> float:
    """The denominator of the published compression: matrices at 32 bits, vectors at 16."""
    return sum(one.weights * 32 for one in counts(graph, Precision("uniform8"))) / 8 + 2 * vectors(graph)


def compression(graph, precision: Precision) -> float:
    """Share, 0..1."""
    return 1 - size_bytes(graph, precision) / float_bytes(graph)


SKIPPED_DENSITY = ELEMENTWISE_DENSITY = 0.97  # 16-bit values hardly repeat


def eliminated(graph, precision: Precision, densities: dict[tuple[str, str], float]) -> float:
    """Share of the operations, 0..1, as the authors count them: each product's share times the density of its input.

    densities: (base name of a layer, source) -> share of changed elements, of what is held. The skipped products and the
    element-wise operations (as many as vector elements) count with 97 %.
    """
    executed = ELEMENTWISE_DENSITY * vectors(graph)
    whole = vectors(graph)
    for one in counts(graph, precision):
        density = SKIPPED_DENSITY if one.skipped else densities[base_of(one.product.node), one.product.source]
        executed, whole = executed + one.macs * density, whole + one.macs
    return 1 - executed / whole
