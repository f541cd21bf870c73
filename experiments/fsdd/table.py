"""The tables of docs/speech.md, from results.json: `python experiments/fsdd/table.py`. With `--write` they replace the page's."""

import json
import sys
from pathlib import Path

from rindle.tasks.demo.digits import DELTA, FLOAT, INT8, spread

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/speech.md"
BEGIN, END = "<!-- tables: experiments/fsdd/table.py --write -->\n", "<!-- end of tables -->\n"


def rows() -> list[str]:
    results = json.loads((HERE / "results.json").read_text())
    return [*means(results), "", *folds(results)]


def means(results: dict) -> list[str]:
    summary = results["summary"]
    lines = [
        "| model | accuracy | points lost | bytes | eliminated | on x alone | on h alone | at θ = 0 |",
        "|" + "---|" * 8,
    ]
    for name, against in ((FLOAT, ""), (INT8, " to float"), (DELTA, " to int8")):
        one = summary[name]
        lost = spread(one["lost"], ".2f") + against if against else ""
        saved = [""] * 4
        if name == DELTA:
            saved = [spread(one["eliminated"][kind]) for kind in ("all", "input", "hidden")]
            saved.append(spread(one["eliminated at 0"]["all"]))
        lines.append(line(name, spread(one["accuracy"]), lost, f"{one['bytes']['mean']:,.0f}", *saved))
    return lines


def folds(results: dict) -> list[str]:
    lines = [
        "| test | validation | frames | float | int8 | int8, delta | θ of x, h | eliminated | at θ = 0 |",
        "|" + "---|" * 9,
    ]
    for fold in results["folds"]:
        one = fold["models"]
        theta = ", ".join(str(value) for value in one[DELTA]["thresholds"].values())
        saved = (f"{one[DELTA][key]['all']:.1%}" for key in ("eliminated", "eliminated at 0"))
        right = (f"{one[name]['test']:.1%}" for name in (FLOAT, INT8, DELTA))
        lines.append(
            line(fold["test speaker"], fold["validation speaker"], f"{fold['frames']:,}", *right, theta, *saved)
        )
    return lines


def line(*parts: str) -> str:
    return "| " + " | ".join(parts) + " |"


def main() -> None:
    table = "\n".join(rows()) + "\n"
    print(table, end="")
    if "--write" in sys.argv:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + table + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
