"""A committed checkpoint, quantized, and measured in the C++ runtime as its task measures the float model.

    python experiments/baselines/quantized.py imdb --model gru [--scheme int8] [--limit 1000]

Calibrates on validation rows alone. `--limit` evaluates that many rows of each part (of ptb: words), spread evenly over it
(of ptb: the first), and the float model on the same ones.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rindle
from experiments.baselines import run, tasks
from rindle.measure import cost

CALIBRATION = 64  # validation rows


def spread(rows, count: int | None):
    """`count` of them at even distances; all without a count."""
    if count is None or count >= len(rows):
        return rows
    chosen = np.linspace(0, len(rows) - 1, count).astype(int)
    return rows[chosen] if isinstance(rows, np.ndarray) else [rows[i] for i in chosen]


class Imdb:
    class Alone(nn.Module):
        """The model for one row without padding; that is what the runtime computes of a padded one with its length."""

        def __init__(self, model):
            super().__init__()
            self.embedding, self.rnn, self.output = model.embedding, model.rnn, model.output

        def forward(self, words):
            return self.output(self.rnn(self.embedding(words))[0].mean(1))

    def calibration(self, task):
        return [row[None] for row in spread(task.data.valid[0], CALIBRATION)]

    def cut(self, task, limit):
        parts = ("train", "valid", "test")
        few = {part: tuple(spread(rows, limit) for rows in getattr(task.data, part)) for part in parts}
        task.data = task.data._replace(**few)

    def __call__(self, model, words, lengths):
        return torch.from_numpy(model.run(words.numpy(), lengths.numpy()))[:, 0]


class Mboshi:
    Alone = staticmethod(lambda model: model)

    def calibration(self, task):
        return [task.data.features(one)[:, None] for one in spread(task.parts["valid"], CALIBRATION)]

    def cut(self, task, limit):
        task.parts |= {part: spread(task.parts[part], limit) for part in ("valid", "test")}

    def __call__(self, model, frames):
        batch_first = np.ascontiguousarray(frames.transpose(0, 1).numpy(), np.float32)
        return torch.from_numpy(model.run(batch_first)).transpose(0, 1)


class Ptb:
    Alone = staticmethod(lambda model: model)

    def calibration(self, task):
        module = tasks.load("ptb")
        return [module.columns(task.data.valid[:4_000], 40)]  # frames of 10,000 logits take memory

    def cut(self, task, limit):
        task.data = task.data._replace(valid=task.data.valid[:limit], test=task.data.test[:limit])

    def __call__(self, model, words, streams=None):
        """The state that is carried along is a stream for each column."""
        streams = streams or [model.stream() for _ in range(words.shape[1])]
        logits = [[stream.step(int(word)) for stream, word in zip(streams, row)] for row in words]
        return torch.from_numpy(np.array(logits)), streams


TASKS = {"imdb": Imdb(), "mboshi": Mboshi(), "ptb": Ptb()}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--model", default="lstm", help="kind of recurrent layer (default: lstm)")
    parser.add_argument("--scheme", default="int8")
    parser.add_argument("--limit", type=int, help="rows of each part (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    module, adapter = tasks.load(args.task), TASKS[args.task]
    exact = run.load(module.model(args.model), run.HERE / "checkpoints" / f"{args.task}-{args.model}.safetensors")
    task = module.Task()
    quantized = rindle.quantize(adapter.Alone(exact), args.scheme, adapter.calibration(task))
    adapter.cut(task, args.limit)

    def runtime(*arguments):
        return adapter(quantized, *arguments)

    runtime.parameters = exact.parameters  # the tasks ask it for its device
    report = {"bytes": len(quantized.data), "sizes": cost.sizes(quantized.artifact)}
    for part in ("valid", "test"):
        report[part] = {"float": task.evaluate(exact, part), args.scheme: task.evaluate(runtime, part)}
        print(json.dumps({part: report[part]}), flush=True)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
