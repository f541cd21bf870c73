"""Fixed point after training, at any width: LSTM and GRU on PTB and IMDb. README.md has the numbers.

    python experiments/rapuano-2022/run.py [TASK-CELL …] [--method …] [--quick] [--log results.json]

Rapuano, Pacini, Fanucci 2022 (Computational Intelligence and Neuroscience, article 9485933) quantize weights and activations of
one trained layer to fixed-point numbers of chosen widths. Here are their plain method, as reconstructed in `methods.py`, and ours, on
the same float checkpoints (experiments/baselines). Everything reported is of the converted integers in the C++ runtime. Calibration
sees validation data alone, and a method is chosen on validation; then each row is measured once on test.

Every finished row is kept in the log; a run that was killed goes on behind it.
"""

import argparse
import datetime
import json
import sys
import time
import warnings
from pathlib import Path

import methods
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rindle
from experiments.baselines import run as baselines
from experiments.baselines import tasks
from experiments.baselines.quantized import TASKS
from experiments.baselines.tasks.imdb import batch
from experiments.baselines.tasks.ptb import LENGTH, columns
from rindle.files import write_file
from rindle.measure import cost
from rindle.program.products import blocks_of_node, terms_of_node
from rindle.tasks import metrics

HERE = Path(__file__).resolve().parent
VALID_WORDS = 20_000  # of PTB's 73,760: enough to choose by; test is measured whole
COLUMNS = 10  # PTB is read in so many columns, as the float baseline is


def ptb_losses(step, text: np.ndarray) -> np.ndarray:
    """[blocks, 2]: nats and words of every block of LENGTH words of a column. step(words [T, B], state) -> logits, state."""
    read, state, rows = columns(text, COLUMNS), None, []
    for start in range(0, len(read) - 1, LENGTH):
        piece = read[start : start + LENGTH + 1]
        logits, state = step(piece[:-1], state)
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), piece[1:].flatten(), reduction="none")
        rows.append(torch.stack([nats.view(-1, COLUMNS).sum(0), torch.full((COLUMNS,), float(len(piece) - 1))], 1))
    return torch.cat(rows).double().numpy()


def imdb_losses(decide, data) -> np.ndarray:
    """[reviews, 2]: 1 where the decision is wrong, and 1."""
    order = np.argsort([len(review) for review in data[0]], kind="stable")
    wrong = np.empty(len(order))
    for start in range(0, len(order), 200):
        rows = order[start : start + 200]
        words, lengths, positive = batch(data, rows)
        wrong[rows] = ((decide(words, lengths) > 0) != (positive > 0.5)).numpy()
    return np.stack([wrong, np.ones_like(wrong)], 1)


LOSSES = {"ptb": ptb_losses, "imdb": imdb_losses}
STATISTICS = {
    "ptb": ("perplexity", lambda rows: float(np.exp(rows[:, 0].sum() / rows[:, 1].sum()))),
    "imdb": ("error %", lambda rows: 100 * metrics.rate_of(rows)),
}


class Subject:
    """A committed float checkpoint, its data, and the losses of the float model on them."""

    def __init__(self, name: str, quick: bool):
        self.name = name
        self.task_name, self.kind = name.split("-")
        self.adapter, module = TASKS[self.task_name], tasks.load(self.task_name)
        self.model = baselines.load(module.model(self.kind), baselines.HERE / "checkpoints" / f"{name}.safetensors")
        self.task = module.Task()
        self.calibration = self.adapter.calibration(self.task)
        if quick:
            self.adapter.cut(self.task, {"ptb": 360, "imdb": 40}[self.task_name])
        self.parts = {part: getattr(self.task.data, part) for part in ("valid", "test")}
        if self.task_name == "ptb":
            self.parts["valid"] = self.parts["valid"][:VALID_WORDS]
        self._float: dict[str, np.ndarray] = {}

    def losses(self, model, part: str) -> np.ndarray:
        return LOSSES[self.task_name](model, self.parts[part])

    @torch.no_grad()
    def float_losses(self, part: str) -> np.ndarray:
        if part not in self._float:
            self._float[part] = self.losses(self.model, part)
        return self._float[part]

    def quantized(self, scheme, overrides=None) -> rindle.Model:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rindle.RindleWarning)  # the padding word's row is zeros
            return rindle.quantize(self.adapter.Alone(self.model), scheme, self.calibration, overrides)

    def measure(self, model: rindle.Model, parts) -> dict:
        """Of each part the metric, and its 95 % interval against float, of a paired bootstrap over blocks or reviews."""
        name, statistic = STATISTICS[self.task_name]
        found = {}
        for part in parts:
            base, losses = self.float_losses(part), self.losses(lambda *given: self.adapter(model, *given), part)
            change = metrics.paired_bootstrap(base, losses, statistic, draws=2000)
            found[part] = {
                "metric": name,
                "float": statistic(base),
                "quantized": statistic(losses),
                "change": list(change),
                "items": len(base),
            }
        return found


def sizes(model: rindle.Model) -> dict:
    """Bytes of the whole file, and of the recurrent layer's weights with their share of 32-bit floats."""
    kinds = cost.sizes(model.artifact)
    bits = weights = 0
    for node in model.artifact.graph.recurrent:
        bits += sum(one.bits for one in terms_of_node(node))
        weights += sum(one.weights for one in blocks_of_node(node))
    return {
        "file": len(model.data),
        **kinds,
        "recurrent weights, bits each": bits / weights,
        "recurrent weights": weights,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", metavar="TASK-CELL", help=f"some of {', '.join(methods.ROWS)}")
    parser.add_argument("--method", action="append", choices=sorted(methods.METHODS), help="only this one (repeatable)")
    parser.add_argument("--part", action="append", choices=("valid", "test"), help="measure there (default: both)")
    parser.add_argument(
        "--quick", action="store_true", help="a few words or reviews, to see that it runs; no log by default"
    )
    parser.add_argument("--log", type=Path, help="default: results.json beside this file")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    unknown = set(options.subjects) - set(methods.ROWS)
    if unknown:
        parser.error(f"unknown {', '.join(sorted(unknown))}; there are {', '.join(methods.ROWS)}")
    log = options.log or (None if options.quick else HERE / "results.json")
    done = json.loads(log.read_text()) if log and log.exists() else []
    for name in options.subjects or methods.ROWS:
        subject = None
        for method, weights, activations in methods.ROWS[name]:
            parts = [
                part
                for part in options.part or ("valid", "test")
                if not any(
                    (row["subject"], row["method"], row["w"], row["a"]) == (name, method, weights, activations)
                    and part in row["parts"]
                    for row in done
                )
            ]
            if (options.method and method not in options.method) or not parts:
                continue
            subject = subject or Subject(name, options.quick)
            began = time.time()
            model = subject.quantized(*methods.METHODS[method](weights, activations))
            made = time.time()
            row = {"subject": name, "method": method, "w": weights, "a": activations}
            row["parts"] = subject.measure(model, parts)
            row |= {"sizes": sizes(model), "seconds": [made - began, time.time() - made]}
            row["date"] = datetime.date.today().isoformat()
            done.append(row)
            print(json.dumps(row), flush=True)
            if log:
                write_file(log, (json.dumps(done, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
