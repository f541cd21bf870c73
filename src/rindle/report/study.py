"""A study's figures and its page: the front of its candidates, and, for a sweep, the heat map of weights × activations."""

from __future__ import annotations

import altair as alt

from .page import fill
from .style import PALETTE, Figure, rows_of

REST = ("family", "table")  # what a sweep varies besides the two axes of a heat map


def figures(data: dict) -> list[Figure]:
    """data: what ``cli.studies`` writes as JSON."""
    return [*fronts(data), *heat_maps(data)]


def page(data: dict) -> str:
    columns, rows = table(data)
    return fill("study.html.j2", figures(data), data=data, columns=columns, rows=rows, headline=headline(data))


def headline(data: dict) -> str:
    front = [one for one in data["records"] if one["number"] in data["front"]]
    if not front:
        return f"None of {len(data['records'])} candidates keeps the limits."
    first, name = min(front, key=lambda one: next(iter(one["values"].values()))), data["objectives"][0]["name"]
    size = min(front, key=lambda one: one["more"]["bytes"])
    return (
        f"{len(front)} of {len(data['records'])} candidates are on the front: from {name} {first['values'][name]:.4g} in "
        f"{first['more']['bytes']:,} bytes to {size['values'][name]:.4g} in {size['more']['bytes']:,}."
    )


def table(data: dict) -> tuple[list[str], list[list[str]]]:
    """(columns, a row of cells per record of the front), by the first objective."""
    names = [one["name"] for one in data["objectives"]]
    columns = _columns([name for name, choices in data["space"].items() if len(choices) > 1])
    front = sorted(
        (one for one in data["records"] if one["number"] in data["front"]), key=lambda one: list(one["values"].values())
    )
    rows = []
    for one in front:
        cells = [" ".join(str(one["candidate"][name]) for name in variables) for variables in columns.values()]
        cells += [
            f"{one['values'][name]:,.0f}" if name.endswith("bytes") else f"{one['values'][name]:.4g}" for name in names
        ]
        rows.append([*cells, f"{one['more']['weight bytes']:,}", f"{one['more']['score']:.4g}"])
    metric = front[0]["more"]["metric"] if front else "score"
    return [*columns, *names, "weight bytes", metric], rows


def _columns(variables: list[str]) -> dict[str, list[str]]:
    """Heading -> the variables in it: one each where they are few, else one for the weights of all layers, and so on, in the
    model's order.
    """
    if len(variables) <= 4:
        return {name: [name] for name in variables}
    kinds = {"/weight.": "weight bits", "/code.": "activation bits", "/both.": "bits", "θ ": "θ"}
    found: dict[str, list[str]] = {}
    for name in variables:
        found.setdefault(next((title for mark, title in kinds.items() if mark in name), name), []).append(name)
    return found


def fronts(data: dict) -> list[Figure]:
    """The first objective against every other."""
    first, *others = data["objectives"]
    known = [one for one in data["records"] if not one["refused"]]
    made = []
    for k, other in enumerate(others):
        rows = [
            {
                "x": one["values"][other["name"]],
                "y": one["values"][first["name"]],
                "what": "front" if one["number"] in data["front"] else "kept" if one["feasible"] else "beyond a limit",
                "candidate": ", ".join(f"{name} {value}" for name, value in one["candidate"].items()),
            }
            for one in known
        ]
        if not rows:
            continue
        kinds = [kind for kind in ("front", "kept", "beyond a limit") if any(row["what"] == kind for row in rows)]
        colours = {"front": PALETTE[0], "kept": PALETTE[7], "beyond a limit": PALETTE[1]}
        shapes = {"front": "circle", "kept": "square", "beyond a limit": "cross"}
        x = alt.X(
            "x:Q",
            title=f"{other['name']} ({other['unit']})",
            scale=alt.Scale(zero=False, padding=16),
            axis=alt.Axis(format="~s"),
        )
        y = alt.Y("y:Q", title=f"{first['name']} ({first['unit']})", scale=alt.Scale(zero=False, padding=16))
        points = (
            alt.Chart(rows_of(rows))
            .mark_point(filled=True, size=70, opacity=0.9)
            .encode(
                x=x,
                y=y,
                color=alt.Color(
                    "what:N", scale=alt.Scale(domain=kinds, range=[colours[one] for one in kinds]), title=None
                ),
                shape=alt.Shape(
                    "what:N", scale=alt.Scale(domain=kinds, range=[shapes[one] for one in kinds]), title=None
                ),
                tooltip=[
                    alt.Tooltip("candidate:N"),
                    alt.Tooltip("y:Q", title=first["name"], format=".4g"),
                    alt.Tooltip("x:Q", title=other["name"], format=",.6~g"),
                ],
            )
        )
        layers = [points]
        if len(others) == 1:  # with more objectives a line through two of them would join what is not neighboured
            line = alt.Chart(rows_of([row for row in rows if row["what"] == "front"]))
            layers.insert(0, line.mark_line(color=PALETTE[0], strokeDash=[5, 3]).encode(x=x, y=y, order="x:Q"))
        title = f"{first['name']} against {other['name']}: {len(data['front'])} of {len(known)} candidates are beaten by none"
        note = "Each point is a candidate" + (
            f"; the front is that of all {len(others) + 1} objectives." if len(others) > 1 else "."
        )
        made.append(Figure(f"front-{k}", title, note, alt.layer(*layers).properties(width="container", height=320)))
    return made


def heat_maps(data: dict) -> list[Figure]:
    """Error over weights × activations, one map per table size and family. Nothing where bits were not swept."""
    if not {"weights", "activations"} <= data["space"].keys():
        return []
    known = [one for one in data["records"] if not one["refused"]]
    rests = list(
        dict.fromkeys(
            tuple((name, one["candidate"][name]) for name in REST if name in one["candidate"]) for one in known
        )
    )
    errors = [one["more"]["error"] for one in known]
    scale = alt.Scale(domain=[min(errors), max(errors)], scheme="viridis", reverse=True) if errors else None
    made = []
    for k, rest in enumerate(rests):
        rows = [
            {
                "weights": one["candidate"]["weights"],
                "activations": one["candidate"]["activations"],
                "error": one["more"]["error"],
                "bytes": one["more"]["bytes"],
                "dark": one["more"]["error"] > (min(errors) + max(errors)) / 2,
            }
            for one in known
            if all(one["candidate"][name] == value for name, value in rest)
        ]
        base = alt.Chart(rows_of(rows)).encode(
            x=alt.X("weights:O", title="weight bits", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("activations:O", title="activation bits", sort="descending"),
        )
        cells = base.mark_rect().encode(
            color=alt.Color("error:Q", title=f"error ({data['error']})", scale=scale),
            tooltip=[
                alt.Tooltip("weights:O", title="weight bits"),
                alt.Tooltip("activations:O", title="activation bits"),
                alt.Tooltip("error:Q", format=".4g"),
                alt.Tooltip("bytes:Q", format=","),
            ],
        )
        text = base.mark_text().encode(
            text=alt.Text("error:Q", format=".3~g"),
            fill=alt.condition("datum.dark", alt.value("#ffffff"), alt.value("#1d2228")),
        )
        what = ", ".join(f"{name} {value}" for name, value in rest)
        best = min(rows, key=lambda row: (row["error"], row["bytes"]))
        title = f"{what}: least error {best['error']:.4g} at {best['weights']}-bit weights and {best['activations']}-bit activations"
        note = "Error of every candidate; what could not be converted is left blank."
        height = 34 * len({row["activations"] for row in rows}) + 20
        made.append(Figure(f"heat-{k}", title, note, (cells + text).properties(width="container", height=height)))
    return made
