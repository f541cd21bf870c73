"""The search over fraction bits (``search.fractions``) on a calibrated model: each candidate is made and run in the C++ core."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...errors import RindleError, RindleWarning
from ...file.dataset import Dataset
from ...measure.evaluate import judge_of
from ...scheme.rules import Rule
from ...search.fractions import Fractions, Trial, search_fractions
from ..calibrate.plan import Plan, replan
from ..capture.source import float_outputs
from ..conversion.rounding import refuse_words

PARTS = 8  # of the rows, whose drifts are looked at apart


@dataclass(frozen=True)
class Tensor:
    """keys: (layer, path or block) whose rules share one format. frac: its fraction bits as calibrated."""

    keys: tuple[tuple[str, str], ...]
    bits: int
    frac: int


@dataclass(frozen=True)
class Searched:
    """calibrated: the result, ready to be made. overrides: what the search has changed, as plain data: "fixed(8,5)"."""

    calibrated: object
    overrides: dict[str, str]
    found: Fractions


def tensors_of(plan: Plan) -> dict[str, Tensor]:
    """Name -> what has fraction bits of its own to choose: element-wise paths, vectors, narrow codes, weights."""
    found = {}
    for name, layer in plan.layers.items():
        program = layer.program
        for path in (*program.paths, *program.vectors):
            fmt = layer.formats[path]
            if (name, path) in plan.rules and not (path in program.inputs and fmt.product):
                found[f"{name}/{path}"] = Tensor(((name, path),), fmt.bits, fmt.frac)
        codes: dict[str, list] = {}
        for term in program.terms:
            codes.setdefault(term.code, []).extend((name, f"code.{gate}.{term.source}") for gate in term.gates)
            fmt, _ = layer.weights[term.key]
            if fmt.is_fixed:
                keys = tuple((name, f"weight.{gate}.{term.source}") for gate in term.gates)
                found[f"{name}/weight.{term.key}"] = Tensor(keys, fmt.bits, fmt.frac)
        for code, keys in codes.items():
            if layer.formats[code].is_fixed:
                fmt = layer.formats[code]
                found[f"{name}/{code}"] = Tensor(tuple(keys), fmt.bits, fmt.frac)
    return found


def search_formats(
    calibrated, data: Dataset, log=None, seen: Callable[[Trial, int], None] | None = None, task: str | None = None
) -> Searched:
    """Better fraction bits for a model that ``quantize.calibrated`` has calibrated.

    data: sequences on which outputs are compared with the float model's (``evaluate.Judge.drift``; no labels are read): validation or
    calibration rows, never test rows. log: a file of evaluations; a search that was killed goes on from there. Costs a
    conversion and a run over the data per candidate, about two per tensor and pass.
    """
    plan = calibrated.plan
    refuse_words(plan.rules, "the search over fraction bits takes the nearest codes")
    data.check_fits(plan.graph)
    tensors, wanted = tensors_of(plan), float_outputs(plan.graph, data)
    judge = judge_of(data, wanted, plan.graph, task)

    def rules(fractions: dict[str, int]) -> dict[tuple[str, str], Rule]:
        return {
            key: replace(
                plan.rules[key], kind="fixed", bits=one.bits, frac=fractions[name], method="max", parameter=None
            )
            for name, one in tensors.items()
            if fractions[name] != one.frac
            for key in one.keys
        }

    def planned(fractions: dict[str, int]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RindleWarning)  # calibration has said it once
            return replace(calibrated, plan=replan(plan, rules(fractions)))

    folds = [slice(k, None, PARTS) for k in range(min(PARTS, len(data)))]

    def evaluate(fractions: dict[str, int]) -> tuple[float, ...] | None:
        try:
            model = planned(fractions).model()
        except RindleError:  # no integers fit
            return None
        output = model.run(data.x, data.lengths)
        return tuple(judge.drift(output, fold) for fold in folds)

    start = {name: one.frac for name, one in tensors.items()}
    key = hashlib.sha256(f"{calibrated.model().id} {data.sha256} {judge}".encode()).hexdigest()[:16]
    found = search_fractions(evaluate, start, log=log, key=key, seen=seen)
    overrides = {"/".join(key): str(rule) for key, rule in rules(found.chosen.fractions).items()}
    made = planned(found.chosen.fractions)
    provenance = made.provenance | {"overrides": made.provenance["overrides"] | overrides}
    return Searched(replace(made, provenance=provenance), overrides, found)
