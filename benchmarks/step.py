"""One frame, batch 1, one thread: the runtime against torch float at its best, in turns in one process.

    python benchmarks/step.py [--hidden 64 128 256 512] [--cell GRU LSTM]

Input as wide as the state. Times are medians of slices in microseconds; only the ratios travel between machines.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import rindle


class Layer(nn.Module):
    def __init__(self, kind: str, hidden: int):
        super().__init__()
        self.rnn = getattr(nn, kind)(hidden, hidden, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


def torch_forms(model: Layer, x: torch.Tensor) -> dict:
    """The three eager float forms of one step. oneDNN repacks the weights at every call of nn.LSTM with T = 1."""
    rnn, hidden = model.rnn, model.rnn.hidden_size
    cell = getattr(nn, f"{type(rnn).__name__}Cell")(hidden, hidden)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in rnn.state_dict().items()})
    zero = torch.zeros(1, hidden)
    state = (zero, zero) if isinstance(rnn, nn.LSTM) else zero
    deep = (zero[None], zero[None]) if isinstance(rnn, nn.LSTM) else zero[None]

    def without_onednn():
        with torch.backends.mkldnn.flags(enabled=False):
            rnn(x[None, None], deep)

    return {
        "cell": lambda: cell(x[None], state),
        "whole": lambda: rnn(x[None, None], deep),
        "whole, no oneDNN": without_onednn,
    }


def walk(stream, size: int, density: float, frames: int = 256):
    """Steps through inputs of which the given share changes from frame to frame; None: all of them, at random."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((frames, size)).astype(np.float32)
    for t in range(1, frames):
        kept = generator.random(size) >= density
        x[t, kept] = x[t - 1, kept]
    out, t = np.empty(size, np.float32), 0

    def step():
        nonlocal t
        stream.step(x[t], out)
        t = (t + 1) % frames

    return step


def medians(steps: dict, slices: int = 21, budget: float = 2e-3) -> dict[str, float]:
    """Microseconds per call, every slice measuring all of them in turns."""
    calls = {}
    for name, step in steps.items():
        start = time.perf_counter()
        for _ in range(10):
            step()
        calls[name] = max(3, int(budget / ((time.perf_counter() - start) / 10)))
    times = {name: [] for name in steps}
    for _ in range(slices):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                step()
            times[name].append((time.perf_counter() - start) / calls[name] * 1e6)
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--cell", nargs="+", default=["GRU", "LSTM"])
    parser.add_argument("--scheme", default="int8")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    table = Table(
        "cell",
        "H",
        "torch float",
        "of it best",
        "dense",
        "× torch",
        "θ = 0, all change",
        "10 % of x change",
        title=options.scheme,
    )
    for kind in options.cell:
        for hidden in options.hidden:
            torch.manual_seed(0)
            model = Layer(kind, hidden).eval()
            dense = rindle.quantize(model, options.scheme, torch.randn(4, 50, hidden))
            held = dense.with_thresholds(dict.fromkeys(dense.thresholds, 0))
            quiet = dense.with_thresholds({"rnn.l0/x": 0, "rnn.l0/h": 2})
            forms = torch_forms(model, torch.randn(hidden))
            steps = forms | {
                "dense": walk(dense.stream(), hidden, 1.0),
                "held": walk(held.stream(), hidden, 1.0),
                "quiet": walk(quiet.stream(), hidden, 0.1),
            }
            with torch.inference_mode():
                times = medians(steps)
            best = min(forms, key=times.get)
            ratio = times[best] / times["dense"]
            shown = [times[best], times["dense"], times["held"], times["quiet"]]
            a, b, c, d = (f"{value:.1f}" for value in shown)
            table.add_row(kind, str(hidden), a, best, b, f"{ratio:.1f}", c, d)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
