"""quantize_dynamic beside torch.ao's on 40 random networks that look trained: how far each is from float, and what each costs.

    python experiments/qat/dynamic.py            40 models, then times; README.md has the numbers
    python experiments/qat/dynamic.py --quick    8 short ones

A model: nn.LSTM or nn.GRU of one layer or two, one direction or both, 16 to 192 units; weights with tails (Student's t of 5 degrees),
rows of unequal size, hidden weights of 0.3 to 1.5 / sqrt(H); biases of the forget gates (of a GRU, of the update gates) from -6 to 6,
evenly over the models; features of unequal size that move slowly; 20 to 4,000 frames. Every third LSTM has a projection, which torch.ao lacks.
Times are medians of turns in one process and one thread.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings

import numpy as np
import torch
from torch import nn

import rindle

SEED = 20261130


def draw(index: int, of: int, quick: bool = False) -> tuple[nn.Module, torch.Tensor]:
    """The model of this index, in evaluation mode, and its input [B, T, I]."""
    rng = np.random.default_rng([SEED, index])
    kind, projected = (nn.LSTM, index % 6 == 4) if index % 2 == 0 else (nn.GRU, False)
    units = int(2 ** rng.uniform(4, 5 if quick else 7.6))
    frames = int(math.exp(rng.uniform(math.log(20), math.log(200 if quick else 4000))))
    features, rows = int(rng.integers(3, 41)), int(rng.integers(1, 9)) if frames < 1000 else 2
    options = {"proj_size": max(2, units // 3)} if projected else {}
    torch.manual_seed(index)
    layers, both = int(rng.integers(1, 3)), bool(rng.integers(0, 2))
    module = kind(features, units, layers, batch_first=True, bidirectional=both, **options).eval()
    gate = -6 + 12 * (index // 2) / max(of // 2 - 1, 1)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.startswith("bias"):
                value.copy_(torch.from_numpy(rng.normal(size=value.shape) * 0.3))
                if name.startswith("bias_ih"):
                    value[units : 2 * units] += gate
                continue
            gain = rng.uniform(0.3, 1.5) if name.startswith("weight_hh") else rng.uniform(0.5, 2)
            tails = rng.standard_t(5, value.shape) * math.sqrt(3 / 5)
            size = np.exp(rng.normal(size=(len(value), 1)) * 0.3) * gain / math.sqrt(value.shape[1])
            value.copy_(torch.from_numpy(tails * size))
    noise = torch.from_numpy(rng.normal(size=(rows, frames, features))).float()
    x = torch.zeros_like(noise)
    for t in range(frames):
        x[:, t] = 0.9 * x[:, t - 1] + 0.44 * noise[:, t] if t else noise[:, t]
    return module, x * torch.from_numpy(np.exp(rng.normal(size=features) * 0.7)).float()


def theirs(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(module), {type(module)}, dtype=torch.qint8)


def snr(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """dB, of the signal's variance to the error's power."""
    wanted, found = wanted.double(), found.double()
    return float(10 * torch.log10(wanted.var() / (wanted - found).square().mean()))


def accuracy(count: int, quick: bool = False) -> list[dict]:
    found = []
    for index in range(count):
        module, x = draw(index, count, quick)
        with torch.no_grad():
            wanted = module(x)[0]
            row = {"index": index, "kind": type(module).__name__, "units": module.hidden_size, "frames": x.shape[1]}
            row["rindle"] = snr(wanted, rindle.quantize_dynamic(module)(x)[0])
            row["torch.ao"] = math.nan if module.proj_size else snr(wanted, theirs(module)(x)[0])
        found.append(row)
    return found


def times(turns: int = 9) -> list[dict]:
    """µs a frame of all rows together: rindle, torch.ao and float in turns."""
    found = []
    for kind in (nn.LSTM, nn.GRU):
        for units in (64, 128, 256, 512):
            torch.manual_seed(0)
            module = kind(40, units, batch_first=True).eval()
            made = {"rindle": rindle.quantize_dynamic(module), "torch.ao": theirs(module), "float": module}
            for rows in (1, 16, 64):
                x, spent = torch.randn(rows, 20, 40), {name: [] for name in made}
                with torch.no_grad():
                    for turn in range(turns + 1):
                        for name, one in made.items():
                            begin = time.process_time()
                            one(x)
                            if turn:
                                spent[name].append((time.process_time() - begin) / x.shape[1] * 1e6)
                medians = {name: float(np.median(values)) for name, values in spent.items()}
                found.append({"kind": kind.__name__, "units": units, "rows": rows, **medians})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    results = accuracy(8 if quick else 40, quick)
    print("| | cell | units | frames | rindle, dB | torch.ao, dB |\n|---|---|---|---|---|---|")
    for row in results:
        print(
            "| {index} | {kind} | {units} | {frames} | {rindle:.1f} | {torch.ao:.1f} |".replace(
                "torch.ao", "ao"
            ).format(**row, ao=row["torch.ao"])
        )
    both = [row["rindle"] - row["torch.ao"] for row in results if not math.isnan(row["torch.ao"])]
    print(f"\nrindle - torch.ao over {len(both)}: least {min(both):+.1f} dB, median {np.median(both):+.1f} dB")
    if not quick:
        print("\n| cell | units | rows | rindle, µs of CPU a frame | torch.ao | float |\n|---|---|---|---|---|---|")
        for row in times():
            print(
                "| {kind} | {units} | {rows} | {rindle:.1f} | {ao:.1f} | {float:.1f} |".format(
                    **row, ao=row["torch.ao"]
                )
            )


if __name__ == "__main__":
    main()
