"""The example of docs/hardware.md: the committed FSDD LSTM in shifts only, 8-bit weights, 6-bit codes, 24-bit accumulators.

    python experiments/baselines/hardware.py docs/digits-lstm.rindle

Calibrates on every twelfth training recording; nothing is chosen on other parts. Prints accuracy on valid and test.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rindle
from experiments.baselines import run, tasks
from rindle.file.dataset import dataset
from rindle.measure.evaluate import score

TABLES = {"table.*": "linear 64 range(6)"}


class Alone(nn.Module):
    """The model for one row without padding; that is what the runtime computes of a padded one with its length."""

    def __init__(self, model):
        super().__init__()
        self.rnn, self.output = model.rnn, model.output

    def forward(self, frames):
        return self.output(self.rnn(frames)[0].mean(1))


def main(output: str) -> None:
    torch.set_num_threads(1)
    module = tasks.load("fsdd")
    exact = run.load(module.model("lstm"), run.HERE / "checkpoints" / "fsdd-lstm.safetensors")
    recordings = module.Task().parts

    def part(name: str, step: int = 1):
        frames, lengths, digits = module.batch([module.example(one) for one in recordings[name][::step]])
        return dataset(frames.numpy().astype(np.float32), lengths.numpy(), digits.numpy(), name)

    model = rindle.quantize(Alone(exact).eval(), "fixed(8,6)", part("train", 12), TABLES, accumulator=24)
    for name in ("valid", "test"):
        data = part(name)
        print(name, score(model.run(data.x, data.lengths), data))
    rindle.save(model, output)


if __name__ == "__main__":
    main(sys.argv[1])
