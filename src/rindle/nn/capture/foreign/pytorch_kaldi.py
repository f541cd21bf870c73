"""``neural_networks.liGRU`` of pytorch-kaldi: a matrix and a batch norm per gate, weights shared by the directions."""

from __future__ import annotations

import torch
from torch import nn

from ....cells import ligru
from ....errors import RindleError
from ....program.program import FLOAT_ONLY
from ...modules import Recurrent, filled
from ..fold import norm_of_product, product_of_norm


def kaldi_ligru(module: nn.Module) -> nn.Module:
    """A layer each becomes a Recurrent. Batch norms are folded, of the input, too; and the factor 1 − p of the recurrent
    dropout at test: (1 − p) ReLU(a) = ReLU((1 − p) a). Refused: layer norm, other activations than ReLU, training mode.
    """
    if not module.test_flag:
        raise RindleError("it is in training mode, whose dropout is random; make it with to_do other than 'train'")
    if module.ligru_use_laynorm_inp or any(module.ligru_use_laynorm):
        raise RindleError(FLOAT_ONLY["layer_norm"])
    layers = [_layer(module, k) for k in range(module.N_ligru_lay)]
    return _LiGRU(layers)


def _layer(module: nn.Module, k: int) -> Recurrent:
    if not isinstance(module.act[k], nn.ReLU):
        raise RindleError(f"its activation is {module.act[k]}; only ReLU is supported")
    keep = 1 - module.ligru_drop[k]
    found: dict[str, list] = {"weight_x": [], "weight_h": [], "bias": []}
    for w, u, norm, factor in (
        (module.wz[k], module.uz[k], module.bn_wz[k], 1.0),
        (module.wh[k], module.uh[k], module.bn_wh[k], keep),
    ):
        weight, bias = w.weight.detach(), None if w.bias is None else w.bias.detach()
        if k == 0 and module.ligru_use_batchnorm_inp:
            weight, bias = product_of_norm(weight, bias, module.bn0)
        if module.ligru_use_batchnorm[k]:
            weight, bias = norm_of_product(weight, bias, norm)
        bias = torch.zeros_like(weight[:, 0]) if bias is None else bias
        for name, value in zip(found, (weight, u.weight.detach(), bias)):
            found[name].append(factor * value)
    both = bool(module.bidir)
    made = Recurrent(ligru, module.wz[k].in_features, module.ligru_lay[k], bidirectional=both, shared=both)
    return filled(made, {name: torch.cat(parts) for name, parts in found.items()})


class _LiGRU(nn.Module):
    """forward as pytorch-kaldi's: x [T, B, F] -> y [T, B, O]."""

    def __init__(self, layers: list[Recurrent]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x, _ = layer(x)
        return x
