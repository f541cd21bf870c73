"""Bidirectional Li-GRU and SRU, which torch does not have.

Li-GRU and SRU compute the products with the input for all frames at once; only what depends on the frame before is in
the loop over time, for both directions together. A bidirectional layer's output is the forward direction's, then the
backward one's, as in torch.
"""

import torch
from torch import nn


class LiGRU(nn.Module):
    """One bidirectional light GRU (Ravanelli et al. 2018, arXiv 1803.10225): no reset gate, ReLU, batch norm.

        z = σ(BN(W_z x) + U_z h)    a = ReLU(BN(W_a x) + U_a h)    h ← z h + (1 - z) a

    The norm is over the frames of a batch, so a batch must not be padded; it has the only bias. Under torchrun each process
    has the statistics of its own share, so that two processes do not train what one does. In training a mask on a,
    drawn once per sequence, drops units (scaled by 1 / (1 - dropout), so that nothing is left to do in use). The
    directions have weights of their own; in the authors' pytorch-kaldi they share them.
    """

    def __init__(self, inputs: int, units: int, dropout: float = 0.2):
        super().__init__()
        self.input = nn.Linear(inputs, 4 * units, bias=False)  # rows: forward z, a; backward z, a
        self.norm = nn.BatchNorm1d(4 * units, momentum=0.05)
        self.recurrent = nn.Parameter(torch.empty(2, 2 * units, units))  # direction; rows z, a
        for block in self.recurrent.data.view(4, units, units):
            nn.init.orthogonal_(block)
        self.units, self.dropout = units, dropout

    def forward(self, x):
        """x (time, batch, inputs) → (time, batch, 2 · units) and the last h, (2, batch, units)."""
        time, batch, _ = x.shape
        # (time, direction, batch, z and a): what each direction reads at its own step.
        read = self.norm(self.input(x).flatten(0, 1)).view(time, batch, 2, 2 * self.units).transpose(1, 2)
        read = both_ways(read)
        mask = nn.functional.dropout(x.new_ones(2, batch, self.units), self.dropout, self.training)
        weights = self.recurrent.mT
        h, outputs = x.new_zeros(2, batch, self.units), []
        for now in read.unbind(0):
            z, a = torch.baddbmm(now, h, weights).chunk(2, -1)
            h = torch.lerp(a.relu() * mask, h, z.sigmoid())
            outputs.append(h)
        return both_ways(torch.stack(outputs)).transpose(1, 2).flatten(2), h


class SRU(nn.Module):
    """One bidirectional simple recurrent unit behind a projection to its width (Lei et al. 2018, arXiv 1709.02755v5).

        p = P x    f = σ(W_f p + v_f c + b_f)    c' = f c + (1 - f) (W_u p)
                   r = σ(W_r p + v_r c + b_r)    h = r c' + (1 - r) p         c ← c'

    The recurrence is element-wise. P brings x to the width that the highway (1 - r) p needs and is shared by the
    directions; the highway's rescaling is left out, since P can take it over.
    """

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.project = nn.Linear(inputs, units)
        self.input = nn.Linear(units, 6 * units, bias=False)  # rows: forward u, f, r; backward u, f, r
        self.peep = nn.Parameter(torch.empty(2, 2, units).uniform_(-1, 1) / units**0.5)  # of f, r; direction
        self.bias = nn.Parameter(torch.zeros(2, 2, units))  # of f, r; direction
        self.units = units

    def forward(self, x):
        """x (time, batch, inputs) → (time, batch, 2 · units) and the last c, (2, batch, units)."""
        p = self.project(x)
        read = self.input(p).unflatten(-1, (2, 3, self.units)).transpose(1, 2)  # time, direction, batch, gate, units
        u, f, r = both_ways(read).unbind(3)
        f, r = (gate + bias[:, None] for gate, bias in zip((f, r), self.bias))
        c = x.new_zeros(2, x.shape[1], self.units)
        (v_f, v_r), cells = self.peep[:, :, None], [c]
        for u_now, f_now in zip(u.unbind(0), f.unbind(0)):
            cells.append(torch.lerp(u_now, cells[-1], torch.addcmul(f_now, v_f, cells[-1]).sigmoid()))
        cells = torch.stack(cells)
        r = (r + v_r * cells[:-1]).sigmoid()
        h = torch.lerp(both_ways(p[:, None].expand(-1, 2, -1, -1)), cells[1:], r)
        return both_ways(h).transpose(1, 2).flatten(2), cells[-1]


class Stack(nn.Module):
    """Layers one on the other, with dropout between them."""

    def __init__(self, *layers: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.layers, self.dropout = nn.ModuleList(layers), nn.Dropout(dropout)

    def forward(self, x):
        lasts = []
        for i, layer in enumerate(self.layers):
            x, last = layer(self.dropout(x) if i else x)
            lasts.append(last)
        return x, torch.cat(lasts)


def both_ways(frames):
    """(time, direction, …): the second direction's frames in reverse order, or back again."""
    return torch.stack([frames[:, 0], frames[:, 1].flip(0)], 1)
