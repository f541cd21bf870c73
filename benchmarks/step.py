"""Sizes in a row: `rindle bench` on one random layer each, input as wide as the state.

    python benchmarks/step.py [--cell LSTM GRU] [--hidden 128 256 512 1024] [--scheme int8] [--json FILE]

One frame, batch 1, one pinned thread: ours dense, held and sparse, against torch float and torch dynamic int8 in their
fastest forms. Medians of slices in turns, µs; only the ratios travel between machines. The weights are random: this is
about speed alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import rindle
from rindle.measure.bench import DENSE, OURS, bench
from rindle.nn.back.rivals import DYNAMIC, FLOAT, Rivals

CHANGING = 0.2  # share of the elements that change where a step is sparse
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU}


class Layer(nn.Module):
    def __init__(self, kind: str, hidden: int):
        super().__init__()
        self.rnn = KINDS[kind](hidden, hidden, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


def walk(size: int, density: float, frames: int = 256) -> np.ndarray:
    """float32 [frames, size] of which the given share of elements changes from frame to frame."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((frames, size)).astype(np.float32)
    for t in range(1, frames):
        kept = generator.random(size) >= density
        x[t, kept] = x[t - 1, kept]
    return x


def measure(kind: str, hidden: int, scheme: str, slices: int, sequences: bool) -> dict:
    """The benches of one size: "dense" with torch beside it; "held": θ = 0, all changes; "sparse": few changes."""
    torch.manual_seed(0)
    layer = Layer(kind, hidden).eval()
    dense = rindle.quantize(layer, scheme, torch.randn(4, 50, hidden))
    held = dense.with_thresholds(dict.fromkeys(dense.thresholds, 0))
    sparse = thinned(dense, hidden)
    common = {"slices": slices, "sequences": False}
    return {
        "dense": bench(
            dense, Rivals(dense.artifact), walk(hidden, 1.0), "all of x changes", slices=slices, sequences=sequences
        ),
        "held": bench(held, None, walk(hidden, 1.0), "all of x changes", **common),
        "sparse": bench(sparse, None, walk(hidden, CHANGING), "20 % of x changes", **common),
    }


def thinned(dense: rindle.Model, hidden: int) -> rindle.Model:
    """With the θ of h at which, of the recurrent operations, the share nearest to 80 % is eliminated."""

    def at(theta: int) -> rindle.Model:
        return dense.with_thresholds({"rnn.l0/x": 0, "rnn.l0/h": theta})

    x = walk(hidden, CHANGING, 80)
    return at(min(range(0, 100, 2), key=lambda theta: abs(at(theta).measure(x).eliminated() - (1 - CHANGING))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--cell", nargs="+", default=["LSTM", "GRU"], choices=KINDS)
    parser.add_argument("--scheme", default="int8")
    parser.add_argument("--slices", type=int, default=41)
    parser.add_argument("--sequences", action="store_true", help="also 200 frames at once, batch 1 and 16: minutes")
    parser.add_argument("--json", type=Path, help="also write everything that was measured to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    table = Table("cell", "H", title=f"one frame, batch 1, {options.scheme}, µs")
    names = "float;dyn. int8;dense;× float;× dyn.;θ = 0;sparse;it asks for;bound by"
    for name in (names + ";T = 200;× float;B = 16;× float" if options.sequences else names).split(";"):
        table.add_column(name, justify="right")
    everything = []
    for kind in options.cell:
        for hidden in options.hidden:
            found = measure(kind, hidden, options.scheme, options.slices, options.sequences)
            everything.append({"cell": kind, "hidden": hidden} | {name: one.document() for name, one in found.items()})
            table.add_row(kind, str(hidden), *columns(found))
            print(f"{kind} {hidden} done", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))
    Console(width=150).print(table)
    Console(width=150).print(
        "float, dyn. int8: torch's fastest eager form. θ = 0: speed against dense with all inputs held while all of x changes; "
        "sparse: with 20 % of x changing and a θ of h that lets about as much of it change, when a step asks for that share of the weights. T = 200, B = 16: per frame of sequences of 200 frames, batch 1 and 16."
    )


def columns(found: dict) -> list[str]:
    """The numbers of a line; each ratio is of one run."""
    dense = found["dense"].step
    bound = found["sparse"].bound
    return [
        f"{dense.best(FLOAT).median:.2f}",
        f"{dense.best(DYNAMIC).median:.2f}",
        f"{dense.best(OURS).median:.2f}",
        f"{dense.speedup(FLOAT):.1f}",
        f"{dense.speedup(DYNAMIC):.1f}",
        f"{found['held'].step.speedup(DENSE):.2f} ×",
        f"{found['sparse'].step.speedup(DENSE):.2f} ×",
        f"{bound.bytes_asked / bound.bytes:.0%}",
        found["dense"].bound.by,
        *(
            f"{number:.2f}"
            for race in found["dense"].sequences
            for number in (race.best(OURS).median, race.speedup(FLOAT))
        ),
    ]


if __name__ == "__main__":
    main()
