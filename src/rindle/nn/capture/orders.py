"""Parameters as ONNX and Keras order them, in the order of our cells' layouts, for ``filled``."""

from __future__ import annotations

import torch

from ...errors import RindleError
from ...program.tracer import Cell

# cell -> where each of its gates stands among the other's: ONNX has LSTM i, o, f, c and GRU z, r, h; Keras i, f, c, o and
# z, r, h; ours are i, f, g, o (without f where it is coupled) and r, z, n
ONNX = {
    "lstm": (0, 2, 3, 1),
    "lstm_peephole": (0, 2, 3, 1),
    "lstm_cifg": (0, 3, 1),
    "lstm_peephole_cifg": (0, 3, 1),
    "gru": (1, 0, 2),
    "gru_reset_before": (1, 0, 2),
    "rnn_tanh": (0,),
    "rnn_relu": (0,),
}
KERAS = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "gru_reset_before": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}


def onnx_parameters(cell: Cell, w, r, b=None, p=None) -> list[dict[str, torch.Tensor]]:
    """Of ONNX's operators LSTM, GRU and RNN: a dict per direction, by the names in the cell's layout.

    w: [directions, gates x H, I]; r: [directions, gates x H, H]; b: [directions, 2 x gates x H], None for zeros; p:
    [directions, 3 x H], peepholes i, o, f. cell: ``lstm`` (its ``_peephole``, ``_cifg`` for input_forget=1), ``gru`` for
    linear_before_reset=1, ``gru_reset_before`` for 0, ``rnn_tanh`` or ``rnn_relu``. Raises RindleError for other cells.
    """
    order = _order(cell, ONNX, "ONNX")
    w, r, b, p = (None if value is None else torch.as_tensor(value) for value in (w, r, b, p))
    if ("weight_peephole" in cell.layout) != (p is not None):
        raise RindleError(f"the cell {cell.name!r} and P do not fit: peepholes need both")
    gates = w.shape[1] // r.shape[2]
    found = []
    for k in range(len(w)):
        bias = w.new_zeros(2, w.shape[1]) if b is None else b[k].view(2, -1)
        stacked = {"weight_ih": w[k], "weight_hh": r[k], "bias_ih": bias[0], "bias_hh": bias[1]}
        one = {name: _reordered(value, gates, order) for name, value in stacked.items()}
        if p is not None:
            one["weight_peephole"] = p[k] if len(order) == 4 else p[k, : 2 * r.shape[2]]  # a coupled f has none
        found.append(one)
    return found


def keras_parameters(cell: Cell, kernel, recurrent_kernel, bias=None) -> dict[str, torch.Tensor]:
    """Of Keras' layers LSTM, GRU and SimpleRNN, as ``get_weights`` gives them: by the names in the cell's layout.

    kernel: [I, gates x H]; recurrent_kernel: [H, gates x H]; bias: [gates x H], of ``gru`` (reset_after=True)
    [2, gates x H], None for zeros. ``gru_reset_before`` is reset_after=False. Raises RindleError for other cells.
    """
    order = _order(cell, KERAS, "Keras")
    w, r = torch.as_tensor(kernel).T, torch.as_tensor(recurrent_kernel).T
    gates, both = w.shape[0] // r.shape[1], w.new_zeros(2, w.shape[0])
    if bias is not None:
        bias = torch.as_tensor(bias)
        both = torch.stack([bias, torch.zeros_like(bias)]) if bias.ndim == 1 else bias
    stacked = {"weight_ih": w, "weight_hh": r, "bias_ih": both[0], "bias_hh": both[1]}
    return {name: _reordered(value, gates, order) for name, value in stacked.items()}


def _order(cell: Cell, orders: dict, whose: str) -> tuple[int, ...]:
    if cell.name not in orders:
        raise RindleError(f"{whose} has no layer that is the cell {cell.name!r}; it has {', '.join(orders)}")
    return orders[cell.name]


def _reordered(stacked: torch.Tensor, gates: int, order: tuple[int, ...]) -> torch.Tensor:
    """stacked: [gates x H, …]."""
    return torch.cat([stacked.chunk(gates)[k] for k in order])
