"""Small models of every operation that a capture knows around a recurrence: a forward and its modules, by name."""

import torch
import torch.nn.functional as F
from support import FEATURES
from torch import nn


class Model(nn.Module):
    """Modules by name, and a forward that uses them."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def mid(module, channels: int = 6):
    """Channels first, as convolutions want them, and back; x: [B, T, FEATURES]."""
    return lambda m, x: getattr(m, module)(m.first(x).transpose(1, 2)).transpose(1, 2)


def trained(norm):
    """A batch norm with statistics of its own."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator))
        norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
        norm.weight.copy_(torch.randn(norm.num_features, generator=generator))
        norm.bias.copy_(torch.randn(norm.num_features, generator=generator))
    return norm


def first(size: int = 6):
    return nn.Linear(FEATURES, size)


def image(m, x):
    """[B, 1, T, 10]"""
    return m.first(x)[:, None]


def flat(y):
    """[B, C, T, F] -> [B, T, C·F]"""
    return y.transpose(1, 2).flatten(2)


CONV1D = {
    "a convolution over time": nn.Conv1d(6, 4, 3),
    "of one frame": nn.Conv1d(6, 4, 1),
    "of the same length": nn.Conv1d(6, 4, 3, padding="same"),
    "of the same length, even": nn.Conv1d(6, 4, 4, padding="same"),
    "padded": nn.Conv1d(6, 4, 3, padding=2, bias=False),
    "strided": nn.Conv1d(6, 4, 3, stride=2, padding=1),
    "one frame of three": nn.Conv1d(6, 4, 1, stride=3),
    "dilated": nn.Conv1d(6, 4, 2, dilation=3),
    "grouped": nn.Conv1d(6, 4, 3, groups=2),
    "depthwise": nn.Conv1d(6, 6, 3, groups=6, padding=1),
    "depthwise, of one frame": nn.Conv1d(6, 12, 1, groups=6),
    "with weight norm": nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 4, 2)),
}
CONV2D = {
    "a convolution over time and features": nn.Conv2d(1, 3, 3),
    "2d, padded": nn.Conv2d(1, 3, (3, 5), padding=(1, 2)),
    "2d, the same": nn.Conv2d(1, 3, (2, 4), padding="same"),
    "2d, strided": nn.Conv2d(1, 3, (3, 3), stride=(2, 3), padding=(1, 1)),
    "2d, dilated": nn.Conv2d(1, 3, (2, 2), dilation=(3, 2)),
    "2d, features alone": nn.Conv2d(1, 3, (1, 3), padding=(0, 1), bias=False),
    "2d, time alone": nn.Conv2d(1, 3, (3, 1)),
    "2d, all features": nn.Conv2d(1, 3, (2, 10)),
}

CASES = {f"Conv1d {name}": Model(mid("conv"), first=first(), conv=conv) for name, conv in CONV1D.items()}
CASES |= {
    f"Conv2d {name}": Model(lambda m, x: flat(m.conv(image(m, x))), first=first(10), conv=conv)
    for name, conv in CONV2D.items()
}
CASES |= {
    "Conv2d, two in a row, one grouped": Model(
        lambda m, x: flat(m.b(m.a(image(m, x)))),
        first=first(10),
        a=nn.Conv2d(1, 4, 3, padding=1),
        b=nn.Conv2d(4, 6, (2, 3), groups=2),
    ),
    "Conv2d, depthwise": Model(
        lambda m, x: flat(m.b(m.a(image(m, x)))),
        first=first(10),
        a=nn.Conv2d(1, 4, 1),
        b=nn.Conv2d(4, 4, 3, groups=4, padding=1),
    ),
    "Conv2d, frequency before time": Model(
        lambda m, x: m.conv(m.first(x).transpose(1, 2)[:, None]).permute(0, 3, 2, 1).flatten(2),
        first=first(10),
        conv=nn.Conv2d(1, 3, (5, 2), stride=(2, 1), padding=(2, 0)),
    ),
    "Conv2d of an image per frame": Model(
        lambda m, x: m.conv(m.first(x).view(-1, 1, 3, 4)).view(x.shape[0], -1, 24),
        first=first(12),
        conv=nn.Conv2d(1, 2, (2, 2), padding=(1, 0)),
    ),
    "Conv1d over the features of a frame": Model(
        lambda m, x: m.conv(m.first(x).reshape(-1, 2, 5)).reshape(x.shape[0], x.shape[1], -1),
        first=first(10),
        conv=nn.Conv1d(2, 3, 3, padding=1),
    ),
    "Conv3d": Model(
        lambda m, x: m.conv(m.first(x).view(x.shape[0], 1, -1, 3, 4)).transpose(1, 2).flatten(2),
        first=first(12),
        conv=nn.Conv3d(1, 2, (2, 2, 3), padding=(0, 1, 1)),
    ),
    "Conv2d of a vector": Model(
        lambda m, x: m.conv(m.first(x)[:, -1].view(-1, 1, 3, 4)).flatten(1), first=first(12), conv=nn.Conv2d(1, 2, 2)
    ),
    "causal by padding in front": Model(
        lambda m, x: m.conv(F.pad(m.first(x).transpose(1, 2), (4, 0))).transpose(1, 2),
        first=first(),
        conv=nn.Conv1d(6, 4, 3, dilation=2),
    ),
    "causal by cutting the end": Model(
        lambda m, x: m.conv(m.first(x).transpose(1, 2))[:, :, :-4].transpose(1, 2),
        first=first(),
        conv=nn.Conv1d(6, 4, 3, dilation=2, padding=4),
    ),
    "causal by cutting to the length": Model(
        lambda m, x: torch.relu(m.norm(m.conv(m.first(x).transpose(1, 2))))[..., : x.shape[1]].transpose(1, 2),
        first=first(),
        conv=nn.Conv1d(6, 4, 3, padding=2),
        norm=trained(nn.BatchNorm1d(4)),
    ),
    "cut by more than was padded": Model(
        lambda m, x: m.conv(m.first(x).transpose(1, 2))[:, :, :-2].transpose(1, 2),
        first=first(),
        conv=nn.Conv1d(6, 4, 3, padding=1),
    ),
    "cut by negative padding": Model(
        lambda m, x: F.pad(m.conv(m.first(x).transpose(1, 2)), (0, -2)).transpose(1, 2),
        first=first(),
        conv=nn.Conv1d(6, 4, 3, padding=2),
    ),
    "causal in two dimensions": Model(
        lambda m, x: flat(m.conv(F.pad(image(m, x), (1, 1, 2, 0)))),
        first=first(10),
        conv=nn.Conv2d(1, 3, 3, stride=(1, 2)),
    ),
    "frames cut off": Model(lambda m, x: m.first(x)[:, 2:-1], first=first()),
    "every other frame": Model(lambda m, x: m.first(x)[:, ::2], first=first()),
    "the last frame, kept": Model(lambda m, x: m.first(x)[:, -1:].squeeze(1), first=first()),
    "batch norm after a Linear": Model(
        lambda m, x: m.norm(m.first(x).transpose(1, 2)).transpose(1, 2), first=first(), norm=trained(nn.BatchNorm1d(6))
    ),
    "batch norm of a vector": Model(
        lambda m, x: m.norm(m.first(x)[:, -1]), first=first(), norm=trained(nn.BatchNorm1d(6))
    ),
    "batch norm of the input": Model(
        lambda m, x: m.first(m.norm(x.transpose(1, 2)).transpose(1, 2)),
        first=first(),
        norm=trained(nn.BatchNorm1d(FEATURES)),
    ),
    "batch norm in two dimensions": Model(
        lambda m, x: flat(m.norm(m.conv(image(m, x)))),
        first=first(10),
        conv=nn.Conv2d(1, 3, 3),
        norm=trained(nn.BatchNorm2d(3)),
    ),
    "batch norm of what others read": Model(
        lambda m, x: (lambda y: m.norm(y.transpose(1, 2)).transpose(1, 2) + y)(m.first(x)),
        first=first(),
        norm=trained(nn.BatchNorm1d(6)),
    ),
    "a Linear over each channel": Model(
        lambda m, x: m.fc(m.first(x).view(x.shape[0], -1, 3, 4)).flatten(2), first=first(12), fc=nn.Linear(4, 5)
    ),
    "a matrix by hand": Model(
        lambda m, x: m.first(x) @ m.w,
        first=first(),
        w=nn.Parameter(torch.randn(6, 3, generator=torch.Generator().manual_seed(1))),
    ),
    "rows and frames in one": Model(
        lambda m, x: m.first(x.reshape(-1, FEATURES)).relu().view(x.shape[0], x.shape[1], -1), first=first()
    ),
}
ACTIVATIONS = {
    "relu": torch.relu, "relu6": nn.ReLU6(), "hardtanh": nn.Hardtanh(-0.3, 0.4), "clamp": lambda y: y.clamp(max=0.2),
    "clamp below": lambda y: y.clamp_min(-0.1), "leaky relu": nn.LeakyReLU(0.2), "prelu": nn.PReLU(), "prelu of each": lambda y: F.prelu(y.transpose(1, 2), torch.linspace(-0.5, 0.7, 6)).transpose(1, 2),
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "hardsigmoid": nn.Hardsigmoid(), "hardswish": nn.Hardswish(), "silu": nn.SiLU(),
    "gelu": nn.GELU(), "gelu by tanh": nn.GELU("tanh"), "abs": torch.abs, "glu": nn.GLU(), "square": lambda y: y**2, "square by name": torch.square,
    "negative": lambda y: -y, "relu in place": lambda y: y.clone().relu_() + 1, "in place, read again": lambda y: (lambda z: (z.relu_(), z * 2)[1])(y + 0.1),
    "times a number": lambda y: 0.3 * y / 2, "plus a number": lambda y: 1 - y - 0.25, "plus a constant": lambda y: y + torch.linspace(0, 1, 6),
    "times a constant": lambda y: y * torch.linspace(-1, 1, 6), "a constant minus": lambda y: torch.linspace(0, 1, 6) - y,
    "softmax": lambda y: y.softmax(-1), "log-softmax": lambda y: y.log_softmax(2), "max over features": lambda y: y.amax(-1, keepdim=True),
    "mean over features": lambda y: y.mean(2, keepdim=True), "sum over features": lambda y: y.view(*y.shape[:2], 2, 3).sum(2),
    "detached": lambda y: y.detach().contiguous().float().clone(), "layer norm": nn.LayerNorm(6),
}  # fmt: skip
CASES |= {
    f"pointwise {name}": Model(lambda m, x: m.f(m.first(x)), first=first(), f=f) for name, f in ACTIVATIONS.items()
}
LAYOUTS = {
    "transposed features": lambda y: y.view(*y.shape[:2], 2, 3).transpose(2, 3).flatten(2),
    "permuted twice": lambda y: y.view(*y.shape[:2], 2, 3).permute(3, 0, 1, 2).permute(1, 2, 0, 3).reshape(*y.shape[:2], 6),
    "moved": lambda y: y.view(*y.shape[:2], 2, 3).movedim(3, 2).flatten(2),
    "moved, two": lambda y: y.view(*y.shape[:2], 1, 2, 3).movedim((4, 2), (2, 3)).flatten(2),
    "unflattened": lambda y: y.unflatten(2, (3, 2)).sum(3),
    "chunks": lambda y: (lambda a, b: torch.cat([b, a * b], -1))(*y.chunk(2, -1)),
    "split": lambda y: y.split([1, 5], -1)[1],
    "split evenly": lambda y: torch.cat(y.split(2, -1)[::-1], -1),
    "unbound": lambda y: y.view(*y.shape[:2], 2, 3).unbind(2)[1],
    "sliced": lambda y: y[..., 1:5:2],
    "one feature": lambda y: y[:, :, 2:3] + y[:, :, 4].unsqueeze(-1),
    "narrowed": lambda y: y.narrow(2, 1, 3),
    "chosen": lambda y: y[:, :, [3, 0, 3]],
    "selected": lambda y: y.index_select(2, torch.tensor([5, 1])),
    "flipped": lambda y: y.flip(-1),
    "rolled": lambda y: y.roll(2, -1),
    "expanded": lambda y: y[..., None].expand(-1, -1, -1, 2).flatten(2) * 0.5,
    "repeated": lambda y: y.repeat(1, 1, 2) + 0.0,
    "stacked": lambda y: torch.stack([y, y.tanh()], 2).flatten(2),
    "joined channels": lambda y: torch.cat([y.view(*y.shape[:2], 2, 3), y.tanh().view(*y.shape[:2], 2, 3)], 3).flatten(2),
    "squeezed": lambda y: y[:, None, :, None].squeeze((1, 3)).unsqueeze(-1).squeeze(-1),
    "over features": lambda y: y.view(*y.shape[:2], 2, 3).softmax(2).flatten(2),
    "added out of order": lambda y: y + y.flip(-1),
    "a gate of one feature": lambda y: y * y[..., :1].sigmoid(),
    "maximum": lambda y: torch.maximum(y, y.flip(-1)),
    "minimum": lambda y: torch.minimum(y, y.flip(-1)),
    "difference": lambda y: torch.sub(y, y.tanh(), alpha=2),
    "product": lambda y: y * y.sigmoid(),
    "constants out of order": lambda y: torch.prelu(y.flip(-1) * torch.linspace(0, 1, 6) - y, torch.tensor([0.3])),
    "the same twice": lambda y: y + y,
}  # fmt: skip
CASES |= {f"layout {name}": Model(lambda m, x: m.f(m.first(x)), first=first(), f=f) for name, f in LAYOUTS.items()}
POOLS = {
    "max over features": lambda y: F.max_pool2d(y, (1, 2)),
    "max over both": lambda y: F.max_pool2d(y, (2, 3), stride=(1, 2)),
    "max, dilated": lambda y: F.max_pool2d(y, (2, 2), stride=1, dilation=(2, 3)),
    "average over features": lambda y: F.avg_pool2d(y, (1, 2)),
    "average over both": lambda y: F.avg_pool2d(y, 2, stride=1, padding=1),
    "average of all features": lambda y: y.mean(3, keepdim=True),
}
CASES |= {
    f"pooled {name}": Model(
        lambda m, x: flat(m.f(m.conv(image(m, x)))), first=first(10), conv=nn.Conv2d(1, 3, 3, padding=1), f=f
    )
    for name, f in POOLS.items()
}
CASES["pooled max over time"] = Model(
    lambda m, x: F.max_pool1d(m.first(x).transpose(1, 2), 2).transpose(1, 2), first=first()
)
CASES["pooled average over time"] = Model(
    lambda m, x: F.avg_pool1d(m.first(x).transpose(1, 2), 3, 1).transpose(1, 2), first=first()
)
OVER_TIME = {
    "mean": lambda y: y.mean(1), "mean, kept": lambda y: y.mean(1, keepdim=True).squeeze(1), "max": lambda y: y.amax(1), "max, its values": lambda y: y.max(1).values,
    "mean of all but channels": lambda y: y.view(*y.shape[:2], 2, 3).mean((1, 3)), "max of all but channels": lambda y: y.view(*y.shape[:2], 2, 3).amax(dim=(1, 2)),
    "pooled average": lambda y: F.adaptive_avg_pool1d(y.transpose(1, 2), 1).flatten(1), "pooled maximum": lambda y: F.adaptive_max_pool1d(y.transpose(1, 2), 1).squeeze(-1),
    "pooled maximum of images": lambda y: F.adaptive_max_pool2d(y.view(*y.shape[:2], 2, 3).permute(0, 2, 1, 3), (1, None)).flatten(1),
    "pooled average of images": lambda y: F.adaptive_avg_pool2d(y.view(*y.shape[:2], 2, 3).permute(0, 2, 1, 3), 1).flatten(1),
    "last of a softmax": lambda y: y.softmax(-1)[:, -1], "several": lambda y: torch.cat([y.mean(1), y.amax(1), y[:, -1]], 1),
    "attention": lambda y: (torch.softmax(y[..., :1], 1) * y).sum(1), "attention by bmm": lambda y: torch.bmm(y[..., :1].softmax(1).transpose(1, 2), y).squeeze(1),
    "attention by matmul": lambda y: (y.transpose(1, 2) @ y[..., 2].softmax(-1).unsqueeze(-1)).squeeze(-1), "attention by einsum": lambda y: torch.einsum("bt,btf->bf", y[..., 0].softmax(1), y),
    "attention, kept": lambda y: (y * y[..., 3].softmax(1).unsqueeze(2)).sum(dim=1, keepdim=True).flatten(1), "attention of floats": lambda y: (y[..., :1].softmax(1) * y.softmax(-1)).sum(1),
}  # fmt: skip
CASES |= {f"over time {name}": Model(lambda m, x: m.f(m.first(x)), first=first(), f=f) for name, f in OVER_TIME.items()}
HEADS = {
    "softmax of a Linear": lambda m, y: m.fc(y).softmax(-1), "a Linear of a layer norm": lambda m, y: m.fc(F.layer_norm(y, (6,))), "a Linear of a softmax out of order": lambda m, y: m.fc(y.softmax(-1).flip(-1)),
    "arithmetic of floats": lambda m, y: m.fc(F.gelu(F.layer_norm(y, (6,)) * 0.5 + 1).tanh() - y), "a product of floats": lambda m, y: y.softmax(-1) * torch.relu(y) + y.sigmoid().softmax(-1),
    "activations of floats": lambda m, y: torch.sigmoid(F.gelu(y.softmax(-1).relu(), approximate="tanh")), "a mean of floats' features": lambda m, y: y.softmax(-1).mean(-1, keepdim=True) - 1.0,
}  # fmt: skip
CASES |= {
    f"floats {name}": Model(lambda m, x, f=f: f(m, m.first(x)), first=first(), fc=nn.Linear(6, 3))
    for name, f in HEADS.items()
}
# a clip of the model's own input, whose format is chosen last
CASES |= {
    "of the input, relu": Model(lambda m, x: m.first(torch.relu(x)), first=first()),
    "of the input, leaky relu": Model(lambda m, x: m.first(F.leaky_relu(x)) + 1, first=first()),
    "of the input, a part clamped": Model(
        lambda m, x: m.first(x)[..., :2] + x[..., :2].clamp(-0.5, 0.5), first=first()
    ),
    "of the input, maximum": Model(lambda m, x: torch.maximum(m.first(x)[..., :2], x[..., 1:3]), first=first()),
    "of the input, a window": Model(lambda m, x: m.first(F.pad(x, (0, 0, 1, 0))[:, :-1].relu()), first=first()),
    "of the input, a gate": Model(lambda m, x: m.first(x) * x[..., :1], first=first()),
}
STREAMED = (
    "causal by padding in front", "causal by cutting the end", "causal by cutting to the length", "cut by negative padding",
    "causal in two dimensions", "Conv1d of one frame", "Conv2d 2d, features alone", "Conv2d of an image per frame", "of the input, a window",
)  # fmt: skip
