"""What of a recurrent layer depends on the frame before: loops over time with a backward pass derived by hand.

Each function takes what the gates read from below for all frames at once, `read` float32 [T, R, gates x H], the recurrent
matrix [gates x H, H], rows ordered as in the cell of that name, and a dropout mask [R, H] or None, which is the same in all
frames and stands on the candidate (pytorch-kaldi; here scaled in training, so that nothing is left to do in use). It returns
h, float32 [T, R, H], from a zero state. R: rows of the batch, both directions' where these share the weights.

Autograd would record a dozen operations a frame. Here everything that needs no later gradient is computed for all frames at
once after the forward loop: the factors K of a gate's gradient, d gate = K · d state. The backward loop then has one product
and a few element-wise operations a frame, and the gradient of the matrix is one product after it. Under
autocast the products are of its type; everything else stays float32.

d is a gradient; primed values are those of the frame before.
"""

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def lstm(read, weight, mask=None):
    """Gates i, f, g, o: c = f c' + i g m, h = o tanh(c)."""
    return _apply(_Lstm, read, weight, mask)


def gru_reset_before(read, weight, mask=None):
    """Gates r, z, n: n = tanh(read_n + U_n (r h')), h = z h' + (1 - z) n m."""
    return _apply(_GruBefore, read, weight, mask)


def ligru(read, weight, mask=None):
    """Gates z, a: h = z h' + (1 - z) ReLU(a) m."""
    return _apply(_LiGru, read, weight, mask)


def gru(read, weight, bias):
    """Gates r, z, n, as torch: n = tanh(read_n + r (U_n h' + bias_n)), h = z h' + (1 - z) n. bias: [3 H]."""
    return _apply(_Gru, read, weight, bias)


def sru(u, f, v):
    """The cell state of SRU, [T, R, H]: c = u + (c' - u) σ(f + v c'). u, f: [T, R, H]; v: [H]."""
    return _apply(_Sru, u, f, v)


def _apply(function, read, *others):
    fast = torch.get_autocast_dtype(read.device.type) if torch.is_autocast_enabled(read.device.type) else None
    with torch.autocast(read.device.type, enabled=False):
        arguments = [value if value is None else value if fast is None else value.float() for value in (read, *others)]
        return function.apply(*arguments, fast)


def _times(matrix, fast):
    """(x, plus, out) -> out = plus + x matrix, by a product of the type `fast`."""
    if fast is None:
        return lambda x, plus, out: torch.addmm(plus, x, matrix, out=out)
    matrix = matrix.to(fast).contiguous()
    return lambda x, plus, out: torch.add(plus, x.to(fast) @ matrix, out=out)


def _matrix_gradient(gates, inputs, fast):
    """Of a matrix that every frame multiplies: Σ_t gates_t^T inputs_t."""
    gates, inputs = gates.flatten(0, 1), inputs.flatten(0, 1)
    if fast is not None:
        gates, inputs = gates.to(fast), inputs.to(fast)
    return (gates.T @ inputs).to(torch.float32 if fast is not None else gates.dtype)


def _slope(s):
    """Of σ, from its value."""
    return s * (1 - s)


class _Lstm(Function):
    @staticmethod
    def forward(ctx, read, weight, mask, fast):
        time, rows, width = read.shape
        units = width // 4
        gates, tanh_c = torch.empty_like(read), read.new_empty(time, rows, units)
        h, c = (read.new_zeros(time + 1, rows, units) for _ in range(2))
        now, candidate = read.new_empty(rows, units), read.new_ones(()) if mask is None else mask
        times, recurrent = _times(weight.T, fast), zip(*(part.unbind() for part in (read, gates, tanh_c)))
        for t, (below, gate, tanh_now) in enumerate(recurrent):
            times(h[t], below, gate)
            i, f, g, o = gate.chunk(4, -1)
            gate[:, : 2 * units].sigmoid_(), g.tanh_(), o.sigmoid_()
            torch.mul(i, g, out=now)
            if mask is not None:
                now.mul_(mask)
            torch.addcmul(now, f, c[t], out=c[t + 1])
            torch.tanh(c[t + 1], out=tanh_now)
            torch.mul(o, tanh_now, out=h[t + 1])
        ctx.save_for_backward(weight, candidate, gates, tanh_c, h, c)
        ctx.fast = fast
        return h[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        weight, mask, gates, tanh_c, h, c = ctx.saved_tensors
        i, f, g, o = gates.chunk(4, -1)
        to_c = o * (1 - tanh_c * tanh_c)
        factors = torch.stack([_slope(i) * g * mask, _slope(f) * c[:-1], (1 - g * g) * i * mask, _slope(o) * tanh_c], 2)
        d = torch.empty_like(factors)
        dh, dc, times = torch.empty_like(dy[0]), torch.zeros_like(dy[0]), _times(weight, ctx.fast)
        for t in reversed(range(len(dy))):
            if t + 1 < len(dy):
                times(d[t + 1].flatten(1), dy[t], dh)
                dc.mul_(f[t + 1])
            else:
                dh.copy_(dy[t])
            dc.addcmul_(dh, to_c[t])
            torch.mul(dc[:, None], factors[t, :, :3], out=d[t, :, :3])
            torch.mul(dh, factors[t, :, 3], out=d[t, :, 3])
        d = d.flatten(2)
        return d, _matrix_gradient(d, h[:-1], ctx.fast), None, None


class _GruBefore(Function):
    @staticmethod
    def forward(ctx, read, weight, mask, fast):
        time, rows, width = read.shape
        units = width // 3
        gates, n = read.new_empty(time, rows, 2 * units), read.new_empty(time, rows, units)
        h, rh = read.new_zeros(time + 1, rows, units), read.new_empty(time, rows, units)
        masked = n if mask is None else torch.empty_like(n)
        to_gates, to_n = _times(weight[: 2 * units].T, fast), _times(weight[2 * units :].T, fast)
        for t, (below, gate, n_now, rh_now) in enumerate(zip(*(part.unbind() for part in (read, gates, n, rh)))):
            to_gates(h[t], below[:, : 2 * units], gate)
            r, z = gate.sigmoid_().chunk(2, -1)
            torch.mul(r, h[t], out=rh_now)
            to_n(rh_now, below[:, 2 * units :], n_now)
            n_now.tanh_()
            if mask is not None:
                torch.mul(n_now, mask, out=masked[t])
            torch.lerp(masked[t], h[t], z, out=h[t + 1])
        ctx.save_for_backward(weight, read.new_ones(()) if mask is None else mask, gates, n, h, rh)
        ctx.fast = fast
        return h[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        weight, mask, gates, n, h, rh = ctx.saved_tensors
        time, rows, units = dy.shape
        (r, z), before = gates.chunk(2, -1), h[:-1]
        factors = torch.stack([_slope(z) * (before - n * mask), (1 - z) * (1 - n * n) * mask], 2)  # of d z, d n
        to_r = _slope(r) * before
        d = dy.new_empty(time, rows, 3, units)
        dh, drh, none = dy[-1].clone(), torch.empty_like(dy[0]), torch.zeros_like(dy[0])
        from_gates, from_n = _times(weight[: 2 * units], ctx.fast), _times(weight[2 * units :], ctx.fast)
        for t in reversed(range(time)):
            torch.mul(dh[:, None], factors[t], out=d[t, :, 1:])
            from_n(d[t, :, 2], none, drh)
            torch.mul(drh, to_r[t], out=d[t, :, 0])
            if t:
                dh.mul_(z[t]).addcmul_(drh, r[t]).add_(dy[t - 1])
                from_gates(d[t, :, :2].flatten(1), dh, dh)
        gradient = torch.cat(
            [
                _matrix_gradient(d[:, :, :2].flatten(2), before, ctx.fast),
                _matrix_gradient(d[:, :, 2], rh, ctx.fast),
            ]
        )
        return d.flatten(2), gradient, None, None


class _LiGru(Function):
    @staticmethod
    def forward(ctx, read, weight, mask, fast):
        time, rows, width = read.shape
        units = width // 2
        gates, h = torch.empty_like(read), read.new_zeros(time + 1, rows, units)
        times, candidate = _times(weight.T, fast), read.new_empty(rows, units)
        for t, (below, gate) in enumerate(zip(read.unbind(), gates.unbind())):
            times(h[t], below, gate)
            z, a = gate.chunk(2, -1)
            z.sigmoid_()
            torch.clamp(a, min=0, out=candidate)
            if mask is not None:
                candidate.mul_(mask)
            torch.lerp(candidate, h[t], z, out=h[t + 1])
        ctx.save_for_backward(weight, read.new_ones(()) if mask is None else mask, gates, h)
        ctx.fast = fast
        return h[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        weight, mask, gates, h = ctx.saved_tensors
        (z, a), before = gates.chunk(2, -1), h[:-1]
        factors = torch.stack([_slope(z) * (before - a.relu() * mask), (1 - z) * (a > 0) * mask], 2)
        d, gradient = _back(dy, factors, z, before, weight, ctx.fast)
        return d, gradient, None, None


class _Gru(Function):
    @staticmethod
    def forward(ctx, read, weight, bias, fast):
        time, rows, width = read.shape
        units = width // 3
        gates, h = torch.empty_like(read), read.new_zeros(time + 1, rows, units)  # gates: r, z and U_n h' + bias_n
        n, times = read.new_empty(time, rows, units), _times(weight.T, fast)
        for t, (below, gate, n_now) in enumerate(zip(read.unbind(), gates.unbind(), n.unbind())):
            times(h[t], bias.expand(rows, -1), gate)
            sigmoid = gate[:, : 2 * units]
            r, z = sigmoid.add_(below[:, : 2 * units]).sigmoid_().chunk(2, -1)
            torch.addcmul(below[:, 2 * units :], r, gate[:, 2 * units :], out=n_now)
            n_now.tanh_()
            torch.lerp(n_now, h[t], z, out=h[t + 1])
        ctx.save_for_backward(weight, gates, n, h)
        ctx.fast = fast
        return h[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        weight, gates, n, h = ctx.saved_tensors
        (r, z, nh), before = gates.chunk(3, -1), h[:-1]
        to_n = (1 - z) * (1 - n * n)
        # of r, z, U_n h' + bias_n, and of n
        factors = torch.stack([_slope(r) * to_n * nh, _slope(z) * (before - n), to_n * r, to_n], 2)
        d, gradient = _back(dy, factors, z, before, weight, ctx.fast)
        units = dy.shape[-1]
        below = torch.cat([d[:, :, : 2 * units], d[:, :, 3 * units :]], -1)
        return below, gradient, d[:, :, : 3 * units].sum((0, 1)), None


def _back(dy, factors, z, before, weight, fast):
    """Backward through h = z h' + (1 - z) …, where every gate's gradient is a factor [T, R, gates, H] of d h: the gradient
    of the gates before their functions, [T, R, gates x H], and that of the matrix, whose gates are the first ones.
    """
    d, dh, times = torch.empty_like(factors), dy[-1].clone(), _times(weight, fast)
    width = len(weight)
    for t in reversed(range(len(dy))):
        torch.mul(dh[:, None], factors[t], out=d[t])
        if t:
            dh.mul_(z[t]).add_(dy[t - 1])
            times(d[t].flatten(1)[:, :width], dh, dh)
    d = d.flatten(2)
    return d, _matrix_gradient(d[:, :, :width], before, fast)


class _Sru(Function):
    @staticmethod
    def forward(ctx, u, f, v, fast):
        gates, c = torch.empty_like(f), u.new_zeros(len(u) + 1, *u.shape[1:])
        for t, (u_now, f_now, gate) in enumerate(zip(u.unbind(), f.unbind(), gates.unbind())):
            torch.addcmul(f_now, v, c[t], out=gate).sigmoid_()
            torch.lerp(u_now, c[t], gate, out=c[t + 1])
        ctx.save_for_backward(u, v, gates, c)
        return c[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        u, v, gates, c = ctx.saved_tensors
        to_f = _slope(gates) * (c[:-1] - u)
        to_c = torch.addcmul(gates, to_f, v)  # ∂ c / ∂ c'
        dc = dy.clone()
        for t in reversed(range(1, len(dy))):
            dc[t - 1].addcmul_(dc[t], to_c[t])
        df = dc * to_f
        return dc * (1 - gates), df, (df * c[:-1]).flatten(0, 1).sum(0), None
