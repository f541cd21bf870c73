"""Capture of what moves values about and computes nothing: views, transposes, slices, joins. On features all of NumPy's is
exact; what mixes them with rows or frames is refused.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch

from ....program.nodes import INPUT, ConcatNode
from . import recurrent
from . import time as over_time
from .values import F, T, Value, argument, changed, inserted, permuted, removed, reshaped, shape_of

aten = torch.ops.aten
END = 2**62  # a slice up to here is one to the end


def same(capture, fx):
    """What changes nothing: a copy, dropout outside training."""
    if fx.target in (aten.dropout.default, aten.feature_dropout.default) and fx.args[2]:
        raise capture.refuse(fx, "is active; call model.eval() or make it depend on self.training")
    return capture.values[fx.args[0]]


def to(capture, fx):
    """Floats of another width are the same values; anything else is not."""
    kinds = [source.meta["val"].dtype for source in (fx.args[0], fx)]
    if not all(dtype.is_floating_point for dtype in kinds):
        raise capture.refuse(fx, f"is not supported: it makes {kinds[1]} of {kinds[0]}")
    return capture.values[fx.args[0]]


def view(capture, fx):
    """view, reshape, flatten, unflatten: whatever leaves rows and frames as they are."""
    value, before, after = capture.laid(fx), shape_of(fx.args[0]), shape_of(fx)
    made = reshaped(value, after, capture.batch, capture.frames(value.node))
    if made is None:
        raise capture.refuse(
            fx,
            f"makes {list(after)} of {list(before)}, laid out {value.layout}: that mixes rows or frames with features",
        )
    return made


def permute(capture, fx):
    value = capture.laid(fx)
    return permuted(value, [dim % len(value.dims) for dim in fx.args[1]])


def transpose(capture, fx):
    value = capture.laid(fx)
    order = list(range(len(value.dims)))
    a, b = fx.args[1:3] if len(fx.args) > 2 else (-1, -2) if len(order) > 1 else (0, 0)
    order[a], order[b] = order[b], order[a]
    return permuted(value, order)


def movedim(capture, fx):
    value = capture.laid(fx)
    return permuted(value, moved(len(value.dims), *fx.args[1:3]))


def moved(rank: int, source, destination) -> list[int]:
    """The order of the dimensions after torch.movedim."""
    numbered = np.moveaxis(np.empty(range(rank)), source, destination)
    return list(numbered.shape)  # dimension k has size k


def unsqueeze(capture, fx):
    value = capture.laid(fx)
    return inserted(value, fx.args[1] % (len(value.dims) + 1))


def squeeze(capture, fx):
    if isinstance(capture.values.get(fx.args[0]), recurrent.Finals):
        return recurrent.squeeze(capture, fx)
    value, sizes = capture.laid(fx), shape_of(fx.args[0])
    dims = range(len(sizes)) if len(fx.args) == 1 else np.atleast_1d(fx.args[1]) % len(sizes)
    for dim in sorted((dim for dim in dims if sizes[dim] == 1), reverse=True):
        if value.dims[dim] != F:
            raise capture.refuse(fx, f"takes away dimension {dim} of {value.layout}, which is not one of features")
        value = removed(value, dim)
    return value


def expand(capture, fx):
    value, before, after = capture.laid(fx), shape_of(fx.args[0]), shape_of(fx)
    for _ in range(len(after) - len(before)):
        value = inserted(value, 0)
    for dim, (old, new) in enumerate(zip((1,) * (len(after) - len(before)) + before, after)):
        if old != new and value.dims[dim] == F:
            value = changed(value, dim, lambda index, axis, new=new: np.repeat(index, new, axis))
    if tuple(shape_of_value(capture, value)) != after:
        raise capture.refuse(fx, f"makes {list(after)} of {list(before)}: rows and frames cannot be repeated")
    return value


def shape_of_value(capture, value: Value) -> list[int]:
    axes = iter(value.index.shape)
    sizes = {"B": capture.batch, "T": capture.frames(value.node)}
    return [next(axes) if dim == F else int(np.prod([sizes[one] for one in dim])) for dim in value.dims]


def repeat(capture, fx):
    value, times = capture.laid(fx), fx.args[1]
    for _ in range(len(times) - len(value.dims)):
        value = inserted(value, 0)
    for dim, count in enumerate(times):
        if count != 1 and value.dims[dim] != F:
            raise capture.refuse(fx, f"repeats dimension {dim} of {value.layout}; only features can be repeated")
        if count != 1:
            value = changed(value, dim, lambda index, axis, n=count: np.concatenate([index] * n, axis))
    return value


def select(capture, fx):
    source, dim, index = capture.values.get(fx.args[0]), *fx.args[1:3]
    if isinstance(source, recurrent.Finals) and dim == 0:
        return recurrent.final(capture, source.nodes[index])
    value = capture.laid(fx)
    dim %= len(value.dims)
    if value.dims[dim] == F:
        return removed(changed(value, dim, lambda kept, axis: kept.take([index], axis)), dim)
    if value.dims[dim] != T or index not in (0, -1):
        raise capture.refuse(
            fx,
            f"selects index {index} of dimension {dim}; only the last frame, index -1 of the time, and the first, "
            f"index 0, are supported",
        )
    return over_time.picked(capture, fx, capture.checked(fx, value), dim, "last" if index else "first")


def slices(capture, fx):
    dim, start, end, step = (argument(fx, *one) for one in ((1, "dim", 0), (2, "start"), (3, "end"), (4, "step", 1)))
    start, end = start or 0, END if end is None else end
    if isinstance(capture.values.get(fx.args[0]), recurrent.Finals) and (start, end >= END, step) == (0, True, 1):
        return capture.values[fx.args[0]]
    value = capture.laid(fx)
    dim %= len(value.dims)
    if value.dims[dim] == F:
        return changed(value, dim, lambda index, axis: index[(slice(None),) * axis + (slice(start, end, step),)])
    size = shape_of(fx.args[0])[dim]
    if start == 0 and step == 1 and (end >= END or (end == size and value.dims[dim] != T)):
        return value
    if value.dims[dim] != T:
        raise capture.refuse(fx, f"takes {start}:{end} of dimension {dim} of {value.layout}; all rows must be kept")
    return over_time.sliced(capture, fx, capture.checked(fx, value), dim, start, end, step)


def narrow(capture, fx):
    value, (dim, start, length) = capture.laid(fx), fx.args[1:4]
    dim %= len(value.dims)
    if value.dims[dim] != F:
        raise capture.refuse(fx, f"takes a part of dimension {dim} of {value.layout}; write it as a slice")
    return changed(value, dim, lambda index, axis: index.take(range(start, start + length), axis))


def parts(capture, fx):
    """chunk, split, unbind."""
    value, found = capture.laid(fx), fx.meta["val"]
    dim = argument(fx, 1, "dim", 0) if fx.target is aten.unbind.int else argument(fx, 2, "dim", 0)
    dim %= len(value.dims)
    if value.dims[dim] != F:
        raise capture.refuse(
            fx, f"takes dimension {dim} of {value.layout} to pieces; only features can be split, frames run one by one"
        )
    if fx.target is aten.unbind.int:
        return [removed(changed(value, dim, lambda v, axis, k=k: v.take([k], axis)), dim) for k in range(len(found))]
    ends = list(accumulate(int(part.shape[dim]) for part in found))
    starts = [0, *ends]
    return [changed(value, dim, lambda v, axis, a=a, b=b: v.take(range(a, b), axis)) for a, b in zip(starts, ends)]


def take(capture, fx):
    """index_select, and x[:, :, [2, 0]]."""
    value = capture.laid(fx)
    if fx.target is aten.index_select.default:
        chosen = {fx.args[1] % len(value.dims): fx.args[2]}
    else:
        chosen = {dim: index for dim, index in enumerate(fx.args[1]) if index is not None}
    for dim, index in chosen.items():
        places = capture.constant(index)
        if value.dims[dim] != F or len(chosen) > 1 or places is None or places.ndim != 1:
            raise capture.refuse(
                fx,
                f"chooses of the dimensions {sorted(chosen)} of {value.layout}; only features can be, by one constant list",
            )
        value = changed(value, dim, lambda kept, axis, places=places: kept.take(places.numpy(), axis))
    return value


def flip(capture, fx):
    value = capture.laid(fx)
    for dim in (dim % len(value.dims) for dim in fx.args[1]):
        if value.dims[dim] != F:
            raise capture.refuse(
                fx,
                f"reverses dimension {dim} of {value.layout}; only features can be. For the other direction of time, make the "
                f"recurrent layer bidirectional",
            )
        value = changed(value, dim, np.flip)
    return value


def roll(capture, fx):
    value = capture.laid(fx)
    for shift, dim in zip(fx.args[1], argument(fx, 2, "dims", []) or [None]):
        if dim is None or value.dims[dim % len(value.dims)] != F:
            raise capture.refuse(fx, f"rolls a dimension of {value.layout} that is not one of features")
        value = changed(value, dim % len(value.dims), lambda v, axis, n=shift: np.roll(v, n, axis))
    return value


def pad(capture, fx):
    """Zeros around frames are the next window's; zeros around features a convolution takes up. Negative: cuts off."""
    value, widths = capture.checked(fx, capture.laid(fx)), fx.args[1]
    mode, filling = argument(fx, 2, "mode", "constant"), argument(fx, 3, "value")
    if mode != "constant" or filling:
        what = f"by {mode!r}" if mode != "constant" else f"with {filling}"
        raise capture.refuse(fx, f"pads {what}; only padding with zeros is supported")
    for number, (before, after) in enumerate(zip(widths[::2], widths[1::2])):
        dim = len(value.dims) - 1 - number
        if (before, after) == (0, 0):
            continue
        if value.dims[dim] == T:
            value = over_time.padded(capture, fx, value, before, after)
        elif value.dims[dim] == F:
            value = changed(value, dim, lambda v, axis, a=before, b=after: _padded(v, axis, a, b))
        else:
            raise capture.refuse(fx, f"pads dimension {dim} of {value.layout}, the rows")
    return value


def _padded(index: np.ndarray, axis: int, before: int, after: int) -> np.ndarray:
    kept = index.take(range(max(-before, 0), index.shape[axis] - max(-after, 0)), axis)
    widths = [(0, 0)] * index.ndim
    widths[axis] = max(before, 0), max(after, 0)
    return np.pad(kept, widths, constant_values=-1)


def cat(capture, fx):
    if any(isinstance(capture.values.get(part), recurrent.Finals) for part in fx.args[0]):
        raise capture.refuse(fx, "joins final states of several layers as they are; select them first: h[-1]")
    joined = [capture.values.get(part) for part in fx.args[0]]
    if not all(isinstance(part, Value) for part in joined) or len({len(part.dims) for part in joined}) != 1:
        raise capture.refuse(fx, "joins values that are not all sequences, or all vectors, of features")
    return _joined(capture, fx, [capture.natural(part) for part in joined], argument(fx, 1, "dim", 0))


def _joined(capture, fx, joined: list[Value], dim: int):
    if capture.ids and any(part.node == INPUT for part in joined):
        raise capture.refuse(fx, "reads the model's input, which is ids; only an Embedding can")
    rank = len(joined[0].dims)
    if len({part.dims for part in joined}) != 1:
        layouts = " and ".join(dict.fromkeys(part.layout for part in joined))
        raise capture.refuse(fx, f"joins values laid out {layouts}")
    if joined[0].dims[dim % rank] != F:
        features = [number for number, kind in enumerate(joined[0].dims) if kind == F]
        where = f"along dimension {features[0]}" if len(features) == 1 else f"along the dimensions {features}"
        raise capture.refuse(fx, f"is along dimension {dim}; only features can be concatenated, {where}")
    if len(joined) == 1:
        return joined[0]
    names = tuple(capture.ordered(fx, capture.checked(fx, part)) for part in joined)
    capture.same_frames(fx, *names)
    made = capture.add(ConcatNode(capture.name_of(fx, "concat"), names))
    starts = [0, *accumulate(part.index.size for part in joined)]
    indices = [start + np.arange(part.index.size).reshape(part.index.shape) for start, part in zip(starts, joined)]
    return replace(joined[0], node=made, index=np.concatenate(indices, joined[0].axis(dim % rank)))


def stack(capture, fx):
    joined = [capture.values.get(part) for part in fx.args[0]]
    if not joined or not all(isinstance(part, Value) for part in joined):
        return recurrent.stack(capture, fx)
    joined = [capture.natural(part) for part in joined]
    dim = argument(fx, 1, "dim", 0) % (len(joined[0].dims) + 1)
    return _joined(capture, fx, [inserted(part, dim) for part in joined], dim)


HANDLERS = {
    **dict.fromkeys(
        (
            aten.dropout.default,
            aten.feature_dropout.default,
            aten.clone.default,
            aten.contiguous.default,
            aten.alias.default,
            aten.detach.default,
            aten.lift_fresh_copy.default,
        ),
        same,
    ),
    **dict.fromkeys((aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten._to_copy.default), to),
    **dict.fromkeys(
        (
            aten.view.default,
            aten.reshape.default,
            aten._unsafe_view.default,
            aten.flatten.using_ints,
            aten.unflatten.int,
        ),
        view,
    ),
    aten.permute.default: permute,
    **dict.fromkeys(
        (aten.transpose.int, aten.t.default, aten.swapaxes.default, aten.swapdims.default, aten.mT.default), transpose
    ),
    **dict.fromkeys((aten.movedim.int, aten.movedim.intlist), movedim),
    aten.unsqueeze.default: unsqueeze,
    **dict.fromkeys((aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims), squeeze),
    aten.expand.default: expand,
    aten.repeat.default: repeat,
    aten.select.int: select,
    aten.slice.Tensor: slices,
    aten.narrow.default: narrow,
    **dict.fromkeys((aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int), parts),
    **dict.fromkeys((aten.index_select.default, aten.index.Tensor), take),
    aten.flip.default: flip,
    aten.roll.default: roll,
    **dict.fromkeys((aten.pad.default, aten.constant_pad_nd.default), pad),
    aten.cat.default: cat,
    aten.stack.default: stack,
}
