"""The collected data as one HTML file that asks nobody for anything: style, drawing library, figures and data are inside."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

import altair as alt
import jinja2
import vl_convert

from ..errors import RindleError
from .figures import FIGURES, figures
from .style import DARK, LIGHT, Figure, percent, say

SCHEMA = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])  # the Vega-Lite that altair writes


def render(data: dict) -> str:
    """The page. data: what ``collect`` gave."""
    return fill("page.html.j2", figures(data), data=data, columns=columns(data), headline=headline(data))


def fill(template: str, figures: list[Figure], **content) -> str:
    """A page of this folder's templates, with the style and the drawing that all pages have."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = percent
    return environment.get_template(template).render(
        figures=[(one, one.spec()) for one in figures],
        library=vl_convert.javascript_bundle(vl_version=SCHEMA),
        light=LIGHT,
        dark=DARK,
        **content,
    )


def columns(data: dict) -> list[tuple[str, str, list[str]]]:
    """The summary table, by columns: (name, what it means, a cell per model). Columns with nothing to say are left out."""
    metric, models = data["metric"], data["models"]
    times = [(model["bench"] or {}).get("step") for model in models]
    ours = [
        min((r["median"] for r in race["rows"] if r["kind"] == "rindle"), default=None) if race else None
        for race in times
    ]

    def speed(kind: str) -> list[str]:
        ratios = [race["speedup"].get(kind) if race else None for race in times]
        return [f"{ratio:.1f} ×" if ratio else "" for ratio in ratios]

    made = [
        (metric["name"], "on these data", [say(metric, model["score"]) for model in models]),
        ("bytes", "of the whole file", [f"{model['bytes']:,}" for model in models]),
        ("scheme", "of the formats", [model["scheme"] for model in models]),
        (
            "θ",
            "in code units",
            [", ".join(f"{i['name']} {i['theta']}" for i in m["inputs"] if i["theta"] is not None) for m in models],
        ),
        (
            "eliminated",
            "of recurrent multiply-accumulates",
            [f"{model['eliminated']:.1%}" if model["held"] else "" for model in models],
        ),
        (
            "at θ = 0",
            "the same, results unchanged",
            [f"{model['eliminated_at_zero']:.1%}" for model in models],
        ),
        (
            "µs per step",
            "one frame, batch 1",
            [f"{t:.1f}" if t else "" for t in ours],
        ),
        ("× float", "as fast as torch float", speed("torch float")),
        ("× dynamic int8", "as fast as torch's", speed("torch dynamic int8")),
    ]
    return [column for column in made if any(column[2])]


def headline(data: dict) -> str:
    """One sentence of what was found."""
    models, metric = data["models"], data["metric"]
    best = max(models, key=lambda m: m["eliminated"])
    text = f"{best['name']}: {metric['name']} {say(metric, best['score'])} in {best['bytes']:,} bytes"
    if best["held"]:
        text += f", with {best['eliminated']:.0%} of the recurrent multiply-accumulates skipped"
    step = (best["bench"] or {}).get("step")
    if step and step["speedup"].get("torch float"):
        text += f", {step['speedup']['torch float']:.1f} times as fast as torch float"
    return text + "."


def image(data: dict, name: str, form: str) -> bytes:
    """One figure by its name as "svg" or "png", dark on white, with its title: for a README or a paper."""
    found = {one.name: one for one in figures(data)}
    if name not in found:
        here = ", ".join(found)
        raise RindleError(
            f"this report has no figure {name!r}; there are {here}"
            + (" (all: " + ", ".join(FIGURES) + ")" if name in FIGURES else "")
        )
    return drawn(found[name], form)


def drawn(one: Figure, form: str) -> bytes:
    """A figure as "svg", "png" or "html", which asks nobody for anything either, dark on white, with its title."""
    spec = _replaced(one.spec(), "#24292f")
    spec["config"]["background"] = LIGHT
    spec |= {"width": 640, "title": {"text": wrap(one.title, 72), "anchor": "start"}, "padding": 16}
    if form == "html":
        return vl_convert.vegalite_to_html(spec, vl_version=SCHEMA, bundle=True).encode()
    if form == "svg":
        return vl_convert.vegalite_to_svg(spec, vl_version=SCHEMA).encode()
    return vl_convert.vegalite_to_png(spec, vl_version=SCHEMA, scale=2)


def _replaced(value, ink: str):
    """The chart with its ink, which is the page's, made a colour of its own."""
    if isinstance(value, dict):
        return {key: _replaced(one, ink) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, ink) for one in value]
    return ink if value == "currentColor" else value
