"""The table of experiments/README.md, from what is written inside the checkpoints: `python experiments/baselines/table.py`.

With `--write` the README's table is replaced.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.baselines import tasks
from experiments.baselines.run import HERE, about

README = HERE.parent / "README.md"
BEGIN, END = "<!-- table: baselines/table.py --write -->\n", "<!-- end of table -->\n"
UNITS = {
    "accuracy": "accuracy {:.2%}",
    "perplexity": "perplexity {:.2f}",
    "wer": "word errors {:.1%}",
    "per": "phone errors {:.1%}",
    "nmse_db": "NMSE {:.2f} dB",
    "mse": "MSE {:.1f}",
}


def rows() -> list[str]:
    lines = ["| task | model | valid | test | parameters | epochs | minutes | command | date |", "|" + "---|" * 9]
    for file in sorted((HERE / "checkpoints").glob("*.safetensors")):
        task, kind = file.stem.rsplit("-", 1)
        metric, found = tasks.load(task).METRIC, about(file)
        valid, test = (UNITS[metric].format(found[part][metric]) for part in ("valid", "test"))
        command = f"`run.py {task} --model {kind}`, seed {found['settings']['seed']}"
        minutes, epochs = found["curve"][-1]["minutes"], len(found["curve"])
        parts = (task, kind, valid, test, f"{found['parameters']:,}", epochs, f"{minutes:.0f}", command, found["date"])
        lines.append("| " + " | ".join(map(str, parts)) + " |")
    return lines


def main() -> None:
    table = "\n".join(rows()) + "\n"
    print(table, end="")
    if "--write" in sys.argv:
        text = README.read_text()
        before, _, rest = text.partition(BEGIN)
        README.write_text(before + BEGIN + table + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
