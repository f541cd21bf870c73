"""The figures: one function each, from the collected data to charts with a title that says what one sees.

A new one is a function here, decorated with its name; they stand on the page in this order.
"""

from __future__ import annotations

from collections.abc import Callable

import altair as alt

from .style import (
    INK,
    PALETTE,
    Figure,
    colour,
    cycle,
    dots_by_path,
    lines,
    metric_axis,
    model_names,
    percent,
    rows_of,
    say,
    score_tip,
    shape,
    share_axis,
    stacked_by_model,
    tips,
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
    about = tips(("model:N", "model"), score_tip(metric), ("bytes:Q", "bytes", ","), ("scheme:N", "scheme"))
    most = max(model["bytes"] for model in models) / 1000
    base = alt.Chart(rows_of(_points(data))).encode(
        x=alt.X("kilobytes:Q", title="size of the file (kB)", scale=alt.Scale(domain=[0, 1.15 * most])),
        y=metric_axis(data),
    )
    points = base.mark_point(filled=True, size=150, opacity=1).encode(
        color=colour(data), shape=shape(data), tooltip=about
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
    both, layers = (("model:N", "model"), ("eliminated:Q", "eliminated", ".1%")), []
    if walked:
        limit, measured = ("lost:Q", f"limit, {unit}", ".2f"), ("measured:Q", f"lost on validation, {unit}", ".2f")
        about = tips(*both, limit, measured, ("thresholds:N", "θ"))
        front = alt.Chart(rows_of(walked)).encode(x=x, y=y, color=colour(data), tooltip=about)
        layers += [
            front.mark_line(strokeDash=[5, 3], interpolate="linear").encode(order="eliminated:Q"),
            front.mark_point(size=28),
        ]
    about = tips(*both, ("lost:Q", f"lost, {unit}", ".2f"), score_tip(metric))
    points = alt.Chart(rows_of(_points(data))).encode(x=x, y=y, color=colour(data), shape=shape(data), tooltip=about)
    layers.append(points.mark_point(filled=True, size=150, opacity=1))
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
        chart = alt.Chart(rows_of(rows)).encode(
            x=alt.X("frame:Q", title="frame of the sequence", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("density:Q", axis=share_axis("elements that changed"), scale=alt.Scale(domain=[0, 1])),
            tooltip=tips(
                ("input:N", "input"),
                ("span:N", "frames"),
                ("density:Q", "changed", ".1%"),
                ("frames:Q", "real frames seen", ","),
            ),
            **lines(list(means), "input:N"),
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
    x = alt.X(
        "saturated:Q",
        title="values that were clipped to the format's range (log)",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~%"),
    )
    order = alt.EncodingSortField("saturated", op="max", order="descending")
    chart = dots_by_path(data, rows, x, order, ("saturated:Q", "clipped", ".4%"), ("format:N",))
    note = (
        "Paths that never saturated are left out, as are tables, which cannot. An affine's gates are counted together."
    )
    return [Figure("saturation", title, note, chart)]


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
    x = alt.X("snr:Q", title="signal-to-quantization-noise ratio (dB)", scale=alt.Scale(zero=False, padding=12))
    chart = dots_by_path(data, rows, x, order, ("snr:Q", "SQNR, dB", ".1f"), ("format:N",))
    return [Figure("noise", title, NOISE, chart)]


@figure("growth")
def growth(data: dict) -> list[Figure]:
    rows = [
        {"model": model["name"], "line": f"{model['name']}: {one['path']}", **one}
        for model in data["models"]
        for one in model["growth"]
    ]
    if not rows:
        return []
    names = list(dict.fromkeys(row["line"] for row in rows))
    found = {line: [row["snr_db"] for row in rows if row["line"] == line] for line in names}
    worst = min(found, key=lambda line: found[line][-1])
    change = found[worst][-1] - found[worst][0]
    how = "keeps its distance from" if abs(change) < 3 else "falls towards" if change < 0 else "moves away from"
    title = f"{worst} {how} its noise along the sequence: {found[worst][0]:.0f} dB at first, {found[worst][-1]:.0f} dB at last"
    chart = (
        alt.Chart(rows_of(rows))
        .mark_line(point=alt.OverlayMarkDef(size=24))
        .encode(
            x=alt.X("position:Q", title="position in the row", axis=alt.Axis(format=".0%")),
            y=alt.Y(
                "snr_db:Q", title="signal-to-quantization-noise ratio (dB)", scale=alt.Scale(zero=False, padding=12)
            ),
            tooltip=tips(("line:N", "path"), ("position:Q", None, ".0%"), ("snr_db:Q", "SQNR, dB", ".1f")),
            **lines(names, "line:N"),
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
        tooltip=tips(
            ("model:N",),
            ("what:N", "engine"),
            ("form:N", "its fastest form"),
            ("time:Q", "median, µs", ".2f"),
            ("best:Q", "best, µs", ".2f"),
        ),
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
    x = alt.X("time:Q", title="time of a step by its parts (µs, best slices)")
    about = ("part:N",), ("time:Q", "µs", ".2f"), ("share:Q", "share", ".0%")
    chart = stacked_by_model(data, rows, x, "part:N", PARTS, *about)
    note = (
        "Overhead: a step of a model with one unit. Element-wise: the same model while nothing changes. Products: the rest. "
        "The floors of bytes and operations are in the data below."
    )
    return [Figure("bound", f"What a step is bound by: {', '.join(verdicts)}", note, chart)]


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
    x, colours = (
        alt.X("kilobytes:Q", title="size of the file by what it holds (kB)"),
        dict(zip(kinds, cycle(len(kinds)))),
    )
    about = ("kind:N", "holds"), ("bytes:Q", None, ","), ("share:Q", None, ".1%")
    chart = stacked_by_model(data, rows, x, "kind:N", colours, *about)
    note = "The golden vector replays in every engine; the document is the graph, the formats and where the model came from."
    title = f"{share:.0%} of {first['name']} are weights"
    return [Figure("holds", title, note, chart)]
