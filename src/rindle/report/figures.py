"""The figures: one function each, from the collected data to charts with a title that says what one sees.

A new one is a function here, decorated with its name; they stand on the page in this order.
"""

from __future__ import annotations

from collections.abc import Callable

import altair as alt

from .style import (
    INK,
    PALETTE,
    STROKES,
    Figure,
    colour,
    cycle,
    dash,
    metric_axis,
    model_names,
    percent,
    rows_of,
    say,
    shape,
    share_axis,
)

PARTS = {"overhead": PALETTE[7], "element-wise": PALETTE[4], "products": PALETTE[0]}
CONTENDERS = {
    "rindle": PALETTE[0],
    "rindle, all products": PALETTE[6],
    "torch dynamic int8": PALETTE[4],
    "torch float": PALETTE[7],
}
NOISE = (
    "The integers against the same program in real numbers with the file's own weights: the noise of rounding, saturation and "
    "thresholds. Higher is better."
)

FIGURES: dict[str, Callable[[dict], list[Figure]]] = {}


def figure(name: str):
    def add(function):
        FIGURES[name] = function
        return function

    return add


def figures(data: dict) -> list[Figure]:
    """All that the data have something for, in order."""
    return [one for make in FIGURES.values() for one in make(data)]


def _points(data: dict):
    return [
        {
            "model": model["name"],
            "score": model["score"],
            "kilobytes": model["bytes"] / 1000,
            "bytes": model["bytes"],
            "eliminated": model["eliminated"],
            "lost": model["lost"],
            "scheme": model["scheme"],
        }
        for model in data["models"]
    ]


@figure("bytes")
def metric_against_bytes(data: dict) -> list[Figure]:
    metric, models = data["metric"], data["models"]
    best = (max if metric["higher_is_better"] else min)(models, key=lambda m: m["score"])
    small = min(models, key=lambda m: m["bytes"])
    title = f"{best['name']} is best: {metric['name']} {say(metric, best['score'])} in {best['bytes']:,} bytes"
    if small is not best:
        title += f"; {small['name']} is smallest: {say(metric, small['score'])} in {small['bytes']:,}"
    tips = [
        alt.Tooltip("model:N", title="model"),
        alt.Tooltip("score:Q", title=metric["name"], format=".2%" if metric["higher_is_better"] else ".4g"),
        alt.Tooltip("bytes:Q", title="bytes", format=","),
        alt.Tooltip("scheme:N", title="scheme"),
    ]
    most = max(model["bytes"] for model in models) / 1000
    base = alt.Chart(rows_of(_points(data))).encode(
        x=alt.X("kilobytes:Q", title="size of the file (kB)", scale=alt.Scale(domain=[0, 1.15 * most])),
        y=metric_axis(data),
    )
    points = base.mark_point(filled=True, size=150, opacity=1).encode(
        color=colour(data), shape=shape(data), tooltip=tips
    )
    note = f"Each point is a model, on {data['data']['rows']:,} rows of {data['data']['name']}. Bytes are those of the whole file."
    return [Figure("bytes", title, note, points.properties(width="container", height=300))]


@figure("operations")
def error_against_operations(data: dict) -> list[Figure]:
    """The models, and the fronts that ``rindle delta`` walked, which stand in the files."""
    metric = data["metric"]
    known = [model for model in data["models"] if model["lost"] is not None]
    most = max(known, key=lambda m: m["eliminated"], default=None)
    if not any(model["held"] or model["delta"] for model in known):
        return []
    unit = "percentage points" if metric["higher_is_better"] else "% of the MSE"
    title = (
        f"{most['name']} skips {most['eliminated']:.1%} of the recurrent operations and loses {most['lost']:.2f} {unit}"
    )
    walked = [
        {
            "model": model["name"],
            "eliminated": point["eliminated"],
            "lost": point["error"],
            "measured": point["lost"],
            "thresholds": ", ".join(f"{key} {theta}" for key, theta in point["thetas"].items()),
        }
        for model in data["models"]
        if model["delta"]
        for point in model["delta"]["front"]
    ]
    x = alt.X(
        "eliminated:Q",
        axis=share_axis("eliminated recurrent multiply-accumulates"),
        scale=alt.Scale(domain=[0, 1]),
    )
    y = alt.Y("lost:Q", title=f"lost {metric['name']} ({unit})", scale=alt.Scale(zero=True, nice=True))
    score = alt.Tooltip("score:Q", title=metric["name"], format=".2%" if metric["higher_is_better"] else ".4g")
    tips = [
        alt.Tooltip("model:N", title="model"),
        alt.Tooltip("eliminated:Q", title="eliminated", format=".1%"),
    ]
    lost = alt.Tooltip("lost:Q", title=f"lost, {unit}", format=".2f")
    layers = []
    if walked:
        more = [
            alt.Tooltip("lost:Q", title=f"limit, {unit}", format=".2f"),
            alt.Tooltip("measured:Q", title=f"lost on validation, {unit}", format=".2f"),
            alt.Tooltip("thresholds:N", title="θ"),
        ]
        front = alt.Chart(rows_of(walked)).encode(x=x, y=y, color=colour(data), tooltip=tips + more)
        layers += [
            front.mark_line(strokeDash=[5, 3], interpolate="linear").encode(order="eliminated:Q"),
            front.mark_point(size=28),
        ]
    points = alt.Chart(rows_of(_points(data))).encode(x=x, y=y)
    layers.append(
        points.mark_point(filled=True, size=150, opacity=1).encode(
            color=colour(data), shape=shape(data), tooltip=[*tips, lost, score]
        )
    )
    note = (
        "Filled points: the models on this report's data, against themselves with all products computed. "
        + (
            "Dashed: the front that the search for thresholds walked on its validation data, with the limit that it puts on the loss "
            "(the loss itself, or its statistical limit by probabilities, whichever is larger), as stored in the file. "
            if walked
            else ""
        )
        + "Multiply-accumulates of all products of the recurrent layers, input and hidden, from measured activity on real frames."
    )
    return [Figure("operations", title, note, alt.layer(*layers).properties(width="container", height=320))]


@figure("density")
def density_over_time(data: dict) -> list[Figure]:
    made = []
    for number, model in enumerate(data["models"]):
        means = {one["name"]: one for one in model["inputs"]}
        if not means:
            continue
        busiest = max(
            means.values(), key=lambda one: one["density"] if one["theta"] is not None else one["density_at_zero"]
        )
        value = busiest["density"] if busiest["theta"] is not None else busiest["density_at_zero"]
        how = "with its thresholds" if model["held"] else "before any threshold"
        title = f"{model['name']}, {how}: {busiest['name']} changes most, {value:.0%} of it from frame to frame"
        rows = [
            {
                "input": one["input"],
                "frame": (one["from"] + one["to"] - 1) / 2,
                "span": f"{one['from']}" if one["to"] - one["from"] == 1 else f"{one['from']} to {one['to'] - 1}",
                "density": one["density"],
                "frames": one["frames"],
            }
            for one in model["over_time"]
        ]
        names = list(means)
        chart = alt.Chart(rows_of(rows)).encode(
            x=alt.X("frame:Q", title="frame of the sequence", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("density:Q", axis=share_axis("elements that changed"), scale=alt.Scale(domain=[0, 1])),
            color=alt.Color(
                "input:N", scale=alt.Scale(domain=names, range=cycle(len(names))), title=None, legend=STROKES
            ),
            strokeDash=dash(names, "input:N"),
            tooltip=[
                alt.Tooltip("input:N", title="input"),
                alt.Tooltip("span:N", title="frames"),
                alt.Tooltip("density:Q", title="changed", format=".1%"),
                alt.Tooltip("frames:Q", title="real frames seen", format=","),
            ],
        )
        note = "Share of each product input's elements that moved by more than their threshold, of all real frames at that place."
        made.append(
            Figure(
                f"density-{number}",
                title,
                note,
                chart.mark_line(point=alt.OverlayMarkDef(size=24)).properties(width="container", height=240),
            )
        )
    return made


@figure("saturation")
def saturation(data: dict) -> list[Figure]:
    rows = [
        {
            "model": model["name"],
            "path": f"{one['node']}/{one['path']}",
            "saturated": one["saturated"],
            "format": one["format"],
        }
        for model in data["models"]
        for one in model["paths"]
        if one["saturated"]
    ]
    if not rows:
        return []
    worst = max(rows, key=lambda row: row["saturated"])
    title = f"{worst['path']} of {worst['model']} is clipped most: {percent(worst['saturated'])} of its values"
    shown = {path for path, _ in sorted(((r["path"], r["saturated"]) for r in rows), key=lambda pair: -pair[1])[:24]}
    rows = [row for row in rows if row["path"] in shown]
    chart = (
        alt.Chart(rows_of(rows))
        .mark_point(filled=True, size=90, opacity=0.9)
        .encode(
            x=alt.X(
                "saturated:Q",
                title="values that were clipped to the format's range (log)",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(format="~%"),
            ),
            y=alt.Y(
                "path:N",
                title=None,
                sort=alt.EncodingSortField("saturated", op="max", order="descending"),
                axis=alt.Axis(grid=True),
            ),
            color=colour(data),
            shape=shape(data),
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("path:N"),
                alt.Tooltip("saturated:Q", title="clipped", format=".4%"),
                alt.Tooltip("format:N"),
            ],
        )
    )
    note = (
        "Paths that never saturated are left out, as are tables, which cannot. An affine's gates are counted together."
    )
    return [
        Figure(
            "saturation",
            title,
            note,
            chart.properties(width="container", height=20 * len({row["path"] for row in rows})),
        )
    ]


@figure("noise")
def noise(data: dict) -> list[Figure]:
    rows = [
        {"model": model["name"], "path": f"{one['node']}/{one['path']}", "snr": one["snr_db"], "format": one["format"]}
        for model in data["models"]
        for one in model["paths"]
        if one["snr_db"] is not None
    ]
    if not rows:
        return []
    worst = min(rows, key=lambda row: row["snr"])
    title = (
        f"{worst['path']} of {worst['model']} is the noisiest path, {worst['snr']:.0f} dB above its quantization noise"
    )
    order = list(dict.fromkeys(row["path"] for row in rows))
    chart = (
        alt.Chart(rows_of(rows))
        .mark_point(filled=True, size=90, opacity=0.9)
        .encode(
            x=alt.X("snr:Q", title="signal-to-quantization-noise ratio (dB)", scale=alt.Scale(zero=False, padding=12)),
            y=alt.Y("path:N", title=None, sort=order, axis=alt.Axis(grid=True)),
            color=colour(data),
            shape=shape(data),
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("path:N"),
                alt.Tooltip("snr:Q", title="SQNR, dB", format=".1f"),
                alt.Tooltip("format:N"),
            ],
        )
    )
    return [
        Figure(
            "noise", title, NOISE, chart.properties(width="container", height=20 * len({row["path"] for row in rows}))
        )
    ]


@figure("growth")
def growth(data: dict) -> list[Figure]:
    rows = [
        {"model": model["name"], "line": f"{model['name']}: {one['path']}", **one}
        for model in data["models"]
        for one in model["growth"]
    ]
    if not rows:
        return []
    lines = {
        line: [row["snr_db"] for row in rows if row["line"] == line] for line in dict.fromkeys(r["line"] for r in rows)
    }
    worst = min(lines, key=lambda line: lines[line][-1])
    change = lines[worst][-1] - lines[worst][0]
    how = "keeps its distance from" if abs(change) < 3 else "falls towards" if change < 0 else "moves away from"
    title = f"{worst} {how} its noise along the sequence: {lines[worst][0]:.0f} dB at first, {lines[worst][-1]:.0f} dB at last"
    names = list(lines)
    chart = (
        alt.Chart(rows_of(rows))
        .mark_line(point=alt.OverlayMarkDef(size=24))
        .encode(
            x=alt.X("position:Q", title="position in the row", axis=alt.Axis(format=".0%")),
            y=alt.Y(
                "snr_db:Q", title="signal-to-quantization-noise ratio (dB)", scale=alt.Scale(zero=False, padding=12)
            ),
            color=alt.Color(
                "line:N", scale=alt.Scale(domain=names, range=cycle(len(names))), title=None, legend=STROKES
            ),
            strokeDash=dash(names, "line:N"),
            tooltip=[
                alt.Tooltip("line:N", title="path"),
                alt.Tooltip("position:Q", format=".0%"),
                alt.Tooltip("snr_db:Q", title="SQNR, dB", format=".1f"),
            ],
        )
    )
    note = "Outputs and states of the recurrent layers, and the model's output. " + NOISE
    return [Figure("growth", title, note, chart.properties(width="container", height=260))]


@figure("time")
def time_per_step(data: dict) -> list[Figure]:
    rows = []
    for model in data["models"]:
        race = (model["bench"] or {}).get("step")
        for kind in CONTENDERS:
            forms = [row for row in race["rows"] if row["kind"] == kind] if race else []
            if forms:
                best = min(forms, key=lambda row: row["median"])
                rows.append(
                    {
                        "model": model["name"],
                        "what": kind,
                        "form": best["form"],
                        "time": best["median"],
                        "best": best["best"],
                    }
                )
    if not rows:
        return []
    ours = [row for row in rows if row["what"] == "rindle"]
    fast = min(ours, key=lambda row: row["time"])
    title = f"{fast['model']} takes {fast['time']:.1f} µs per step"
    ratios = next(m for m in data["models"] if m["name"] == fast["model"])["bench"]["step"]["speedup"]
    against = [
        f"{ratios[kind]:.1f} times faster than {kind}"
        for kind in ("torch float", "torch dynamic int8")
        if ratios.get(kind)
    ]
    title += f": {' and '.join(against)}" if against else ""
    kinds = [kind for kind in CONTENDERS if any(row["what"] == kind for row in rows)]
    scale = alt.Scale(domain=kinds, range=[CONTENDERS[kind] for kind in kinds])
    base = alt.Chart(rows_of(rows)).encode(
        y=alt.Y("model:N", title=None, sort=model_names(data)),
        yOffset=alt.YOffset("what:N", sort=kinds),
        x=alt.X("time:Q", title="one frame, batch 1, one thread (µs, median)"),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("what:N", title="engine"),
            alt.Tooltip("form:N", title="its fastest form"),
            alt.Tooltip("time:Q", title="median, µs", format=".2f"),
            alt.Tooltip("best:Q", title="best, µs", format=".2f"),
        ],
    )
    bars = base.mark_bar(cornerRadiusEnd=2).encode(color=alt.Color("what:N", scale=scale, sort=kinds))
    text = base.mark_text(align="left", dx=4, fill=INK).encode(text=alt.Text("time:Q", format=".1f"))
    note = "All in turns in one process, on one pinned core; torch in its fastest eager form with the same weights. Only ratios travel between machines."
    return [
        Figure(
            "time",
            title,
            note,
            (bars + text).properties(width="container", height=(22 * len(kinds) + 14) * len(data["models"])),
        )
    ]


@figure("bound")
def what_bounds(data: dict) -> list[Figure]:
    rows, verdicts = [], []
    for model in data["models"]:
        bound = (model["bench"] or {}).get("bound")
        if bound:
            verdicts.append(f"{model['name']} by {bound['by']}")
            for k, (name, key) in enumerate(
                (("overhead", "call"), ("element-wise", "elementwise"), ("products", "products"))
            ):
                share = bound[key] / bound["step"]
                rows.append({"model": model["name"], "part": name, "time": bound[key], "share": share, "order": k})
    if not rows:
        return []
    chart = (
        alt.Chart(rows_of(rows))
        .mark_bar()
        .encode(
            x=alt.X("time:Q", title="time of a step by its parts (µs, best slices)"),
            y=alt.Y("model:N", title=None, sort=model_names(data)),
            color=alt.Color(
                "part:N", sort=list(PARTS), scale=alt.Scale(domain=list(PARTS), range=list(PARTS.values()))
            ),
            order="order:Q",
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("part:N"),
                alt.Tooltip("time:Q", title="µs", format=".2f"),
                alt.Tooltip("share:Q", title="share", format=".0%"),
            ],
        )
    )
    note = (
        "Overhead: a step of a model with one unit. Element-wise: the same model while nothing changes. Products: the rest. "
        "The floors of bytes and operations are in the data below."
    )
    return [
        Figure(
            "bound",
            f"What a step is bound by: {', '.join(verdicts)}",
            note,
            chart.properties(width="container", height=30 * len(data["models"])),
        )
    ]


@figure("holds")
def what_the_bytes_are(data: dict) -> list[Figure]:
    rows = [
        {
            "model": model["name"],
            "kind": kind,
            "bytes": count,
            "kilobytes": count / 1000,
            "share": count / model["bytes"],
            "order": k,
        }
        for model in data["models"]
        for k, (kind, count) in enumerate(model["bytes_by_kind"].items())
        if count
    ]
    first = data["models"][0]
    share = first["bytes_by_kind"]["weights"] / first["bytes"]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    chart = (
        alt.Chart(rows_of(rows))
        .mark_bar()
        .encode(
            x=alt.X("kilobytes:Q", title="size of the file by what it holds (kB)"),
            y=alt.Y("model:N", title=None, sort=model_names(data)),
            color=alt.Color("kind:N", sort=kinds, scale=alt.Scale(domain=kinds, range=cycle(len(kinds)))),
            order="order:Q",
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("kind:N", title="holds"),
                alt.Tooltip("bytes:Q", format=","),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        )
    )
    note = "The golden vector replays in every engine; the document is the graph, the formats and where the model came from."
    title = f"{share:.0%} of {first['name']} are weights"
    return [Figure("holds", title, note, chart.properties(width="container", height=30 * len(data["models"])))]
