"""Every kind of recurrent module, for tests that hold for all of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import rindle
from rindle import CELLS

WIDTH, H = 5, 8  # features of x, of h

MODULES = {
    "LSTM": lambda: nn.LSTM(WIDTH, H, batch_first=True),
    "LSTM, deep, both directions": lambda: nn.LSTM(WIDTH, H, 2, bidirectional=True),
    "LSTM, projection": lambda: nn.LSTM(WIDTH, H, 2, proj_size=3, bidirectional=True, batch_first=True),
    "GRU": lambda: nn.GRU(WIDTH, H, 2, batch_first=True, bias=False),
    "GRU, both directions": lambda: nn.GRU(WIDTH, H, bidirectional=True, batch_first=True),
    "RNN, tanh": lambda: nn.RNN(WIDTH, H, batch_first=True),
    "RNN, relu": lambda: nn.RNN(WIDTH, H, nonlinearity="relu"),
    "LSTMCell": lambda: nn.LSTMCell(WIDTH, H),
    "GRUCell": lambda: nn.GRUCell(WIDTH, H),
    "RNNCell": lambda: nn.RNNCell(WIDTH, H, bias=False),
    "Recurrent, sru": lambda: rindle.SRU(WIDTH, WIDTH, 2),
    "Recurrent, shared": lambda: rindle.Recurrent(
        CELLS["gru_reset_before"], WIDTH, H, 2, batch_first=True, bidirectional=True, shared=True
    ),
    "Recurrent, beside": lambda: rindle.Recurrent(CELLS["sru_beside"], WIDTH, H, batch_first=True),
    "Recurrent, beside, both directions": lambda: rindle.Recurrent(
        CELLS["sru_beside_rescale"], WIDTH, H, bidirectional=True
    ),
}
SEVERAL = tuple(name for name in MODULES if "beside" in name)  # inputs
SEQUENCES = {name: make for name, make in MODULES.items() if not name.endswith("Cell") and name not in SEVERAL}
UNBOUNDED = ("RNN, relu", "Recurrent, sru", *SEVERAL)  # no bound on h


def made(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODULES[name]().eval()


def inputs(module: nn.Module, rows: int = 4, time: int = 9, seed: int = 3):
    """[B, T, I] or [T, B, I] as the module wants it; of a cell, [B, I]; of several inputs, a tuple."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(module, nn.RNNCellBase):
        return torch.randn(rows, WIDTH, generator=generator)
    widths = [WIDTH]
    if isinstance(module, rindle.Recurrent) and len(module.cell.program.inputs) > 1:
        widths.append(H * (1 + module.bidirectional))
    found = [torch.randn(rows, time, width, generator=generator) for width in widths]
    found = [x if module.batch_first else x.transpose(0, 1).contiguous() for x in found]
    return tuple(found) if len(found) > 1 else found[0]


def packed(module: nn.Module, x: torch.Tensor, lengths):
    return pack_padded_sequence(x, torch.as_tensor(lengths), batch_first=module.batch_first, enforce_sorted=False)


def row(module: nn.Module, x: torch.Tensor, k: int, length: int) -> torch.Tensor:
    """One row alone, without what stands past its end."""
    return x[k : k + 1, :length] if module.batch_first else x[:length, k : k + 1]


def flat(result) -> list[torch.Tensor]:
    """The tensors of what a forward returned."""
    if isinstance(result, torch.Tensor):
        return [result]
    if hasattr(result, "data") and hasattr(result, "batch_sizes"):
        return [result.data]
    return [tensor for part in result for tensor in flat(part)]


def assert_equal(one, other) -> None:
    for a, b in zip(flat(one), flat(other), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def furthest(one, other) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(flat(one), flat(other), strict=True))
