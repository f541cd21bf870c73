"""Formats that several readers share: of the model's input and embeddings, and of what a concat joins.

A value's *root* is what decides its format: the element-wise path of a program that makes it, or an *origin*, which is
the model's input or an embedding: nothing computes it, so that its readers say what it should be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...errors import RindleError
from ...numbers.formats import Format
from ...program.graph import Graph
from ...program.nodes import INPUT, ConcatNode, EmbeddingNode, ProgramNode
from ...scheme.paths import origin_of
from ...scheme.rules import Rule

Root = tuple[str, str]  # (node, path); (origin, "")


def readers(graph: Graph, origin: str) -> list[tuple[ProgramNode, str]]:
    """The programs that read an origin, and the paths by which they do."""
    return [
        (node, path)
        for node in graph.programs
        for source, path in zip(node.sources, node.layer.program.inputs)
        if origin_of(graph, source) == origin
    ]


def _root(graph: Graph, name: str) -> Root:
    """All that a concat joins has one root format, so that its first source stands for it."""
    while name != INPUT:
        node = graph.node(name)
        if isinstance(node, EmbeddingNode):
            break
        if isinstance(node, ProgramNode):
            program = node.layer.program
            path = program.format_name(program.output)
            clips = {op.out[0]: op.args[0] for op in program.ops if op.kind == "clip"}
            while path in clips:
                path = program.format_name(clips[path])
            if path not in program.inputs:
                return name, path
            name = node.sources[program.inputs.index(path)]
        else:
            name = node.source
    return name, ""


def tied(graph: Graph) -> dict[str, list[Root]]:
    """Roots that must have one format, under the name of a concat that joins them. Only groups of several."""
    groups: dict[str, list[Root]] = {}
    for node in graph.nodes:
        if not isinstance(node, ConcatNode):
            continue
        joined = list(dict.fromkeys(_root(graph, source) for source in node.sources))
        for name in [name for name, group in groups.items() if set(group) & set(joined)]:
            joined += [root for root in groups.pop(name) if root not in joined]
        groups[node.name] = joined
    return {name: group for name, group in groups.items() if len(group) > 1}


def agree(
    graph: Graph, rules: dict[Root, Rule], choose: Callable[[str, str], Format], observed: Callable[[str], Format]
) -> dict[Root, Format]:
    """The common format of every tied root: the coarsest that one of them needs.

    choose: the format of (node, path) by its rule. observed: a 16-bit format for all that an origin was seen to hold.
    Raises RindleError where the rules of a group cannot agree.
    """
    forced = {}
    for concat, group in tied(graph).items():
        formats, given = {}, {}
        for root in group:
            if root[1]:
                keys = [root]
            else:
                keys = [(node.name, path) for node, path in readers(graph, root[0])]
                formats[root] = observed(root[0])
            for key in keys:
                formats[key] = choose(*key)
                if rules[key].frac is not None:
                    given[key] = formats[key]
        names = {"/".join(key).rstrip("/"): fmt for key, fmt in formats.items()}
        remedy = "give them one format by an override"
        if len({fmt.bits for fmt in formats.values()}) > 1:
            found = ", ".join(f"{name} has {fmt.bits} bits" for name, fmt in names.items())
            raise RindleError(f"{concat} joins values of different widths: {found}; {remedy}")
        if len(set(given.values())) > 1:
            found = ", ".join(f"{'/'.join(key)} is {fmt}" for key, fmt in given.items())
            raise RindleError(f"{concat} joins values of different formats: {found}; {remedy}")
        common = next(iter(given.values()), min(formats.values(), key=lambda fmt: fmt.frac))
        forced |= dict.fromkeys(group, common)
    return forced


def origin_format(
    graph: Graph, origin: str, layers: dict, rules: dict[Root, Rule], observed: Callable[[str], Format]
) -> Format:
    """The narrow format if all readers are products that use that same format, else 16-bit fixed. Numerics, section 1.

    observed: a 16-bit format for all that the origin was seen to hold: for where no program reads it, and for an embedding,
    all of whose rows are known, unless the fraction bits are given.
    """
    narrow, candidates, given = set(), [], False
    for node, path in readers(graph, origin):
        layer = layers[node.name]
        candidates.append(layer.formats[path])
        given |= rules[node.name, path].frac is not None
        for op in layer.program.ops:
            if path in op.args:
                narrow.add(layer.formats[op.out[0]] if op.out[0] in layer.program.codes else None)
    wide = any(
        node.needs_wide and origin in {origin_of(graph, source) for source in node.sources} for node in graph.nodes
    )
    if len(narrow) == 1 and None not in narrow and not wide:
        return replace(narrow.pop(), product=False)  # 16 bits fixed: the whole range is used
    if not candidates or (origin != INPUT and not given):
        candidates.append(observed(origin))
    return min(candidates, key=lambda fmt: fmt.frac)
