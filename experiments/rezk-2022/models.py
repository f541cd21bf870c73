"""The paper's models, and smaller ones of the same structure, as configurations of one network.

`network("lstm")` is 4 layers of 550 units in both directions, `network("lstm", "small")` 4 of 96, and `network("lstm",
"stream")` 2 of 550 in one direction, in torch's layout. A `Network` trains; `deploy()` gives the same function as a module of
`rindle.Recurrent` layers (in one direction: `nn.LSTM`, `nn.GRU`) with the batch norm folded, which `rindle.quantize` takes; it
takes a `Network`, too.
"""

import copy
import math
from dataclasses import dataclass, replace

import recurrences
import torch
from torch import nn
from torch.nn import functional as F

import rindle
from rindle.nn.capture.fold import norm_of_product
from rindle.nn.capture.foreign.sru import Beside
from rindle.nn.modules import filled, known_cell


@dataclass(frozen=True)
class Configuration:
    cell: str  # a key of rindle.CELLS, or "sru"
    layers: int
    units: int  # per direction
    inputs: int = 40  # features of a frame
    outputs: int = 28  # classes of a frame
    bidirectional: bool = True  # the directions share their weights, except in SRU
    norm: bool = True  # batch norm on W x, which has no bias then
    projection: int = 0  # of SRU: the width that a layer but the first reads
    dropout: float = 0.2  # of the candidate, the same in all frames; of SRU of a layer's input and of its c - x
    between: float = 0.0  # dropout of what a layer gives to the next one and to the output


def _sru(layers: int, units: int, projection: int, **sizes) -> Configuration:
    return Configuration("sru", layers, units, norm=False, projection=projection, dropout=0.1, **sizes)


SENONES = {"inputs": 23, "outputs": 1936}
# Rezk et al. 2022 and pytorch-kaldi's recipes for TIMIT. The paper's size formula of SRU has 1904 outputs.
PAPER = {
    "lstm": Configuration("lstm", 4, 550, **SENONES),
    "gru": Configuration("gru_reset_before", 5, 550, **SENONES),
    "ligru": Configuration("ligru", 5, 550, **SENONES),
    "sru": _sru(6, 550, 256, inputs=23, outputs=1904),
}
CONFIGURATIONS = {
    "paper": PAPER,
    # The same depth and structure; the inputs and outputs are Mboshi's.
    "small": {
        **{kind: replace(PAPER[kind], units=96, inputs=40, outputs=28) for kind in ("lstm", "gru", "ligru")},
        "sru": _sru(6, 96, 48),
    },
    # Not the paper's: for the runtime, frame by frame.
    "stream": {
        kind: Configuration(kind, 2, 550, bidirectional=False, norm=False, dropout=0.0, between=0.2)
        for kind in ("lstm", "gru")
    },
}
ALPHA = math.sqrt(1 + 2 * math.exp(-1))  # of SRU's highway, Lei et al. 2018 (10), with its first bias of r, -1


class Gated(nn.Module):
    """A layer of LSTM, GRU or Li-GRU. W x is computed for all frames at once, and once for both directions."""

    def __init__(self, about: Configuration, inputs: int):
        super().__init__()
        self.loop = getattr(recurrences, about.cell)
        units, gates = about.units, {"lstm": 4, "ligru": 2}.get(about.cell, 3)
        self.input = nn.Linear(inputs, gates * units, bias=not about.norm)
        self.norm = nn.BatchNorm1d(gates * units, momentum=0.05) if about.norm else None
        self.recurrent = nn.Parameter(torch.empty(gates * units, units))
        for block in self.recurrent.data.split(units):
            nn.init.orthogonal_(block)
        if about.cell == "gru":
            self.recurrent_bias = nn.Parameter(torch.zeros(gates * units))
        self.units, self.dropout, self.both = units, about.dropout, about.bidirectional

    def forward(self, x, lengths=None):
        """x [T, B, inputs] -> h [T, B, units x directions]."""
        read = wide(self.input(x))
        if self.norm is not None:
            read = self.norm(read.flatten(0, 1)).view(read.shape)
        batch = x.shape[1]
        if self.both:
            read = torch.cat([read, reverse(read, lengths)], 1)
        if hasattr(self, "recurrent_bias"):
            h = self.loop(read, self.recurrent, self.recurrent_bias)
        else:
            drops = self.training and self.dropout > 0
            mask = F.dropout(read.new_ones(read.shape[1], self.units), self.dropout) if drops else None
            h = self.loop(read, self.recurrent, mask)
        return torch.cat([h[:, :batch], reverse(h[:, batch:], lengths)], -1) if self.both else h

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """W [gates x units, inputs] and bias of what the gates read, the norm in them."""
        weight, bias = self.input.weight.detach(), self.input.bias
        return (weight, bias.detach()) if self.norm is None else norm_of_product(weight, None, self.norm)


class Sru(nn.Module):
    """A layer of SRU (Lei et al. 2018, arXiv 1709.02755v5; the package sru): u, f, r from p = P x, and with the highway's
    matrix, `skip`, where x is not as wide as the output. P is the directions' common one, the rest is each one's own.
    """

    def __init__(self, about: Configuration, inputs: int):
        super().__init__()
        both = 2 * about.units  # features of the forward direction, then of the backward one
        gates, width = (3, about.projection or inputs) if inputs == both else (4, inputs)
        self.project = nn.Linear(inputs, width, bias=False) if width != inputs else None
        self.input = nn.Linear(width, gates * both, bias=False)  # rows: u, f, r, skip; of both directions
        self.peep = nn.Parameter(torch.empty(2, both))  # of f, r
        self.bias = nn.Parameter(torch.cat([torch.zeros(1, both), torch.full((1, both), -1.0)]))  # of f, r
        for matrix in (self.project, self.input) if self.project else (self.input,):
            nn.init.uniform_(matrix.weight, -((3 / matrix.in_features) ** 0.5), (3 / matrix.in_features) ** 0.5)
        nn.init.uniform_(self.peep, -((1.5 / about.units) ** 0.5), (1.5 / about.units) ** 0.5)
        self.input.weight.data[both : 3 * both] *= 0.5**0.5  # of f, r
        self.units, self.gates, self.dropout = about.units, gates, about.dropout

    def forward(self, x, lengths=None):
        """x [T, B, inputs] -> h [T, B, 2 x units]."""
        kept = x * self._mask(x[0])
        read = wide(self.input(kept if self.project is None else self.project(kept)))
        u, f, r, *skip = (
            both_ways(read.unflatten(-1, (2 * self.gates, self.units)), lengths).flatten(2).chunk(self.gates, -1)
        )
        skip = skip[0] if skip else ALPHA * both_ways(wide(x).unflatten(-1, (2, self.units)), lengths).flatten(2)
        c = recurrences.sru(u, f + self.bias[0], self.peep[0])
        before = torch.cat([torch.zeros_like(c[:1]), c[:-1]])
        r = torch.addcmul(r + self.bias[1], self.peep[1], before).sigmoid()
        h = skip + (c - skip) * self._mask(c[0]) * r
        return both_ways(h.unflatten(-1, (2, self.units)), lengths).flatten(2)

    def _mask(self, like):
        return F.dropout(torch.ones_like(like), self.dropout, self.training)


class Network(nn.Module):
    """`about.layers` layers and a Linear: the scores of every frame's class."""

    def __init__(self, about: Configuration):
        super().__init__()
        self.about, made = about, Sru if about.cell == "sru" else Gated
        width = about.units * (1 + about.bidirectional)
        self.layers = nn.ModuleList(made(about, width if k else about.inputs) for k in range(about.layers))
        self.output = nn.Linear(width, about.outputs)
        self.between = nn.Dropout(about.between)

    def forward(self, frames, lengths=None):
        """frames float32 [T, B, inputs] -> scores [T, B, outputs]. lengths: int64 [B], the frames of each row where they
        differ (only in evaluation: the batch norm would count the padding); past them the scores mean nothing.
        """
        if lengths is not None and self.training and self.about.norm:
            raise rindle.RindleError("lengths are for evaluation; in training give rows of one length to a batch norm")
        for layer in self.layers:
            frames = self.between(layer(frames, lengths))
        return self.output(frames)


def wide(x):
    """What a product under autocast gives, in float32."""
    return x.float() if x.dtype.itemsize < 4 else x


def reverse(x, lengths=None):
    """x [T, B, …] from each row's last frame to its first; what stands behind a row's end stays there."""
    if lengths is None:
        return x.flip(0)
    time = torch.arange(len(x))[:, None]
    order = torch.where(time < lengths, lengths - 1 - time, time)
    return x[order, torch.arange(x.shape[1])]


def both_ways(x, lengths=None):
    """x [T, B, 2 n, H], alternately of the forward and the backward direction: the latter's in reverse order, or back again."""
    return torch.stack([x[:, :, ::2], reverse(x[:, :, 1::2], lengths)], 3).flatten(2, 3)


def network(kind: str, size: str = "paper", **changes) -> Network:
    """An untrained one. kind: "lstm", "gru", "ligru", "sru". changes: of the configuration's fields."""
    table = CONFIGURATIONS.get(size, {})
    if kind not in table:
        known = ", ".join(f"{name} {one}" for name, kinds in CONFIGURATIONS.items() for one in kinds)
        raise rindle.RindleError(f"there is no model {size} {kind}; there are {known}")
    return Network(replace(table[kind], **changes))


class Deployed(nn.Module):
    """What a Network computes in evaluation, in layers that Rindle knows; its first tensor names its shape as the Network's."""

    def __init__(self, layers: list[nn.Module], output: nn.Linear):
        super().__init__()
        self.layers, self.output = nn.ModuleList(layers), output

    def forward(self, frames):
        """frames float32 [T, B, inputs] -> scores [T, B, outputs]."""
        for layer in self.layers:
            frames, _ = layer(frames)
        return self.output(frames)


def deploy(network: Network) -> Deployed:
    """Layers of each model: `layers.0.l0`, `layers.1.l0`, … (`layers.0.l0_reverse` of the other direction), of SRU
    `layers.1.rnn.l0` behind `layers.1.project`; of the streams one module, `layers.0.l0` and `layers.0.l1`.
    """
    about = network.about
    if not about.bidirectional:
        layers = [_in_torchs_layout(network)]
    else:
        layers = [_sru_layer(one) if isinstance(one, Sru) else _gated_layer(about.cell, one) for one in network.layers]
    return Deployed(layers, copy.deepcopy(network.output)).eval()


def _gated_layer(cell: str, layer: Gated) -> nn.Module:
    weight, bias = layer.folded()
    values = {"weight_ih": weight, "weight_hh": layer.recurrent.detach(), "bias_ih": bias, "bias_hh": 0 * bias}
    if cell == "ligru":
        values = {"weight_x": weight, "weight_h": layer.recurrent.detach(), "bias": bias}
    sizes = weight.shape[1], layer.units
    return filled(rindle.Recurrent(rindle.CELLS[cell], *sizes, bidirectional=layer.both, shared=layer.both), values)


def _sru_layer(layer: Sru) -> nn.Module:
    weight, peep, bias = (
        value.detach().unflatten(-1 if value.shape[0] == 2 else 0, shape)
        for value, shape in (
            (layer.input.weight, (layer.gates, 2, layer.units)),
            (layer.peep, (2, layer.units)),
            (layer.bias, (2, layer.units)),
        )
    )
    parameters = []
    for k in range(2):
        found = {
            "weight_x": weight[:, k].flatten(0, 1),
            "bias": bias[:, k].flatten(),
            "v_f": peep[0, k],
            "v_r": peep[1, k],
        }
        if layer.gates == 3:
            found["alpha"] = torch.full((layer.units,), ALPHA, dtype=peep.dtype)
        parameters.append(found)
    cell = known_cell("sru_beside_rescale" if layer.gates == 3 else "sru_highway")
    made = filled(rindle.Recurrent(cell, weight.shape[-1], layer.units, bidirectional=True), *parameters)
    if layer.gates == 4:
        return made
    return Beside(made, None if layer.project is None else layer.project.weight.detach())


def _in_torchs_layout(network: Network) -> nn.Module:
    about, state = network.about, {}
    for k, layer in enumerate(network.layers):
        weight, bias = layer.folded()
        own = {"weight_ih": weight, "weight_hh": layer.recurrent, "bias_ih": bias}
        own["bias_hh"] = getattr(layer, "recurrent_bias", torch.zeros_like(bias))
        state |= {f"{name}_l{k}": value.detach() for name, value in own.items()}
    made = {"lstm": nn.LSTM, "gru": nn.GRU}[about.cell](about.inputs, about.units, about.layers)
    made.to(bias.dtype).load_state_dict(state)
    return made


rindle.nn.register(Network, deploy)
