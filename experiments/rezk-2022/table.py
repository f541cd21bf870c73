"""From the logs of the study: results.json, the tables of README.md, the plots and the report page.

    python experiments/rezk-2022/table.py [--logs build/rezk-2022/study] [--write]

Without --write the tables of results.json are printed; with it the logs are read, where there are any, and results.json,
README.md, pareto.svg, report.html and pareto.html (with tooltips, not committed) are written.
"""

import argparse
import html
import json
from pathlib import Path

import findings

from rindle.files import write_file

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: table.py --write -->\n", "<!-- end of tables -->\n"
TITLES = {"lstm": "LSTM", "gru": "GRU", "ligru": "LiGRU", "sru": "SRU"}
# Published: percentage points above float of the four models compressed by more than 85 % (abstract), and what the formula of
# the paper gives for its full size (compression of M1 with every path skipped, with LiGRU's fraction put right).
CLAIMED = {"lstm": (0.6, 87.2), "gru": (0.0, 86.1), "ligru": (2.1, 83.1), "sru": (0.2, 88.5)}


def as_json(results: dict) -> bytes:
    """A line for each cell, so that two results can be compared."""
    models = {kind: one | {"cells": len(one["cells"])} for kind, one in results["models"].items()}
    text = json.dumps(results | {"models": models}, indent=1, ensure_ascii=False)
    for kind, one in results["models"].items():
        rows = ",\n   ".join(json.dumps(cell, ensure_ascii=False) for cell in one["cells"])
        before, found, after = text.partition(f'\n  "{kind}": {{')
        text = before + found + after.replace(f'"cells": {len(one["cells"])}', f'"cells": [\n   {rows}\n  ]', 1)
    return (text + "\n").encode()


def _points(one: dict | None) -> str:
    return f"{one['mean']:+.2f} ({one['low']:+.2f} … {one['high']:+.2f})" if one else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _row(entry: dict | None) -> str:
    if not entry:
        return "none"
    words = entry["method"].removeprefix("published").removeprefix("rindle").strip()
    return ", ".join(part for part in (entry["row"].removeprefix("rezk-"), f"skip {entry['skip']}", words) if part)


def _table(head: str, rows: list[list[str]]) -> list[str]:
    columns = head.split(" | ")
    return [f"| {head} |", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows), ""]


def markdown(results: dict) -> list[str]:
    """Lines of all tables."""
    of_kind = {kind: results["models"][kind] for kind in TITLES if kind in results["models"]}
    lines = []
    for title, made in (
        ("More than 85 % smaller: the row with the fewest errors on the search part", _claims(of_kind)),
        ("Row M1 beside the paper, points above float on the search part", _m1(of_kind)),
        ("Size at equal error: the smallest within a budget on the search part", _sizes(of_kind)),
        ("Eliminated operations at equal error, on test", _eliminations(of_kind)),
        ("The four models beside one another", _models(results["beside one another"])),
        ("What skipping the named paths changes, points of error on the search part", _paths(of_kind)),
        ("Thresholds, on the search part", _thresholds(of_kind)),
        ("Quantized, on the search part", _quantized(of_kind)),
        ("Test", _test(of_kind)),
    ):
        lines += [f"#### {title}", "", *made]
    return lines[:-1]


def _claims(of_kind: dict) -> list[str]:
    rows = []
    for kind, one in of_kind.items():
        for side, entry in one["findings"]["more than 85 % smaller"].items():
            if entry:
                smaller = _percent(entry["compression"])
                shown = _points(entry["search"]), _points(entry.get("test"))
                rows.append([TITLES[kind], f"{CLAIMED[kind][0]:+.1f}", side, _row(entry), smaller, *shown])
    return _table(
        "model | paper, points above float | method | row | smaller by % | search, points (95 %) | test", rows
    )


def _m1(of_kind: dict) -> list[str]:
    rows = []
    for kind, one in of_kind.items():
        cells = [c for c in one["cells"] if c["key"].get("row") == "rezk-m1" and c["key"]["part"] == "search"]
        cells = [c for c in cells if c["key"].get("rescale") != "max" and "thetas" not in c["key"]]
        for cell in sorted(cells, key=lambda c: (c["key"]["method"], c["key"]["skip"])):
            key = cell["key"]
            claimed = [f"{CLAIMED[kind][0]:+.1f}, {CLAIMED[kind][1]} % with all skipped"]
            rows.append(
                [
                    TITLES[kind],
                    *claimed,
                    key["method"],
                    key["skip"],
                    _points(cell["increase"]),
                    _percent(cell["compression"]),
                ]
            )
    return _table("model | paper | method | skip | above float, points (95 %) | smaller by %", rows)


def _sizes(of_kind: dict) -> list[str]:
    rows = []
    for kind, one in of_kind.items():
        for entry in one["size at equal error"]:
            row = [TITLES[kind], f"{entry['budget']:g}"]
            for side in findings.SIDES:
                cell = entry[side]
                row += [_row(cell), f"{cell['bytes']:,.0f}, {_percent(cell['compression'])}" if cell else ""]
                row += [_points(cell and cell.get("test"))]
            row += [f"{entry['smaller, %']:.1f}" if "smaller, %" in entry else ""]
            rows.append([*row, _points(entry.get("error against published"))])
    return _table(
        "model | budget | published | bytes, smaller by % | test, points | Rindle | bytes, smaller by % | test, points "
        "| Rindle smaller by % | its error against published, test",
        rows,
    )


def _eliminations(of_kind: dict) -> list[str]:
    rows = []
    for kind, one in of_kind.items():
        for entry in (one["eliminated at equal error"] or {}).get("beside", ()):
            theirs, ours = entry["published"], entry["rindle"]
            row = [TITLES[kind], _points(theirs["increase"]), _percent(theirs["eliminated"])]
            row += [_points(ours["increase"]), _percent(ours["eliminated"])] if ours else ["none has so few", ""]
            row += [f"{entry['more, points']:+.1f}" if ours else "", _points(entry.get("error against published"))]
            rows.append(row)
    lines = _table(
        "model | published, points above float | eliminated % | Rindle with no more errors | eliminated % | more, points "
        "| its error against published",
        rows,
    )
    rows = []
    for kind, one in of_kind.items():
        for entry in (one["eliminated at equal error"] or {}).get("at", ()):
            both = [entry[side] for side in findings.SIDES]
            more = f"{100 * (both[1] - both[0]):+.1f}" if None not in both else ""
            rows.append([TITLES[kind], f"{entry['above float']:g}", *map(_percent, both), more])
    return lines + _table("model | points above float | published, eliminated % | Rindle | more, points", rows)


def _models(beside: dict) -> list[str]:
    rows = []
    for kind in TITLES:
        if kind in beside:
            one = beside[kind]
            for budget, small in one["smallest"].items():
                most = one["most eliminated"].get(budget)
                row = [TITLES[kind], f"{100 * one['float error']:.2f}", budget, f"{small['bytes']:,.0f}", _row(small)]
                rows.append([*row, small["method"].split()[0], _points(small.get("test")), _percent(most)])
    return _table(
        "model | float error % | budget, points | smallest bytes | row | method | its test, points | most eliminated % within it",
        rows,
    )


def _paths(of_kind: dict) -> list[str]:
    rows = []
    for kind, one in of_kind.items():
        for entries in one["findings"]["skipped paths"].values():
            for entry in entries:
                changes = [_points(entry.get(skip)) for skip in ("all", "first")]
                rows.append([TITLES[kind], entry["row"].removeprefix("rezk-"), entry["method"], *changes])
    return _table("model | row | method | all skipped, against none (95 %) | first layers skipped", rows)


def _thresholds(of_kind: dict) -> list[str]:
    rows = []
    for kind, one in of_kind.items():
        if one["walk"]:
            last = one["walk"]["points"][-1]
            row, skip = one["walk"]["of"]["row"], one["walk"]["of"]["skip"]
            tried = [c for c in one["cells"] if c["key"]["method"] == "published" and c["key"].get("row") == row]
            tried = [c for c in tried if c["key"]["part"] == "search" and c["key"]["skip"] == skip]
            tried = [c for c in tried if c["key"].get("rescale") != "max"]
            rows.append([TITLES[kind], "rindle", row, str(one["walk"]["evaluations"]), str(len(one["walk"]["points"]))])
            rows[-1] += [f"{_percent(last[1])} at {last[0]:.2f} points of frame accuracy"]
            best = max(tried, key=lambda c: c["eliminated"], default=None)
            if best:
                front = findings.pareto(tried)
                rows.append([TITLES[kind], "published", row, str(len(tried)), str(len(front))])
                rows[-1] += [
                    f"{_percent(best['eliminated'])} at {best['increase']['mean']:+.2f} points of phone errors"
                ]
    return _table("model | method | row | evaluations | points of the front | most eliminated %", rows)


def _quantized(of_kind: dict) -> list[str]:
    rows = []
    for kind, one in of_kind.items():
        for cell in one["cells"]:
            key = cell["key"]
            if key["part"] == "search" and key["method"] == "float":
                rows.append([TITLES[kind], "float", "", "", f"{100 * cell['error']:.2f}", "", "", "", "", ""])
            elif key["part"] == "search" and "thetas" not in key:
                method = key["method"] + (", maxima matched" if key.get("rescale") == "max" else "")
                rows.append([TITLES[kind], key["row"].removeprefix("rezk-"), key["skip"], method, *_numbers(cell)])
    return _table(
        "model | row | skip | method | error % | above float, points (95 %) | compression % | eliminated at θ = 0, % | in the runtime, % "
        "| bytes of the file",
        rows,
    )


def _test(of_kind: dict) -> list[str]:
    rows = []
    for kind, one in of_kind.items():
        for cell in one["cells"]:
            key = cell["key"]
            if key["part"] == "test" and key["method"] == "float":
                rows.append([TITLES[kind], "float", "", "", "", f"{100 * cell['error']:.2f}", "", "", "", "", ""])
            elif key["part"] == "test":
                theta = "chosen" if "thetas" in key else "0"
                name = [TITLES[kind], key["method"], key["row"].removeprefix("rezk-"), key["skip"], theta]
                rows.append([*name, *_numbers(cell)])
    return _table(
        "model | method | row | skip | θ | error % | above float, points (95 %) | compression % | eliminated % | in the runtime, % "
        "| bytes of the file",
        rows,
    )


def _numbers(cell: dict) -> list[str]:
    size = f"{cell['bytes of the file']:,}" if "bytes of the file" in cell else ""
    return [
        f"{100 * cell['error']:.2f}",
        _points(cell["increase"]),
        *(_percent(cell.get(name)) for name in ("compression", "eliminated", "eliminated in the runtime")),
        size,
    ]


def plot(results: dict):
    """Two panels of all models and both methods: error against size (search part), and against eliminated operations (test)."""
    import altair as alt

    def points(part: str, keep) -> list[dict]:
        return [
            {
                "model": TITLES[kind],
                "method": cell["key"]["method"].split()[0],
                "above float, points": cell["increase"]["mean"],
                "smaller, %": 100 * cell["compression"],
                "eliminated, %": 100 * cell["eliminated"],
                "row": f"{cell['key']['row']}, {cell['key']['skip']}, {cell['key']['method']}",
            }
            for kind in TITLES
            for cell in results["models"].get(kind, {"cells": ()})["cells"]
            if cell["key"]["part"] == part
            and cell["key"]["method"] != "float"
            and cell["key"].get("rescale") != "max"
            and keep(kind, cell)
        ]

    def walked(kind: str, cell: dict) -> bool:
        walk = results["models"][kind]["walk"]
        same = walk and all(cell["key"][name] == walk["of"][name] for name in ("row", "skip"))
        return bool(same) and " " not in cell["key"]["method"]

    def fronted(rows: list[dict], x: str) -> list[dict]:
        found = []
        for group in dict.fromkeys((one["model"], one["method"]) for one in rows):
            best = -1e9
            for one in sorted(rows, key=lambda r: (r["above float, points"], -r[x])):
                if (one["model"], one["method"]) == group and one[x] > best:
                    best = one[x]
                    found.append(one)
        return found

    def panel(rows: list[dict], x: str, title: str, part: str):
        encoding = {
            "x": alt.X(f"{x}:Q", title=title, scale=alt.Scale(zero=False)),
            "y": alt.Y(
                "above float, points:Q",
                title=f"phone errors above float, points, {part}",
                scale=alt.Scale(type="symlog"),
            ),
            "color": alt.Color("model:N", title=None, sort=list(TITLES.values())),
        }
        shape = alt.Shape("method:N", title=None, sort=list(findings.SIDES))
        dash = alt.StrokeDash("method:N", title=None, sort=list(findings.SIDES))
        tips = ["model:N", "row:N", "above float, points:Q", "smaller, %:Q", "eliminated, %:Q"]
        marks = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=40, opacity=0.6)
        lines = alt.Chart(alt.Data(values=fronted(rows, x))).mark_line(interpolate="step-before", opacity=0.8)
        order = alt.Order(f"{x}:Q")
        return (
            lines.encode(**encoding, strokeDash=dash, order=order) + marks.encode(**encoding, shape=shape, tooltip=tips)
        ).properties(width=430, height=380)

    rows = points("search", lambda kind, cell: "thetas" not in cell["key"])
    held = points("test", walked)
    return panel(rows, "smaller, %", "smaller by the published formula, %", "search part") | panel(
        held, "eliminated, %", "eliminated operations, %", "test"
    )


def page(results: dict) -> str:
    """One HTML page with the plot and the tables, which needs no network."""
    import vl_convert

    figure = vl_convert.vegalite_to_svg(plot(results).to_json())
    body, cell = [], "td"
    for line in markdown(results):
        if line.startswith("#"):
            body.append(f"<h2>{html.escape(line.strip('# '))}</h2>")
        elif line.startswith("|---"):
            continue
        elif line.startswith("|"):
            cell = "td" if body[-1].startswith("<tr>") else "th"
            columns = (f"<{cell}>{html.escape(one.strip())}</{cell}>" for one in line[1:-1].split("|"))
            body.append(("" if cell == "td" else "<table>\n") + f"<tr>{''.join(columns)}</tr>")
            if cell == "th":
                body[-1:] = body[-1].split("\n")
        elif body[-1].startswith("<tr>"):
            body.append("</table>")
    style = "body{font:15px sans-serif;margin:2em;max-width:75em}td,th{padding:.15em .6em;border-bottom:1px solid #ccc;text-align:left}"
    head = f"<!doctype html><meta charset=utf-8><title>Shrink and eliminate</title><style>{style}</style>"
    return f"{head}<h1>Shrink and eliminate, on Mboshi</h1>{figure}{''.join(body)}</table>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, default=Path("build/rezk-2022/study"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    file = HERE / "results.json"
    if options.write and options.logs.exists():
        write_file(file, as_json(findings.collect(options.logs)))
    results = json.loads(file.read_text())
    text = "\n".join(markdown(results)) + "\n"
    print(text, end="")
    if options.write:
        import vl_convert

        readme = HERE / "README.md"
        before, _, rest = readme.read_text().partition(BEGIN)
        write_file(readme, (before + BEGIN + text + END + rest.partition(END)[2]).encode())
        chart = plot(results).to_json()
        write_file(HERE / "pareto.svg", vl_convert.vegalite_to_svg(chart).encode())
        write_file(HERE / "pareto.html", vl_convert.vegalite_to_html(chart, bundle=True).encode())
        write_file(HERE / "report.html", page(results).encode())


if __name__ == "__main__":
    main()
