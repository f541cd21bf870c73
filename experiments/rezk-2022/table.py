"""Tables, plots and the report page from results.json; `python experiments/rezk-2022/table.py [--write]`.

`--write` puts the tables into README.md and writes pareto.svg, pareto.html and report.html beside it.
"""

import html
import json
import sys
from pathlib import Path

from combinations import pareto

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: table.py --write -->\n", "<!-- end of tables -->\n"
TITLES = {"lstm": "LSTM", "gru": "GRU", "ligru": "LiGRU", "sru": "SRU"}
# Published: percentage points above float of the four models compressed by more than 85 % (abstract), and what the formula of
# the paper gives for its full size (compression of M1 with every path skipped, with LiGRU's fraction put right).
CLAIMED = {"lstm": (0.6, 87.2), "gru": (0.0, 86.1), "ligru": (2.1, 83.1), "sru": (0.2, 88.5)}


def cells(results: dict, kind: str, part: str, method: str | None = None, **wanted) -> list[dict]:
    found = []
    for cell in results["models"][kind]["cells"]:
        key = cell["key"]
        if key["part"] == part and method in (None, key["method"]) and all(key.get(k) == v for k, v in wanted.items()):
            found.append(cell)
    return found


def _increase(cell: dict) -> str:
    one = cell["increase"]
    return f"{one['mean']:+.2f} ({one['low']:+.2f} … {one['high']:+.2f})"


def markdown(results: dict) -> list[str]:
    """Lines: quantization without thresholds, then thresholds, then the test part."""
    lines = ["#### Beside the paper: row M1, points above float on the search set", ""]
    lines += [
        "| model | paper, more than 85 % smaller | paper's size: M1, skip all, smaller by % | published method here | Rindle here | smaller by %, here |",
        "|" + "---|" * 6,
    ]
    results = results | {"models": {kind: results["models"][kind] for kind in TITLES if kind in results["models"]}}
    for kind in results["models"]:
        points, smaller = CLAIMED[kind]
        here = [
            sorted(
                (
                    cell
                    for cell in cells(results, kind, "search", method, row="M1")
                    if cell["key"].get("rescale") != "max"
                ),
                key=lambda cell: cell["error"],
            )[:1]
            for method in ("published", "rindle")
        ]
        shown = [f"{_increase(one[0])}, skip {one[0]['key']['skip']}" if one else "not run" for one in here]
        sizes = " and ".join(f"{100 * one[0]['compression']:.1f}" for one in here if one)
        lines.append(f"| {TITLES[kind]} | {points:+.1f} | {smaller} | {' | '.join(shown)} | {sizes} |")
    lines += ["", "#### Quantized, on the search set", ""]
    head = "| model | row | skip | method | error % | above float, points (95 %) | compression % | eliminated at θ = 0, % | bytes of the file |"
    lines += [head, "|" + "---|" * 9]
    for kind in results["models"]:
        base = cells(results, kind, "search", "float")
        lines += [f"| {TITLES[kind]} | float | | | {100 * one['error']:.2f} | | | | |" for one in base]
        for cell in results["models"][kind]["cells"]:
            key = cell["key"]
            if key["part"] != "search" or key["method"] == "float" or "thetas" in key:
                continue
            method = key["method"] + (", maxima matched" if key.get("rescale") == "max" else "")
            lines.append(
                f"| {TITLES[kind]} | {key['row']} | {key['skip']} | {method} | {100 * cell['error']:.2f} | {_increase(cell)} "
                f"| {100 * cell['compression']:.1f} | {100 * cell['eliminated']:.1f} | {_bytes(cell)} |"
            )
    lines += ["", "#### Thresholds, on the search set", ""]
    lines += [
        "| model | method | row, skip | evaluations | points of the front | most eliminated within the budget, % | θ |",
        "|" + "---|" * 7,
    ]
    for kind, one in results["models"].items():
        for method, choice in one["chosen"].items():
            if "thetas" in choice:
                front, best = front_of(results, kind, method), _chosen(results, kind, method, "search")
                thetas = ", ".join(f"{name} {theta}" for name, theta in choice["thetas"].items() if theta) or "all 0"
                lines.append(
                    f"| {TITLES[kind]} | {method} | {', '.join(choice['of'])} | {choice['evaluations']} | {len(front)} "
                    f"| {100 * best['eliminated']:.1f} | {thetas} |"
                )
    lines += ["", "#### Test", ""]
    lines += [
        "| model | method | row, skip | θ | error % | above float, points (95 %) | compression % | eliminated % |",
        "|" + "---|" * 8,
    ]
    for kind in results["models"]:
        for cell in cells(results, kind, "test"):
            key = cell["key"]
            if key["method"] == "float":
                lines.append(f"| {TITLES[kind]} | float | | | {100 * cell['error']:.2f} | | | |")
                continue
            planned = results["models"][kind]["chosen"].get(key["method"], {}).get("thetas", {})
            planned = {name: theta for name, theta in planned.items() if theta}
            thetas = (
                "0" if "thetas" not in key else "chosen" if key["thetas"] == planned else "by another budget, later"
            )
            lines.append(
                f"| {TITLES[kind]} | {key['method']} | {key['row']}, {key['skip']} | {thetas} | {100 * cell['error']:.2f} "
                f"| {_increase(cell)} | {100 * cell['compression']:.1f} | {100 * cell['eliminated']:.1f} |"
            )
    return lines


def _bytes(cell: dict) -> str:
    return f"{cell['bytes of the file']:,}" if "bytes of the file" in cell else ""


def front_of(results: dict, kind: str, method: str) -> list[dict]:
    """The front over all candidates of the choice of thresholds, θ = 0 everywhere among them."""
    row, skip = results["models"][kind]["chosen"][method]["of"]
    found = cells(results, kind, "search", method, row=row, skip=skip)
    return pareto([cell for cell in found if cell["key"].get("rescale") != "max"])


def _chosen(results: dict, kind: str, method: str, part: str) -> dict:
    choice = results["models"][kind]["chosen"][method]
    thetas = {name: theta for name, theta in choice["thetas"].items() if theta}
    row, skip = choice["of"]
    return cells(results, kind, part, method, row=row, skip=skip, thetas=thetas or None)[0]


def plot(results: dict):
    """Error above float against eliminated operations, of all models and both methods: one altair chart."""
    import altair as alt

    points = [
        {
            "model": TITLES[kind],
            "method": method,
            "above float, points": cell["increase"]["mean"],
            "eliminated, %": 100 * cell["eliminated"],
            "compression, %": round(100 * cell["compression"], 1),
            "row": f"{cell['key']['row']}, {cell['key']['skip']}",
        }
        for kind, one in results["models"].items()
        for method, choice in one["chosen"].items()
        for cell in (front_of(results, kind, method) if "of" in choice else [])
        + [c for c in cells(results, kind, "search", method) if "thetas" not in c["key"]]
        if cell["key"].get("rescale") != "max"
    ]
    chart = alt.Chart(alt.Data(values=points)).mark_point(filled=True, size=45, opacity=0.8)
    return chart.encode(
        x=alt.X("eliminated, %:Q", title="eliminated operations, %"),
        y=alt.Y("above float, points:Q", title="phone errors above float, points", scale=alt.Scale(type="symlog")),
        color=alt.Color("model:N", title=None),
        shape=alt.Shape("method:N", title=None),
        tooltip=["model:N", "method:N", "row:N", "eliminated, %:Q", "above float, points:Q", "compression, %:Q"],
    ).properties(width=560, height=360, title="Error against eliminated operations, on the search set")


def page(results: dict) -> str:
    """One HTML page with the plot and the tables, which needs no network."""
    import vl_convert

    figure = vl_convert.vegalite_to_svg(plot(results).to_json())
    body = []
    for line in markdown(results):
        if line.startswith("#"):
            body.append(f"<h2>{html.escape(line.strip('# '))}</h2><table>")
        elif line.startswith("|") and not line.startswith("|---"):
            body.append(
                "<tr>" + "".join(f"<td>{html.escape(one.strip())}</td>" for one in line.strip("|").split("|")) + "</tr>"
            )
        elif not line and body and body[-1].startswith("<tr>"):
            body.append("</table>")
    style = "body{font:15px sans-serif;margin:2em;max-width:75em}td{padding:.15em .6em;border-bottom:1px solid #ccc}"
    head = f"<!doctype html><meta charset=utf-8><title>Shrink and eliminate</title><style>{style}</style>"
    return f"{head}<h1>Shrink and eliminate, on Mboshi</h1>{figure}{''.join(body)}</table>"


def main() -> None:
    results = json.loads((HERE / "results.json").read_text())
    text = "\n".join(markdown(results)) + "\n"
    print(text, end="")
    if "--write" in sys.argv:
        import vl_convert

        readme = HERE / "README.md"
        before, _, rest = readme.read_text().partition(BEGIN)
        readme.write_text(before + BEGIN + text + END + rest.partition(END)[2])
        chart = plot(results)
        (HERE / "pareto.svg").write_text(vl_convert.vegalite_to_svg(chart.to_json()))
        (HERE / "pareto.html").write_text(vl_convert.vegalite_to_html(chart.to_json(), bundle=True))
        (HERE / "report.html").write_text(page(results))


if __name__ == "__main__":
    main()
