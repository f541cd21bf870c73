"""One figure of ``rindle sensitivity``: what keeping each path at 16 bits buys, and which are proposed."""

from __future__ import annotations

import altair as alt

from ..search.sensitivity import Found
from .style import PALETTE, Figure, cycle, rows_of

MOST = 40  # paths that are drawn: those that matter most
KEPT, LOW = "left at 16 bits", "low"
ALONE = "added where all others have 16 bits"
PARTS = {"weights": "taken away by its weights alone", "codes": "taken away by its codes alone"}


def bars(found: Found, scheme: str, data: str) -> Figure:
    whole = found.of_kind("both")[:MOST]
    order = [one.path for one in whole]
    kept = [{**_row(one, one.bought, one.spared), "kept": KEPT if one.path in found.kept else LOW} for one in whole]
    marks = [{**_row(one, one.alone.drift, one.alone), "mark": ALONE} for one in whole]
    marks += [
        {**_row(one, one.bought, one.spared), "mark": PARTS[one.kind]}
        for one in found.contributions
        if one.kind in PARTS and one.path in order
    ]
    tips = [
        alt.Tooltip("path:N"),
        alt.Tooltip("drift:Q", format=".4f"),
        alt.Tooltip("loss:Q", title="loss in points", format=".2f"),
        alt.Tooltip("bytes:Q", title="bytes more at 16 bits", format=","),
    ]
    axes = {
        "x": alt.X("drift:Q", title="drift of the outputs that keeping a path at 16 bits takes away"),
        "y": alt.Y("path:N", sort=order, title=None),
        "tooltip": tips,
    }
    names = list(dict.fromkeys(row["mark"] for row in marks))
    chart = alt.layer(
        alt.Chart(rows_of(kept))
        .mark_bar(opacity=0.8)
        .encode(
            color=alt.Color("kept:N", scale=alt.Scale(domain=[KEPT, LOW], range=cycle(2)[::-1]), title=None), **axes
        ),
        alt.Chart(rows_of(marks))
        .mark_point(size=60, color=PALETTE[3], filled=True)
        .encode(shape=alt.Shape("mark:N", sort=names, title=None), **axes),
    ).properties(width="container", height=alt.Step(20))
    title = f"{scheme} hurts {whole[0].path} most"
    title += f"; {', '.join(found.kept)} left at 16 bits" if found.kept else "; nothing needs 16 bits"
    title += (
        f": loss {found.low.error:.2f} → {found.chosen.error:.2f}, {found.low.bytes:,} → {found.chosen.bytes:,} bytes"
    )
    note = f"Against all paths at 16 bits, on {data}. Budget {found.budget:g}; {found.evaluations} evaluations."
    return Figure("sensitivity", title, note, chart)


def _row(one, drift: float, outcome) -> dict:
    return {"path": one.path, "drift": drift, "loss": outcome.error, "bytes": one.bytes}
