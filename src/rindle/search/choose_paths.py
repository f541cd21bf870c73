"""Sensitivity of a model's paths, measured in the C++ core: ``search.sensitivity`` over models that a callable makes.

Errors are counted as in ``delta``, in points against the model with all paths at 16 bits: the larger of what the metric itself
loses and of an upper limit of what its smooth form loses; a model whose outputs stand still is within no budget. Needs no torch; ``nn.candidates`` makes the models.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from ..engines.model import Model
from ..file.dataset import Dataset
from ..measure.evaluate import DEVIATIONS, judge_of
from ..program.products import blocks_of
from ..scheme.rezk import at_16_bits
from .sensitivity import KINDS, Found, Outcome, Parts, Path, search

GROUPS = ("layer", "cell")  # paths of a layer, both directions together; or one path for all layers of a cell


def paths_of(graph, rules: dict, by: str = "layer") -> dict[str, Path]:
    """The products that a scheme (``scheme.resolve``) gives less than 16 bits, by name: "rnn.l0/g.h", or "lstm g.h"."""
    weights: dict[str, set] = {}
    codes: dict[str, set] = {}
    for one in blocks_of(graph):
        node = one.node
        layer = node.name.removesuffix("_reverse") if node.reverse else node.name
        product = f"{one.gate}.{one.source}"
        name = f"{layer}/{product}" if by == "layer" else f"{node.layer.program.cell} {product}"
        for key, found in ((one.weight_key, weights), (one.code_key, codes)):
            if rules[key].bits < 16:
                found.setdefault(name, set()).add("/".join(key))
    names = [name for name in dict.fromkeys([*weights, *codes])]
    return {name: Path(frozenset(weights.get(name, ())), frozenset(codes.get(name, ()))) for name in names}


def overrides_of(parts: Parts) -> dict[str, str]:
    """Parts ("layer/weight.gate.source") -> the rules that keep them at 16 bits."""
    found = {}
    for part in sorted(parts):
        layer, _, path = part.partition("/")
        _, gate, source = path.split(".", 2)
        found[part] = at_16_bits(layer, gate, source)[part]
    return found


def kept_rules(found: Found, paths: dict[str, Path]) -> dict[str, str]:
    """The proposal as overrides."""
    return overrides_of(frozenset().union(*(paths[name].both for name in found.kept)))


def toml(rules: dict[str, str]) -> str:
    """Overrides as a file's text."""
    return "".join(f"{json.dumps(key)} = {json.dumps(rule)}\n" for key, rule in rules.items())


def measure(
    make: Callable[[dict[str, str]], Model],
    paths: dict[str, Path],
    data: Dataset,
    budget: float,
    *,
    task: str | None = None,
    decision: str | float | None = None,
    kinds: tuple[str, ...] = KINDS,
    log: str | os.PathLike | None = None,
    seen: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Found:
    """make: overrides -> the model. data: for validation; never test data. budget: in points. task, decision: see
    ``measure.evaluate.judge_of``. kinds, log, seen: see ``search``. say(text): is told how outputs are judged.
    """
    whole = make(overrides_of(frozenset().union(*(path.both for path in paths.values()))))
    judge = judge_of(data, whole.run(data.x, data.lengths), whole.artifact.graph, task, decision)
    if say:
        say(str(judge))

    def evaluate(kept: Parts) -> Outcome:
        model = make(overrides_of(kept))
        loss = judge.loss(model.run(data.x, data.lengths))
        return Outcome(loss.limit, loss.drift, len(model.data), loss.more, loss.useless)

    key = f"{whole.id} {make({}).id} {data.sha256} {judge} {DEVIATIONS}"
    return search(evaluate, paths, budget, kinds, log=log, key=key, seen=seen)
