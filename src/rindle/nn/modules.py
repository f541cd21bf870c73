"""Any cell as a torch module."""

from __future__ import annotations

import math
from itertools import chain, groupby

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ..cells import CELLS, convlstm, convlstm_peephole, sru
from ..errors import RindleError
from ..program.nodes import flipped, run_layer
from ..program.tracer import Cell
from .numerics import FloatLayer, Real, RealArrays


def blocks_of(cell: Cell, parameters: dict[str, torch.Tensor], program) -> dict[str, torch.Tensor]:
    """Parameters by name -> the program's blocks; a bias that stands in two parameters is their sum."""
    blocks: dict[str, torch.Tensor] = {}
    for name, rows in cell.layout.items():
        if parameters.get(name) is None:
            continue
        for block, part in zip(rows, parameters[name].split([program.block_shape(b)[0] for b in rows])):
            blocks[block] = blocks[block] + part if block in blocks else part
    for op in program.affines:
        for gate in op.biased:
            if gate not in blocks:
                blocks[gate] = torch.zeros(program.block_shape(gate))
    return blocks


class Recurrent(nn.Module):
    """A stack of one cell's layers, with torch's conventions.

    cell: a :class:`rindle.Cell`. input_size, hidden_size: features of x and of the states. bidirectional: each layer also
    runs from each row's end, and its outputs are joined; shared: with the same weights. proj_size: features P of a cell
    with a projection. sizes: further dimensions that the cell names, {"K": 4}. image, kernel: (height, width) of a cell with
    convolutions, whose features are flat images, channel first. Parameters are named ``<name in cell.layout>_l<layer>``,
    those of the other direction with ``_reverse`` behind it. A cell of several inputs makes one layer.

    forward(x, states=None) takes float [T, B, input_size], or [B, T, input_size] with batch_first, or a
    ``PackedSequence``, and returns (y, states): y laid out as x, [.., directions x output size]; states: a tuple with one
    tensor [num_layers x directions, B, size of the state] per state of the cell, ordered as torch orders them, which may
    be given as initial states (None: zeros). Of a cell with several inputs x is a tuple of tensors, an input each; those
    behind the first are laid out as y: each direction reads its own part. RindleError where sizes do not fit.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        bidirectional: bool = False,
        proj_size: int = 0,
        shared: bool = False,
        sizes: dict[str, int] | None = None,
        image: tuple[int, int] | None = None,
        kernel: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.cell, self.batch_first = cell, batch_first
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.proj_size, self.shared = bidirectional, proj_size, shared
        self.sizes = {"H": hidden_size} | ({"P": proj_size} if proj_size else {}) | (sizes or {})
        self.geometry = {"image": tuple(image), "kernel": tuple(kernel)} if image and kernel else {}
        self._check_sizes()
        for layer in range(num_layers):
            program = self._program(layer)
            for suffix in self._suffixes(layer)[: 1 if shared else 2]:
                for name, rows in cell.layout.items():
                    shapes = [program.block_shape(block) for block in rows]
                    value = torch.empty(sum(shape[0] for shape in shapes), *shapes[0][1:])
                    nn.init.uniform_(value, -1 / math.sqrt(hidden_size), 1 / math.sqrt(hidden_size))
                    self.register_parameter(name + suffix, nn.Parameter(value))

    def _check_sizes(self) -> None:
        inputs = self.cell.program.inputs
        if len(inputs) > 1 and self.num_layers > 1:
            raise RindleError(
                f"the cell {self.cell.name!r} has several inputs ({', '.join(inputs)}), so it makes one layer, not "
                f"{self.num_layers}; stack modules of one layer each"
            )
        if self.cell.program.needs_image != bool(self.geometry):
            wanted = "give image=(height, width) and kernel=(height, width)" if not self.geometry else "leave out image"
            raise RindleError(f"the cell {self.cell.name!r} has {'no ' * bool(self.geometry)}convolutions; {wanted}")
        for what in ("input_size", "hidden_size") if self.geometry else ():
            features, pixels = getattr(self, what), math.prod(self.geometry["image"])
            if features % pixels:
                raise RindleError(
                    f"{what} is {features}, which is no multiple of the {pixels} pixels of an image; it is channels x pixels"
                )
        named = {size for size in self.cell.program.sizes.values() if isinstance(size, str)} - {"I"}
        for size in sorted(named - set(self.sizes)):
            remedy = "proj_size" if size == "P" else f"sizes={{{size!r}: …}}"
            raise RindleError(f"the cell {self.cell.name!r} has paths of the dimension {size}; give {remedy}")
        for size in sorted(set(self.sizes) - named - {"H"}):
            raise RindleError(
                f"the cell {self.cell.name!r} has no path of the dimension {size}, but it is given as {self.sizes[size]}"
                + (
                    ", by proj_size; leave it out, or take a cell with a projection"
                    if size == "P"
                    else "; leave it out"
                )
            )
        if self.shared and not self.bidirectional:
            raise RindleError("shared weights are of two directions; give bidirectional=True, or leave shared out")

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        """Of the parameters' names, a direction each."""
        return (f"_l{layer}", f"_l{layer}" + "_reverse" * (not self.shared))[: 1 + self.bidirectional]

    @property
    def output_size(self) -> int:
        """Features of y."""
        return self._sizes(self.cell.program.output) * (1 + self.bidirectional)

    def _sizes(self, path: str) -> int:
        return self.cell.program.with_sizes(**self.sizes).sizes[path]

    def _program(self, layer: int):
        width = self.input_size if layer == 0 else self.output_size
        program = self.cell.program
        wanted = self.sizes.get(program.sizes[program.inputs[0]], width)
        if width != wanted:
            raise RindleError(
                f"the cell {self.cell.name!r} needs an input as wide as its state, not {width} and {wanted}; "
                f"put a Linear({width}, {wanted}) before it" + " or take 'sru_highway'" * (self.cell.name == "sru")
            )
        return program.with_sizes(I=width, **self.sizes, **self.geometry)

    def parameters_of(self, layer: int, reverse: bool = False) -> dict[str, torch.Tensor]:
        """One direction of one layer: name in cell.layout -> tensor."""
        suffix = self._suffixes(layer)[reverse]
        return {name: getattr(self, name + suffix) for name in self.cell.layout}

    def forward(self, x, states=None):
        packed = x if isinstance(x, PackedSequence) else None
        x, *others = x if isinstance(x, tuple) and packed is None else (x,)
        frames = self._frames(x)
        others = self._others(others, frames)
        directions = 1 + self.bidirectional
        initial = () if states is None else self._initial(states, len(frames[0]), packed)
        finals = []
        for layer in range(self.num_layers):
            parameters = [list(self.parameters_of(layer, reverse).values()) for reverse in range(directions)]
            if torch.compiler.is_exporting():  # one operation in the exported graph, not an unrolled loop
                frames, after = self._exported(layer, frames, parameters, initial, others)
            else:
                before, beside = layer_states(initial, layer, directions), own_parts(others, directions)
                runs = [
                    run_cell(self.cell, self._program(layer), frames, one, before[k], k == 1, beside[k])
                    for k, one in enumerate(parameters)
                ]
                frames = [torch.cat(parts, -1) for parts in zip(*(outputs for outputs, _ in runs))]
                after = [final for _, final in runs]
            finals += after
        after = tuple(torch.stack(layers) for layers in zip(*finals))
        if packed is not None:
            if packed.unsorted_indices is not None:
                after = tuple(state.index_select(1, packed.unsorted_indices) for state in after)
            return packed._replace(data=torch.cat(frames)), after
        y = frames if isinstance(frames, torch.Tensor) else torch.stack(frames)
        return y.transpose(0, 1) if self.batch_first else y, after

    def _frames(self, x):
        """Frames [k_t, I], k_t falling; of a tensor, [T, B, I], its frames."""
        if isinstance(x, PackedSequence):
            width, frames = x.data.shape[-1], x.data.split(x.batch_sizes.tolist())
        else:
            if x.ndim != 3:
                raise RindleError(
                    f"x has {x.ndim} dimensions {tuple(x.shape)}; it must have 3, batch and time among them"
                )
            width, frames = x.shape[2], x.transpose(0, 1) if self.batch_first else x
            if frames.shape[0] == 0:
                raise RindleError("x has no frames; a sequence has at least one")
        if width != self.input_size:
            raise RindleError(f"x has {width} features; this {self.cell.name} takes {self.input_size}")
        return frames

    def _others(self, others: list, frames) -> list[torch.Tensor]:
        """The inputs behind the first, [T, B, directions x size]."""
        names = self.cell.program.inputs
        if 1 + len(others) != len(names):
            raise RindleError(
                f"{self.cell.name} takes {len(names)} inputs ({', '.join(names)}), not {1 + len(others)}; give a tuple of "
                f"{len(names)} tensors, and no PackedSequence"
                if len(names) > 1
                else f"{self.cell.name} takes one input, not a tuple of {1 + len(others)}"
            )
        others = [other.transpose(0, 1) if self.batch_first else other for other in others]
        for name, other in zip(names[1:], others):
            wanted = [len(frames), len(frames[0]), self._sizes(name) * (1 + self.bidirectional)]
            if list(other.shape) != wanted:
                raise RindleError(
                    f"the input {name} has the shape {list(other.shape)}; it must be {wanted}, time first"
                )
        return others

    def _initial(self, states, batch: int, packed) -> tuple:
        """Checked initial states, in the order of the batch's rows."""
        names = [state for state, _ in self.cell.program.states]
        states = (states,) if isinstance(states, torch.Tensor) else tuple(states)
        if len(states) != len(names):
            raise RindleError(
                f"{len(states)} initial states are given; {self.cell.name} has {len(names)}: {', '.join(names)}"
            )
        for name, state in zip(names, states):
            wanted = self.num_layers * (1 + self.bidirectional), batch, self._sizes(name)
            if tuple(state.shape) != wanted:
                raise RindleError(f"the initial state {name} has shape {list(state.shape)}; it must be {list(wanted)}")
        if packed is not None and packed.sorted_indices is not None:
            states = tuple(state.index_select(1, packed.sorted_indices) for state in states)
        return states

    def _exported(self, layer: int, x: torch.Tensor, parameters: list[list], initial: tuple, others: list):
        states = [state for state, _ in self.cell.program.states]
        sizes = [self._sizes(path) for path in (self.cell.program.output, *states)]
        dimensions = " ".join(f"{name}={size}" for name, size in self.sizes.items())
        dimensions += "".join(f" {name}={height}x{width}" for name, (height, width) in self.geometry.items())
        y, *flat = recurrent_op(
            x,
            [*chain(*parameters)],
            list(initial),
            sizes,
            dimensions,
            layer,
            self.bidirectional,
            self.cell.name,
            others,
        )
        return y, [flat[k : k + len(states)] for k in range(0, len(flat), len(states))]

    def extra_repr(self) -> str:
        options = {"bidirectional": self.bidirectional, "proj_size": self.proj_size, "shared": self.shared}
        extra = "".join(f", {name}={value}" for name, value in options.items() if value)
        return f"{self.cell.name}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}{extra}"


def filled(module: Recurrent, *parameters: dict[str, torch.Tensor]) -> Recurrent:
    """A Recurrent with these parameters, by their names in the cell's layout: a dict for each direction of each layer."""
    suffixes = [suffix for k in range(module.num_layers) for suffix in dict.fromkeys(module._suffixes(k))]
    state = {
        name + suffix: value for suffix, one in zip(suffixes, parameters, strict=True) for name, value in one.items()
    }
    dtype = next(iter(state.values())).dtype
    module.to(dtype).load_state_dict(state)
    return module


def run_cell(cell: Cell, program, frames, parameters: list[torch.Tensor], initial=(), reverse: bool = False, others=()):
    """One direction of one layer. frames: [k_t, I] each, k_t falling. initial: a state [B, n] each; none: zeros. others:
    the further inputs, [T, B, n] each. Returns (outputs [k_t, n] each, final states [B, n] each), both in the order of time
    and of rows.
    """
    numerics = Real(FloatLayer(program, blocks_of(cell, dict(zip(cell.layout, parameters)), program)))
    inputs = [flipped(RealArrays, list(one)) if reverse else list(one) for one in (frames, *others)]
    states, _ = numerics.initial(len(inputs[0][0]))
    if initial:
        states = dict(zip(states, initial))
    outputs, ended = [], []
    for rows, stretch in groupby(zip(*inputs), lambda now: len(now[0])):
        ended.append([state[rows:] for state in states.values()])  # of the rows that have no more frames
        more, states, _ = run_layer(program, numerics, list(stretch), states, {})
        outputs += more
    ended.append(list(states.values()))
    finals = [torch.cat(parts[::-1]) for parts in zip(*ended)]
    return flipped(RealArrays, outputs) if reverse else outputs, finals


@torch.library.custom_op("rindle::recurrent", mutates_args=())
def recurrent_op(
    x: torch.Tensor,
    parameters: list[torch.Tensor],
    initial: list[torch.Tensor],
    sizes: list[int],
    dimensions: str,
    layer: int,
    bidirectional: bool,
    cell: str,
    others: list[torch.Tensor],
) -> list[torch.Tensor]:
    """One layer of a Recurrent, both its directions, in a graph captured by torch.export: its output, and each
    direction's final states. sizes: of the output and the states. dimensions: "H=4 P=2", "H=24 image=3x4 kernel=3x3". To run one needs a cell of ``CELLS``.
    """
    known = known_cell(cell)
    program = known.program.with_sizes(I=x.shape[2], **read_dimensions(dimensions))
    outputs, finals = [], []
    before, beside = layer_states(initial, layer, 1 + bidirectional), own_parts(others, 1 + bidirectional)
    for k, one in enumerate(chunks(parameters, 1 + bidirectional)):
        frames, final = run_cell(known, program, x, one, before[k], k == 1, beside[k])
        outputs.append(torch.stack(frames))
        finals += final
    return [torch.cat(outputs, -1), *(final.clone() for final in finals)]


def layer_states(states, layer: int, directions: int) -> list[list[torch.Tensor]]:
    """Of states [layers x directions, B, n] those of one layer: per direction, one [B, n] each."""
    return [[state[layer * directions + k] for state in states] for k in range(directions)]


def own_parts(others: list[torch.Tensor], directions: int) -> list[list[torch.Tensor]]:
    """Of further inputs [T, B, directions x n] those of each direction, [T, B, n]."""
    return [[other.chunk(directions, -1)[k] for other in others] for k in range(directions)]


def read_dimensions(text: str) -> dict[str, int | tuple[int, int]]:
    found = {}
    for part in text.split():
        name, _, size = part.partition("=")
        found[name] = tuple(map(int, size.split("x"))) if "x" in size else int(size)
    return found


def chunks(values: list, count: int) -> list[list]:
    """As many equal parts."""
    size = len(values) // count
    return [values[k * size : (k + 1) * size] for k in range(count)]


def known_cell(name: str) -> Cell:
    """The cell that an exported graph names. RindleError for a user's own, which only its program can say."""
    if name not in CELLS:
        raise RindleError(
            f"the exported model uses the cell {name!r}, which is not one of Rindle's ({', '.join(CELLS)}); give the model "
            f"itself, or package.module:factory on the command line"
        )
    return CELLS[name]


@recurrent_op.register_fake
def _(x, parameters, initial, sizes, dimensions, layer, bidirectional, cell, others):
    directions = 1 + bidirectional
    finals = [x.new_empty(x.shape[1], size) for size in sizes[1:]] * directions
    return [x.new_empty(*x.shape[:2], sizes[0] * directions), *(torch.empty_like(final) for final in finals)]


class ConvLSTM(Recurrent):
    """ConvLSTM (``cells/convlstm.py``) over images of one size.

    channels, hidden_channels: of the input and of the states. image: (height, width). kernel: an odd number, or (height,
    width). forward(x, states=None) takes float [T, B, channels, height, width], or [B, T, …] with batch_first, and returns
    (y, (h, c)): y [.., hidden_channels, height, width], states [num_layers x directions, B, hidden_channels, height, width].
    The parameters are those of a :class:`Recurrent` over flat images: a row is [channels x kernel height x kernel width].
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        image: tuple[int, int],
        kernel: int | tuple[int, int] = 3,
        num_layers: int = 1,
        batch_first: bool = False,
        bidirectional: bool = False,
        peephole: bool = False,
    ):
        kernel = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        chosen, pixels = convlstm_peephole if peephole else convlstm, math.prod(image)
        super().__init__(
            chosen,
            channels * pixels,
            hidden_channels * pixels,
            num_layers,
            batch_first,
            bidirectional,
            image=image,
            kernel=kernel,
        )

    def forward(self, x, states=None):
        image = self.geometry["image"]
        if x.ndim != 5 or tuple(x.shape[3:]) != image or x.shape[2] * math.prod(image) != self.input_size:
            wanted = [self.input_size // math.prod(image), *image]
            raise RindleError(f"x has the shape {list(x.shape)}; it must be [T, B, {', '.join(map(str, wanted))}]")
        flat = None if states is None else tuple(state.flatten(2) for state in states)
        y, after = super().forward(x.flatten(2), flat)
        return y.unflatten(2, (-1, *image)), tuple(state.unflatten(2, (-1, *image)) for state in after)


class SRU(Recurrent):
    """Simple recurrent unit (``cells/sru.py``); every layer's input must be as wide as its state. The variants without that
    bound, and with a projection, are cells: ``rindle.Recurrent(rindle.CELLS["sru_highway"], …)``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        bidirectional: bool = False,
    ):
        super().__init__(sru, input_size, hidden_size, num_layers, batch_first, bidirectional)
