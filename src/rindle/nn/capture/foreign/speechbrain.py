"""``speechbrain.nnet.RNN.LiGRU``: gates a, z in one matrix, batch norm on W x, weights shared by the directions."""

from __future__ import annotations

import torch
from torch import nn

from ....cells import ligru
from ....errors import RindleError
from ....program.program import FLOAT_ONLY
from ...modules import Recurrent, filled
from ..fold import norm_of_product


def speechbrain_ligru(module: nn.Module) -> nn.Module:
    """A layer each becomes a Recurrent; the batch norm is folded. Refused: layer norm, other activations than ReLU."""
    return _LiGRU([_layer(one) for one in module.rnn])


def _layer(one: nn.Module) -> Recurrent:
    if not isinstance(one.norm, nn.BatchNorm1d):
        raise RindleError(FLOAT_ONLY["layer_norm"])
    if not isinstance(one.act, nn.ReLU):
        raise RindleError(f"its activation is {one.act}; only ReLU is supported")
    weight, bias = norm_of_product(one.w.weight.detach(), None, one.norm)
    turned = [torch.cat(value.chunk(2)[::-1]) for value in (weight, one.u.weight.detach(), bias)]  # a, z -> z, a
    made = Recurrent(ligru, one.input_size, one.hidden_size, 1, True, one.bidirectional, shared=one.bidirectional)
    return filled(made, dict(zip(("weight_x", "weight_h", "bias"), turned)))


class _LiGRU(nn.Module):
    """forward as SpeechBrain's: x [B, T, F] -> y [B, T, O], each layer's last frame."""

    def __init__(self, layers: list[Recurrent]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x, hx=None):
        x = x.flatten(2) if x.ndim == 4 else x
        lasts, hidden = [], self.layers[0].hidden_size
        for k, layer in enumerate(self.layers):
            directions = 1 + layer.bidirectional
            before = None if hx is None else hx.reshape(len(self.layers), directions, -1, hidden)[k]
            x, _ = layer(x, before)
            lasts.append(x[:, -1, :])
        h = torch.stack(lasts, dim=1)
        return x, h.reshape(h.shape[1] * 2, h.shape[0], hidden) if self.layers[0].bidirectional else h.transpose(0, 1)
