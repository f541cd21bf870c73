"""How figures look, and what they share: colours, axes, legends, numbers in words.

Colours hold 3:1 against the light and the dark page; text and lines take the page's own colour, so that one drawing serves
light, dark and paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt

LIGHT, DARK = "#ffffff", "#14171c"
PALETTE = ("#2a7fd4", "#d2601a", "#12936b", "#a862c6", "#b0842a", "#c2527f", "#4f8f98", "#7d8590")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
INK = "currentColor"
STROKES = alt.Legend(symbolType="stroke", symbolSize=300)


@dataclass(frozen=True)
class Figure:
    """name: for addresses and --plot. title: what one sees. note: how it was measured. chart: Vega-Lite, as wide as its place."""

    name: str
    title: str
    note: str
    chart: alt.TopLevelMixin

    def spec(self) -> dict:
        return self.chart.properties(
            config=config(), autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
        ).to_dict()


def config(ink: str = INK) -> dict:
    axis = {"labelColor": ink, "titleColor": ink, "domainColor": ink, "tickColor": ink, "gridColor": ink}
    return {
        "background": "transparent",
        "font": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
        "view": {"stroke": None},
        "axis": axis
        | {"gridOpacity": 0.14, "domainOpacity": 0.5, "tickOpacity": 0.5, "labelFontSize": 12, "titleFontSize": 12}
        | {"titleFontWeight": "normal", "titlePadding": 10, "labelLimit": 220},
        "axisXQuantitative": {"labelOverlap": "greedy", "labelSeparation": 8, "labelFlush": False},
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "orient": "bottom",
            "labelFontSize": 12,
            "title": None,
            "labelLimit": 260,
        }
        | {"columns": 2, "symbolStrokeWidth": 2},
        "title": {"color": ink, "subtitleColor": ink, "fontSize": 14, "anchor": "start"},
        "text": {"fontSize": 12, "color": ink, "fill": ink},
        "line": {"strokeWidth": 2},
        "range": {"category": list(PALETTE)},
    }


def model_names(data: dict) -> list[str]:
    return [model["name"] for model in data["models"]]


def colour(data: dict):
    """A colour for each model, the same in every figure."""
    names = model_names(data)
    return alt.Color("model:N", scale=alt.Scale(domain=names, range=cycle(len(names))), title=None)


def shape(data: dict):
    names = model_names(data)
    return alt.Shape(
        "model:N", scale=alt.Scale(domain=names, range=[SHAPES[i % len(SHAPES)] for i in range(len(names))]), title=None
    )


def dash(names: list[str], field: str):
    """Lines that differ without colour, too."""
    return alt.StrokeDash(
        field,
        scale=alt.Scale(domain=names, range=[DASHES[i % len(DASHES)] for i in range(len(names))]),
        title=None,
        legend=STROKES,
    )


def lines(names: list[str], field: str) -> dict:
    """The channels of lines that are told apart by colour and by dash."""
    scale = alt.Scale(domain=names, range=cycle(len(names)))
    return {"color": alt.Color(field, scale=scale, title=None, legend=STROKES), "strokeDash": dash(names, field)}


def tips(*fields: tuple[str, ...]) -> list[alt.Tooltip]:
    """What one sees on hover: of each field its name with its type, and where they are given a title and a format of numbers."""
    keys = "title", "format"
    return [alt.Tooltip(field, **{key: one for key, one in zip(keys, rest) if one}) for field, *rest in fields]


def dots_by_path(data: dict, rows: list[dict], x: alt.X, order, *fields: tuple[str, ...]):
    """A point of every model on every path. rows: with model and path. order: of the paths. fields: as ``tips``."""
    y = alt.Y("path:N", title=None, sort=order, axis=alt.Axis(grid=True))
    about = tips(("model:N",), ("path:N",), *fields)
    chart = alt.Chart(rows_of(rows)).mark_point(filled=True, size=90, opacity=0.9)
    chart = chart.encode(x=x, y=y, color=colour(data), shape=shape(data), tooltip=about)
    return chart.properties(width="container", height=20 * len({row["path"] for row in rows}))


def stacked_by_model(
    data: dict, rows: list[dict], x: alt.X, field: str, kinds: dict[str, str], *fields: tuple[str, ...]
):
    """A bar of every model, in parts. rows: with model and order. kinds: values of the field -> colours. fields: as ``tips``."""
    scale = alt.Scale(domain=list(kinds), range=list(kinds.values()))
    parts, y = alt.Color(field, sort=list(kinds), scale=scale), alt.Y("model:N", title=None, sort=model_names(data))
    about = tips(("model:N",), *fields)
    chart = alt.Chart(rows_of(rows)).mark_bar().encode(x=x, y=y, color=parts, order="order:Q", tooltip=about)
    return chart.properties(width="container", height=30 * len(data["models"]))


def cycle(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def share_axis(title: str):
    return alt.Axis(title=title, format=".0%")


def metric_axis(data: dict):
    higher = data["metric"]["higher_is_better"]
    name = data["metric"]["name"]
    title = f"{name} (share of answers that are right)" if higher else f"{name} (lower is better)"
    return alt.Y(
        "score:Q",
        title=title,
        scale=alt.Scale(zero=False, padding=18),
        axis=alt.Axis(format=".1%" if higher else ".3g"),
    )


def rows_of(values: list[dict]):
    return alt.Data(values=values)


def score_tip(metric: dict) -> tuple[str, str, str]:
    """The score, for ``tips``."""
    return "score:Q", metric["name"], ".2%" if metric["higher_is_better"] else ".4g"


def say(metric: dict, value: float) -> str:
    return f"{value:.1%}" if metric["higher_is_better"] else f"{value:.4g}"


def percent(value: float) -> str:
    """A share with the digits that it has."""
    return f"{value:.1%}" if value >= 0.01 or value == 0 else f"{100 * value:.2g}%"
