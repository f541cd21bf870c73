"""What a captured graph needs no nodes for: windows that one window can be, scales that a layer's
weights take up, parts of a join that are there alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ....program.nodes import INPUT, ConcatNode, GatherNode, Node, ProgramNode, Window, WindowNode
from ...numerics import FloatLayer


def tidy(nodes: list[Node], output: str) -> tuple[tuple[Node, ...], str]:
    """The nodes that the output depends on, in fewer that compute the same; and the output's name."""
    nodes = live(nodes, output)
    while True:
        for rule in (join_padding, drop_cut, fold_scale, pick_part):
            made = rule(nodes, output)
            if made is not None:
                nodes, output = made
                nodes = live(nodes, output)
                break
        else:
            return tuple(nodes), output


def live(nodes, output: str) -> list[Node]:
    """Those that the output depends on: a layer whose final states alone are used needs no joined output."""
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.sources)
    return [node for node in nodes if node.name in needed]


def readers(nodes, name: str, output: str) -> int:
    return sum(node.sources.count(name) for node in nodes) + (name == output)


def put(nodes, changed: dict[str, Node]) -> list[Node]:
    return [changed.get(node.name, node) for node in nodes]


def bypass(nodes, output: str, name: str, source: str) -> tuple[list[Node], str]:
    """What reads ``name`` reads ``source``."""

    def other(one: str) -> str:
        return source if one == name else one

    rewired = [replace(node, sources=tuple(map(other, node.sources))) for node in nodes if node.name != name]
    return rewired, other(output)


def join_padding(nodes, output: str):
    """Frames of zeros, then a window: the window's own padding."""
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        before = by_name.get(node.source)
        if not isinstance(node, WindowNode) or not isinstance(before, WindowNode):
            continue
        window, padding = node.window, before.window
        if (padding.size, padding.stride) == (1, 1):
            window = replace(window, before=window.before + padding.before, after=window.after + padding.after)
            return put(nodes, {node.name: replace(node, sources=before.sources, window=window)}), output
    return None


def drop_cut(nodes, output: str):
    """Frames cut off that a padded window has made: less padding. So a convolution padded at both ends and cut at the end
    ("chomp") is causal.
    """
    by_name = {node.name: node for node in nodes}
    for cut in nodes:
        pair = by_name.get(cut.source)
        if not isinstance(cut, GatherNode) or not isinstance(pair, WindowNode):
            continue
        if pair.window != Window(2, pair.window.dilation):
            continue
        size = len(cut.index)
        at_end = cut.index == tuple(range(size))
        if not (at_end or cut.index == tuple(range(size, 2 * size))) or readers(nodes, pair.name, output) > 1:
            continue
        window = _window_before(nodes, by_name, pair.source, output)
        off = pair.window.dilation
        if window is None or (window.window.after if at_end else window.window.before) < off:
            continue
        less = replace(
            window.window,
            **({"after": window.window.after - off} if at_end else {"before": window.window.before - off}),
        )
        nodes = put(nodes, {window.name: replace(window, window=less)})
        return bypass(nodes, output, cut.name, pair.source)
    return None


def _window_before(nodes, by_name: dict, name: str, output: str) -> WindowNode | None:
    """The window, of stride 1, whose frames a value has one by one, if nothing else reads it on the way."""
    while name != INPUT and readers(nodes, name, output) == 1:
        node = by_name[name]
        if isinstance(node, WindowNode):
            return node if node.window.stride == 1 else None
        if not isinstance(node, (ProgramNode, GatherNode)) or len(node.sources) > 1:
            return None
        if isinstance(node, ProgramNode) and node.layer.program.states:
            return None
        name = node.source
    return None


def fold_scale(nodes, output: str):
    """x·a + b after a Linear or a convolution that nothing else reads, batch norm above all: into its rows."""
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        vectors, layer = _scaling(node), by_name.get(node.source)
        if vectors is None or not isinstance(layer, ProgramNode) or not _is_product(layer):
            continue
        if readers(nodes, layer.name, output) > 1:
            continue
        program, blocks = layer.layer.program, dict(layer.layer.blocks)
        rows = program.block_shape("y")[0]
        scale, shift = (vectors.get(name) for name in ("scale", "shift"))
        one = {name: v.reshape(rows, -1) for name, v in (("scale", scale), ("shift", shift)) if v is not None}
        if any((v != v[:, :1]).any() for v in one.values()):
            continue  # it differs from pixel to pixel of a channel
        one = {name: v[:, 0] for name, v in one.items()}
        a, b = one.get("scale", torch.ones(rows)), one.get("shift", torch.zeros(rows))
        folded = FloatLayer(program, {"y.x": blocks["y.x"] * a[:, None], "y": blocks["y"] * a + b})
        return bypass(put(nodes, {layer.name: replace(layer, layer=folded)}), output, node.name, layer.name)
    return None


def pick_part(nodes, output: str):
    """The features that one of two directions gave to their join: that direction."""
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        join = by_name.get(node.source)
        if not isinstance(node, GatherNode) or not isinstance(join, ConcatNode):
            continue
        parts, start = [by_name.get(one) for one in join.sources], 0
        for part in parts:
            if not isinstance(part, ProgramNode):
                break
            size = part.layer.program.sizes[part.layer.program.output]
            if node.index == tuple(range(start, start + size)):
                return bypass(nodes, output, node.name, part.name)
            start += size
    return None


def _scaling(node: Node) -> dict | None:
    """The constants of a program that only scales and shifts: "scale", "shift"."""
    if not isinstance(node, ProgramNode) or len(node.sources) > 1:
        return None
    program = node.layer.program
    if [op.kind for op in program.ops] not in (["mul"], ["add"], ["mul", "add"]) or program.states:
        return None
    return node.layer.blocks if set(program.vectors) <= {"scale", "shift"} and program.vectors else None


def _is_product(node: ProgramNode) -> bool:
    """A Linear or a convolution, and no more."""
    return set(node.layer.blocks) == {"y.x", "y"} and not node.layer.program.states
