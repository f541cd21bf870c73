"""``sru.SRU`` of the package sru (asappresearch/sru), whose parameters interleave gates and directions."""

from __future__ import annotations

import torch
from torch import nn

from ....errors import RindleError
from ...modules import Recurrent, filled, known_cell


def sru(module: nn.Module) -> nn.Module:
    """A layer each becomes a Recurrent of the fitting variant. Refused: tanh, layer norm, a module for the product, no highway.

    A bidirectional layer as wide as its output has each half of x on the highway of one direction: its cell has x twice.
    """
    return _SRU(module.input_to_hidden, [_layer(cell) for cell in module.rnn_lst], module.nn_rnn_compatible_return)


def _layer(one: nn.Module) -> nn.Module:
    for there, what in (
        (one.activation_type, "use_tanh"),
        (one.layer_norm is not None, "layer_norm"),
        (one.custom_m is not None, "custom_m"),
        (not one.has_skip_term, "has_skip_term=False"),
    ):
        if there:
            raise RindleError(f"it has {what}, which is not supported")
    directions, hidden = 1 + one.bidirectional, one.hidden_size
    # [columns, directions * hidden * k]: u, wf, wr and the highway's of each unit stand together
    weight = one.weight.detach().view(len(one.weight), directions, hidden, one.num_matrices).permute(1, 3, 2, 0)
    biases, peeps = (value.detach().view(2, directions, hidden) for value in (one.bias, one.weight_c))
    alpha = one.scale_x if one.rescale else torch.ones_like(one.scale_x)
    highway = one.num_matrices == 4
    beside = not highway and one.bidirectional
    projected = one.weight_proj is not None and not beside
    rescale = not highway and bool(alpha != 1)
    parameters = []
    for k in range(directions):
        found = {
            "weight_p" if projected else "weight_x": torch.cat(list(weight[k])),
            "bias": torch.cat([biases[0, k], biases[1, k]]),
            "v_f": peeps[0, k],
            "v_r": peeps[1, k],
        }
        if projected:
            found["weight_x"] = one.weight_proj.detach().T
        if rescale:
            found["alpha"] = alpha.expand(hidden)
        parameters.append(found)
    parts = {"beside": beside, "highway": highway, "projection": projected, "rescale": rescale}
    cell = known_cell("_".join(["sru", *(name for name, there in parts.items() if there)]))
    size = one.projection_size if projected else 0
    width = one.projection_size if beside and one.weight_proj is not None else one.input_size
    made = filled(Recurrent(cell, width, hidden, bidirectional=one.bidirectional, proj_size=size), *parameters)
    return Beside(made, one.weight_proj.detach().T if one.weight_proj is not None else None) if beside else made


class Beside(nn.Module):
    """A bidirectional layer of ``sru_beside`` or ``sru_beside_rescale``: its products read x, or P x with ``projection`` P, and
    the highway of each direction its own half of x. forward as Recurrent's.
    """

    def __init__(self, rnn: Recurrent, projection: torch.Tensor | None = None):
        super().__init__()
        self.rnn, self.hidden_size, self.project = rnn, rnn.hidden_size, None
        if projection is not None:
            self.project = nn.Linear(*reversed(projection.shape), bias=False, dtype=projection.dtype)
            self.project.load_state_dict({"weight": projection})

    def forward(self, x, states=None):
        return self.rnn((x if self.project is None else self.project(x), x), states)


class _SRU(nn.Module):
    """forward as the package's: x [T, B, I] -> y [T, B, O], c [layers, B, O]; mask_pad is refused."""

    def __init__(self, input_to_hidden, layers: list[nn.Module], compatible: bool):
        super().__init__()
        self.input_to_hidden, self.layers, self.compatible = input_to_hidden, nn.ModuleList(layers), compatible

    def forward(self, x, c0=None, mask_pad=None):
        if mask_pad is not None:
            raise RindleError("mask_pad is not supported; give rows of unequal length by their lengths")
        x = x if self.input_to_hidden is None else self.input_to_hidden(x)
        finals = []
        for k, layer in enumerate(self.layers):
            before = None if c0 is None else c0[k].unflatten(-1, (-1, layer.hidden_size)).transpose(0, 1)
            x, (c,) = layer(x, before)
            finals.append(c)
        c = torch.stack(finals)  # [layers, directions, B, H]
        if self.compatible:
            return x, c.flatten(0, 1)
        return x, c.transpose(1, 2).flatten(2) if c.shape[1] > 1 else c.squeeze(1)
