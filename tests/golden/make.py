"""Writes the golden files of the present format version: `python tests/golden/make.py`, once for each version.

They stay for ever: every later release must load them and give the same integers. Small models with random weights, one
per cell, with a format of its own for one gate, and held inputs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from support import TorchModel, sequences

import rindle
from rindle.artifact import VERSION

OVERRIDES = {
    "lstm": {"weight.g.h": "int5 mmse", "code.g.h": "fixed16 max"},
    "gru": {"weight.nh.h": "fixed12 max", "weight.*.x": "int4 mmse"},
    "sru": {"rnn.l1/weight.u.x": "int2 mmse"},
}

if __name__ == "__main__":
    for name, cell in rindle.CELLS.items():
        torch.manual_seed(0)
        head = {"lstm": "last", "gru": "mean"}.get(name, "all")
        model = rindle.quantize(TorchModel(name, head).eval(), "int8", sequences(), OVERRIDES.get(name))
        held = {path: k for k, path in enumerate(model.thresholds)}
        rindle.save(model.with_thresholds(held), Path(__file__).parent / f"v{VERSION}-{cell.name}.rindle")
