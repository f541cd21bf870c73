"""The paper's findings and the margins over its method as numbers, from the cells of the logs. Shares are 0..1, errors and
their differences points, with 95 % intervals of a paired bootstrap over utterances.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from combinations import pareto
from log import Log

from rindle.errors import RindleError
from rindle.tasks import metrics

KINDS = ("lstm", "gru", "ligru", "sru")
SIDES = ("published", "rindle")
BUDGETS = (0.5, 1.0, 2.0)  # points of phone errors that a row may cost on the search part
CLAIMED = 0.85  # the paper's compression
DRAWS = 2000
ZERO = ("rezk-uniform8", "rezk-uniform4", "rezk-m8")  # rows whose share at θ = 0 is told

# ------------------------------------------------------------------------------------------------------ of cells


def current(cells: list[dict]) -> list[dict]:
    """Those of the newest line's weights, and for each part of the newest utterances: what a log holds of other runs is left."""
    if not cells:
        return []
    weights = cells[-1]["key"]["weights"]
    counts = {c["key"]["part"]: c["key"]["utterances"] for c in cells if c["key"]["weights"] == weights}
    return [c for c in cells if c["key"]["weights"] == weights and c["key"]["utterances"] == counts[c["key"]["part"]]]


def of_side(cell: dict, side: str) -> bool:
    return cell["key"]["method"].split()[0] == side


def select(cells: list[dict], part: str, side: str, thetas: bool | None = False, **wanted) -> list[dict]:
    """side: "published" (products brought back by both scales), "rindle" with all its words, or "float". thetas: with, without, or
    None for both. wanted: of the key.
    """
    return [
        cell
        for cell in cells
        if cell["key"]["part"] == part
        and of_side(cell, side)
        and "walk" not in cell["key"]
        and cell["key"].get("rescale") != "max"
        and thetas in (None, "thetas" in cell["key"])
        and all(cell["key"].get(name) == value for name, value in wanted.items())
    ]


def float_of(cells: list[dict], part: str) -> dict | None:
    return next(iter(select(cells, part, "float")), None)


def on_test(cells: list[dict], cell: dict) -> dict | None:
    """The same configuration's cell on test."""
    wanted = {name: cell["key"].get(name) for name in ("method", "row", "skip")}
    same = select(cells, "test", cell["key"]["method"].split()[0], None, **wanted)
    return next((one for one in same if one["key"].get("thetas") == cell["key"].get("thetas")), None)


def increase(base: dict, cell: dict) -> dict[str, float]:
    """Of the phone errors of cell over those of base, on the same utterances."""
    rows = (tuple(map(tuple, (one["errors"], one["lengths"]))) for one in (base, cell))
    return dict(_increase(*rows))


@lru_cache(maxsize=4096)
def _increase(base: tuple, cell: tuple) -> tuple:
    rows = (np.stack(one, 1) for one in (base, cell))
    found = metrics.paired_bootstrap(*rows, statistic=metrics.rate_of, draws=DRAWS)
    return tuple((name, round(100 * getattr(found, name), 3)) for name in ("mean", "low", "high"))


def walk_of(cells: list[dict]) -> dict | None:
    """The newest one."""
    return next((cell for cell in reversed(cells) if "walk" in cell["key"]), None)


# -------------------------------------------------------------------------------------------- what is chosen on search


def smallest(cells: list[dict], side: str, budget: float) -> dict | None:
    """The smallest by the published formula of those that cost at most so many points on the search part."""
    base = float_of(cells, "search")
    fit = [c for c in select(cells, "search", side) if 100 * (c["error"] - base["error"]) <= budget]
    return min(fit, key=lambda c: (c["bytes"], c["error"]), default=None)


def compressed(cells: list[dict], side: str) -> dict | None:
    """Of those that are compressed by more than the paper claims, the one with the fewest errors on the search part."""
    fit = [c for c in select(cells, "search", side) if c["compression"] > CLAIMED]
    return min(fit, key=lambda c: (c["error"], c["bytes"]), default=None)


def chosen_rows(cells: list[dict], budgets=BUDGETS) -> list[dict]:
    """What the test part is asked for, besides thresholds."""
    found = [pick(cells, side) for side in SIDES for pick in (compressed, *(_smallest(b) for b in budgets))]
    return [cell for k, cell in enumerate(found) if cell and cell not in found[:k]]


def _smallest(budget: float):
    return lambda cells, side: smallest(cells, side, budget)


def at_budget(walk: dict, budget: float) -> dict:
    """Of a walk's points the one that eliminates most within so many points of frame accuracy."""
    return max((p for p in walk["points"] if p["lost"] <= budget), key=lambda p: p["eliminated"])


def published_front(cells: list[dict], row: str, skip: str, most: float) -> list[dict]:
    """Of the combinations, the front of those at most so many points above float, on the search part."""
    base = float_of(cells, "search")
    return [
        cell
        for cell in pareto(select(cells, "search", "published", None, row=row, skip=skip))
        if 100 * (cell["error"] - base["error"]) <= most
    ]


# ---------------------------------------------------------------------------------------------------- beyond the paper


def sizes(cells: list[dict], budgets=BUDGETS) -> list[dict]:
    """Size at equal error: the smallest of each side within a budget on the search part, and what both do on test."""
    found = []
    for budget in budgets:
        entry, tested = {"budget": budget}, {}
        for side in SIDES:
            cell = smallest(cells, side, budget)
            entry[side] = None if cell is None else about(cells, cell)
            tested[side] = cell and on_test(cells, cell)
        if all(entry[side] for side in SIDES):
            ours, theirs = entry["rindle"], entry["published"]
            entry["smaller, %"] = 100 * (1 - ours["bytes"] / theirs["bytes"])
            entry["compression, points"] = 100 * (ours["compression"] - theirs["compression"])
            if all(tested.values()):
                entry["error against published"] = increase(tested["published"], tested["rindle"])
        found.append(entry)
    return found


def about(cells: list[dict], cell: dict) -> dict:
    """A configuration with what it costs on search and test, in points above float."""
    found = {name: cell["key"][name] for name in ("method", "row", "skip")}
    found |= {name: cell[name] for name in ("bytes", "compression", "bytes of the file") if name in cell}
    found["search"] = increase(float_of(cells, "search"), cell)
    tested = on_test(cells, cell)
    return found | ({"test": increase(float_of(cells, "test"), tested)} if tested else {})


def eliminations(cells: list[dict], row: str, skip: str, budgets=BUDGETS) -> dict | None:
    """Eliminated operations at equal error, on test. beside: for every point of the published front Rindle's that eliminates
    most at no more errors. at: between the points of each side's front, at so many points above float; None where the side has
    no point with so few errors.
    """
    base = float_of(cells, "test")
    points = {side: pareto(select(cells, "test", side, None, row=row, skip=skip)) for side in SIDES}
    if not base or not all(points.values()):
        return None
    beside = []
    for theirs in points["published"]:
        ours = max(
            (c for c in points["rindle"] if c["error"] <= theirs["error"]), key=lambda c: c["eliminated"], default=None
        )
        entry = {"published": _point(base, theirs), "rindle": ours and _point(base, ours)}
        if ours:
            entry["more, points"] = 100 * (ours["eliminated"] - theirs["eliminated"])
            entry["error against published"] = increase(theirs, ours)
        beside.append(entry)
    at = [
        {"above float": budget, **{side: between(base, points[side], budget) for side in SIDES}} for budget in budgets
    ]
    return {"row": row, "skip": skip, "beside": beside, "at": at}


def _point(base: dict, cell: dict) -> dict:
    return {"eliminated": cell["eliminated"], "increase": increase(base, cell)}


def between(base: dict, front: list[dict], budget: float) -> float | None:
    """Eliminated share at so many points above base, on the lines between the points of a front; beyond its end, its last."""
    errors = [100 * (cell["error"] - base["error"]) for cell in front]
    return None if budget < errors[0] else float(np.interp(budget, errors, [cell["eliminated"] for cell in front]))


# -------------------------------------------------------------------------------------------------- the paper's findings


def of_model(cells: list[dict]) -> dict:
    """Each finding's numbers of one model."""
    found = {"more than 85 % smaller": {}, "more than half eliminated": {}, "share at θ = 0": {}, "skipped paths": {}}
    base = float_of(cells, "test")
    for side in SIDES:
        cell = compressed(cells, side)
        found["more than 85 % smaller"][side] = cell and about(cells, cell)
        held = [c for c in select(cells, "test", side, None) if c["eliminated"] > 0.5]
        best = min(held, key=lambda c: c["error"], default=None)
        found["more than half eliminated"][side] = best and {
            "row": best["key"]["row"],
            "skip": best["key"]["skip"],
            "θ": "thetas" in best["key"],
            **_point(base, best),
        }
        found["share at θ = 0"][side] = {
            c["key"]["row"]: c["eliminated"]
            for row in ZERO
            for c in select(cells, "search", side, row=row, skip="none")
            if " " not in c["key"]["method"]
        }
        found["skipped paths"][side] = paths(cells, side)
    return found


def paths(cells: list[dict], side: str) -> list[dict]:
    """What leaving the named paths at 16 bits changes, in points of error on the search part: negative where they hurt."""
    found = []
    for none in select(cells, "search", side, skip="none"):
        key = none["key"]
        entry = {"method": key["method"], "row": key["row"]}
        for skip in ("all", "first"):
            for other in select(cells, "search", side, skip=skip, method=key["method"], row=key["row"]):
                entry[skip] = increase(none, other)
        if len(entry) > 2:
            found.append(entry)
    return found


def of_models(results: dict[str, list[dict]], budgets=BUDGETS) -> dict:
    """The comparison of the models: kind -> float error on test, smallest bytes within each budget, most eliminated within it."""
    found = {}
    for kind, cells in results.items():
        base = float_of(cells, "test") or float_of(cells, "search")
        best = {b: [c for side in SIDES if (c := smallest(cells, side, b))] for b in budgets}
        held = [c for side in SIDES for c in select(cells, base["key"]["part"], side, None)]
        found[kind] = {
            "part": base["key"]["part"],
            "float error": base["error"],
            "smallest": {str(b): about(cells, min(some, key=lambda c: c["bytes"])) for b, some in best.items() if some},
            "most eliminated": {
                str(b): max(fit)
                for b in budgets
                if (fit := [c["eliminated"] for c in held if 100 * (c["error"] - base["error"]) <= b])
            },
        }
    return found


# ------------------------------------------------------------------------------------------------------------ results


def collect(folder: Path) -> dict:
    """Everything that the tables need, from a folder of logs, one `<model>.jsonl` each. Errors of utterances stay there."""
    logs = {kind: folder / f"{kind}.jsonl" for kind in KINDS}
    of_kind = {kind: current(list(Log(path).cells.values())) for kind, path in logs.items() if path.exists()}
    of_kind = {kind: cells for kind, cells in of_kind.items() if float_of(cells, "search")}
    if not of_kind:
        raise RindleError(f"{folder} holds no finished cells of {', '.join(KINDS)}; run.py makes them")
    found = {}
    for kind, cells in of_kind.items():
        walk, base = walk_of(cells), float_of(cells, "search")
        found[kind] = {
            "weights": base["key"]["weights"],
            "utterances": {cell["key"]["part"]: cell["key"]["utterances"] for cell in cells},
            "cells": [summary(cells, cell) for cell in cells if "walk" not in cell["key"]],
            "walk": walk and {"of": walk["key"], "evaluations": walk["evaluations"], "points": thin(walk["points"])},
            "findings": of_model(cells),
            "size at equal error": sizes(cells),
            "eliminated at equal error": walk and eliminations(cells, walk["key"]["row"], walk["key"]["skip"]),
        }
    return {"models": found, "beside one another": of_models(of_kind)}


def summary(cells: list[dict], cell: dict) -> dict:
    """Without errors of utterances; of candidates of thresholds without densities, which are many."""
    key = {name: value for name, value in cell["key"].items() if name not in ("model", "weights", "utterances")}
    few = key["part"] == "test" or key.get("row") in ZERO
    left_out = {"key", "errors", "lengths", *(() if few and "thetas" not in key else ("densities",))}
    found = {"key": key, **{name: value for name, value in cell.items() if name not in left_out}}
    if key["method"] != "float":
        found["increase"] = increase(float_of(cells, key["part"]), cell)
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in found.items()}


def thin(points: list[dict]) -> list[list[float]]:
    """(points of frame accuracy lost, eliminated share), without the thresholds."""
    return [[point["lost"], point["eliminated"]] for point in points]
