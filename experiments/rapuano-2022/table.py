"""The tables of README.md, from results.json: `python experiments/rapuano-2022/table.py [--write]`."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- table: table.py --write -->\n", "<!-- end of table -->\n"
TITLES = {
    "ptb-lstm": "PTB, LSTM 1×300, perplexity per word",
    "ptb-gru": "PTB, GRU 1×300, perplexity per word",
    "imdb-lstm": "IMDb, LSTM 1×128, errors in %",
    "imdb-gru": "IMDb, GRU 1×128, errors in %",
}


def tables() -> str:
    rows = json.loads((HERE / "results.json").read_text())
    lines = []
    for subject, title in TITLES.items():
        found = [row for row in rows if row["subject"] == subject]
        if not found:
            continue
        base = found[0]["parts"]
        lines += [
            "",
            f"**{title}**; float {base['valid']['float']:.2f} on valid, {base['test']['float']:.2f} on test.",
            "",
        ]
        lines += [
            "| weights / codes | method | valid | test | change on test | 95 % interval | file, bytes | recurrent weights, bytes |"
        ]
        lines += ["|" + "---|" * 8]
        for row in sorted(found, key=lambda one: (-one["w"] - one["a"], -one["w"])):
            test, sizes = row["parts"]["test"], row["sizes"]
            mean, low, high, _ = test["change"]
            recurrent = sizes["recurrent weights"] * sizes["recurrent weights, bits each"] / 8
            lines.append(
                f"| {row['w']} / {row['a']} | {row['method']} | {row['parts']['valid']['quantized']:.2f} | {test['quantized']:.2f} "
                f"| {mean:+.2f} | {low:+.2f} … {high:+.2f} | {sizes['file']:,} | {recurrent:,.0f} "
                f"({100 * (1 - sizes['recurrent weights, bits each'] / 32):.1f} % less) |"
            )
    return "\n".join(lines) + "\n\n"


def main() -> None:
    text = tables()
    print(text, end="")
    if "--write" in sys.argv:
        readme = HERE / "README.md"
        before, _, rest = readme.read_text().partition(BEGIN)
        readme.write_text(before + BEGIN + text + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
