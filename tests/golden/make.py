"""Writes the golden files that are missing: `python tests/golden/make.py`, when a format version or a kind of node is new.

They stay for ever: every later release must load them and give the same integers. Small models with random weights, one
per cell, with a format of its own for one gate, and held inputs; one for each kind of graph,
and one of several models. Beside each that streams, NAME.state is the state saved after SAVED frames of the golden vector's first row.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from hostile_version3 import good3
from support import CELLS, BothDirections, MixedCells, TorchModel, Words, sequences, words

import rindle

OVERRIDES = {
    "lstm": {"weight.g.h": "int5 mmse", "code.g.h": "fixed16 max"},
    "gru": {"weight.nh.h": "fixed12 max", "weight.*.x": "int4 mmse"},
    "sru": {"rnn.l1/weight.u.x": "int2 mmse"},
    "words": {"rnn.l0*/code.*.x": "int6 mmse"},
}
SAVED = 5
HEADS = {"lstm": "last", "gru": "mean"}
GRAPHS = {
    "bidirectional": (BothDirections, sequences()),
    "mixed": (MixedCells, sequences()),
    "words": (Words, words()),
}

if __name__ == "__main__":
    models = {name: (lambda name=name: TorchModel(name, HEADS.get(name, "all")), sequences()) for name in CELLS}
    for name, (make, calibration) in (models | GRAPHS).items():
        if list(Path(__file__).parent.glob(f"v*-{name}.rindle")):
            continue
        torch.manual_seed(0)
        model = rindle.quantize(make().eval(), "int8", calibration, OVERRIDES.get(name))
        held = {path: k for k, path in enumerate(model.thresholds)}
        rindle.save(model.with_thresholds(held), Path(__file__).parent / f"v{model.artifact.version}-{name}.rindle")
    every_kind = Path(__file__).parent / "v3-every_kind.rindle"
    if not every_kind.exists():
        every_kind.write_bytes(good3())
    several = Path(__file__).parent / "v4-parts.rindle"
    if not several.exists():
        files = {"encoder": "v2-bidirectional", "predictor": "v2-words", "joiner": "v3-every_kind"}
        models = {name: rindle.load(Path(__file__).parent / f"{file}.rindle") for name, file in files.items()}
        rindle.save(models, several)
    for path in sorted(Path(__file__).parent.glob("*.rindle")):
        model, saved = rindle.load(path), path.with_suffix(".state")
        if not (saved.exists() or model.parts or model.artifact.graph.whole_sequence):
            stream = model.stream()
            for frame in model.artifact.golden.inputs[0, :SAVED]:
                stream.step_codes(frame)
            saved.write_bytes(stream.save())
