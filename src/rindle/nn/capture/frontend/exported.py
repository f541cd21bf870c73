"""The exported graph, operation by operation: one function each, in the files beside this one. ``HANDLERS`` is the table."""

from __future__ import annotations

import inspect
import math
import operator
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ....errors import RindleError
from ....numbers.float_ops import FloatOp
from ....program.graph import Graph
from ....program.nodes import INPUT, NODES, FloatNode, GatherNode, Node, ProgramNode
from ....program.tracer import Cell
from ...modules import blocks_of
from ...numerics import FloatLayer
from ..captured import captured_copy
from . import attention, floats, layers, pointwise, pool, recurrent, shapes, time
from .tidy import tidy
from .values import BATCH_TIME, TIME_BATCH, VECTOR, ZERO, B, F, T, Value, shape_of

aten = torch.ops.aten

ZEROS = (aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default)
# operation -> function of (capture, its node in the exported graph)
HANDLERS = {
    aten.gru.input: recurrent.gru,
    aten.lstm.input: recurrent.lstm,
    aten.rnn_tanh.input: recurrent.rnn_tanh,
    aten.rnn_relu.input: recurrent.rnn_relu,
    torch.ops.rindle.recurrent.default: recurrent.recurrent,
    operator.getitem: lambda capture, fx: capture.values[fx.args[0]][fx.args[1]],
    **dict.fromkeys(ZEROS, lambda capture, fx: recurrent.ZEROS),
    **shapes.HANDLERS,
    **layers.HANDLERS,
    **pointwise.HANDLERS,
    **time.HANDLERS,
    **pool.HANDLERS,
    **floats.HANDLERS,
    **attention.HANDLERS,
}

# what an unsupported operation's name begins with -> what to do instead
REMEDIES = {
    "conv_transpose": "; a Linear or a convolution with more channels, reshaped, can stand in its place",
    "group_norm": ": its statistics are of the values at hand; BatchNorm folds into the layer before it",
    "instance_norm": ": its statistics are of the whole sequence; BatchNorm folds into the layer before it",
    "scaled_dot_product_attention": "; attention has one score a frame: (softmax(scores, time) * y).sum(time)",
    "multi_head": "; attention has one score a frame: (softmax(scores, time) * y).sum(time)",
    "argmax": "; choose among the outputs outside the model",
    "stft": "; compute features outside the model",
    **dict.fromkeys(("exp", "log", "sqrt", "rsqrt"), "; compute features outside the model"),
    **dict.fromkeys(
        ("std", "var", "cumsum"), "; over time there are mean, max, the last and the first frame, and attention"
    ),
}


class Refused(RindleError):
    """The model does something that Rindle cannot take over."""


def capture(model: nn.Module, example: torch.Tensor) -> tuple[Graph, bool]:
    """The graph of ``model`` and whether its input is batch first.

    example: input in the model's own layout, float [B, T, I] or [T, B, I], with more dimensions behind for images (whose
    elements become features in their order), or ids, integers [B, T] or [T, B]; its time is
    arbitrary. Raises RindleError that names the operation and the module path for what ``HANDLERS`` does not have
    (docs/operations.md).
    """
    name = type(model).__name__
    _check_arguments(name, model)
    model = captured_copy(model)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, (example,))
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise RindleError(f"torch.export cannot capture {name}: {first}") from error
    return read_exported(exported, model)


def _check_arguments(name: str, model: nn.Module) -> None:
    """Refuses a forward that cannot be called with one sequence alone."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [one.name for one in parameters if one.kind in kinds and one.default is one.empty]
    if len(needed) > 1:
        raise RindleError(
            f"the forward of {name} takes {', '.join(needed)}; a captured model takes one sequence. Leave states out: a stream keeps them, "
            "and reads and sets them (Stream.states, set_states). Lengths are given to Model.run. For any other forward: "
            "rindle.prepare and convert(…, whole=False), which leave it as it is"
        )


def read_exported(exported: torch.export.ExportedProgram, model: nn.Module | None = None) -> tuple[Graph, bool]:
    """As :func:`capture`, from an exported program. model: what it was exported from, if that is at hand: it knows the
    cells that are a user's own.
    """
    refusals = []
    for layout in (BATCH_TIME, TIME_BATCH):
        one = _Capture(model, exported)
        try:
            return one.run(layout), layout == BATCH_TIME
        except Refused as refusal:
            refusals.append((len(one.values), refusal))
    raise RindleError(str(max(refusals, key=lambda one: one[0])[1])) from None  # of the layout that went further


class _Capture:
    """What the handlers share: the nodes made so far, what each tensor is, and refusals."""

    def __init__(self, model, exported):
        self.model, self.exported = model, exported
        self.nodes: list[Node] = []
        signature = exported.graph_signature
        targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.tensors = {name: (target, self._held(target)) for name, target in targets.items()}
        constants = signature.inputs_to_lifted_tensor_constants
        self.tensors |= {name: (target, exported.constants[target]) for name, target in constants.items()}

    def _held(self, target: str) -> torch.Tensor:
        """A parameter or a buffer; one that is not persistent stands among the constants."""
        held = self.exported.state_dict
        return held[target] if target in held else self.exported.constants[target]

    def run(self, layout: tuple) -> Graph:
        self.values: dict = {}
        users = set(self.exported.graph_signature.user_inputs)
        inputs = [fx for fx in self.exported.graph.nodes if fx.op == "placeholder" and fx.name in users]
        if len(inputs) != 1:
            raise Refused(f"the model takes {len(inputs)} tensors; it must take one sequence")
        example = inputs[0].meta["val"]
        self.ids, self.vocabulary = not example.dtype.is_floating_point, 0
        if len(example.shape) != 2 if self.ids else len(example.shape) < 3:
            wanted = "2, for ids: [B, T] or [T, B]" if self.ids else "3: [B, T, I] or [T, B, I], or more, for images"
            shape = tuple(example.shape)
            raise Refused(f"the model's input has {len(shape)} dimensions {shape}; it must have {wanted}")
        sizes = shape_of(inputs[0])
        self.batch, self.time = sizes[layout.index(B)], sizes[layout.index(T)]
        self.input_size = math.prod(sizes[2:])
        index = np.arange(self.input_size).reshape(sizes[2:])  # () of ids
        self.values[inputs[0]] = Value(INPUT, layout[:2] + (F,) * len(sizes[2:]), index)
        (output,) = (fx for fx in self.exported.graph.nodes if fx.op == "output")
        needed = self._needed(output)
        for fx in self.exported.graph.nodes:
            if fx.op == "call_function" and fx in needed:
                self.values[fx] = self._call(fx)
        return self._graph(output, layout)

    def _graph(self, output, layout: tuple) -> Graph:
        results = [self.values[fx] if fx in self.values else fx for fx in output.args[0]]
        if not isinstance(results[0], Value) or not all(
            state is None or isinstance(state, recurrent.Finals) for state in results[1:]
        ):
            raise Refused("the model must return one tensor, or one and the final states of a recurrent layer")
        (fx,) = output.args[0][:1]
        value = self.natural(results[0])
        if value.pending:
            value = self.checked(fx, value)
        frames = tuple(dim for dim in value.dims if dim != F)
        if value.dims[: len(frames)] != frames or frames not in (layout[:2], VECTOR[:1]):
            given = Value(INPUT, layout).layout
            raise Refused(f"the output is laid out {value.layout}, but the input {given}; transpose it in forward")
        read = self.floats if self.is_float(value.node) else self.ordered
        nodes, name = tidy(self.nodes, read(fx, value))
        if not any(isinstance(node, ProgramNode) for node in nodes):
            raise Refused("the model has no recurrent or Linear layer; there is nothing to quantize")
        return Graph(self.input_size, nodes, name, self.vocabulary)

    def _needed(self, output) -> set:
        needed, queue = set(), [output]
        while queue:
            fx = queue.pop()
            in_place = [user for user in fx.users if is_in_place(user) and user.args[0] is fx]
            for source in [*fx.all_input_nodes, *in_place]:
                if source not in needed:
                    needed.add(source)
                    queue.append(source)
        return needed

    def _call(self, fx):
        if not isinstance(fx.meta.get("val"), (torch.Tensor, tuple, list)):
            return None  # a size, of a dynamic batch; shapes are read off the results
        handler = HANDLERS.get(fx.target) or HANDLERS.get(functional(fx.target))
        constants = self._constants(fx)
        if constants is not None and fx.target not in ZEROS:
            return functional(fx.target)(*constants[0], **constants[1])
        if handler is None:
            base = getattr(fx.target, "__name__", "").partition(".")[0]
            remedy = next((remedy for words, remedy in REMEDIES.items() if base.startswith(words)), "")
            raise self.refuse(fx, f"is not supported{remedy}")
        value = handler(self, fx)
        if is_in_place(fx):
            self.values[fx.args[0]] = value  # what reads it from here on reads the change
        return value

    def _constants(self, fx):
        """Arguments of an operation that reads parameters and constants alone; else None."""
        if fx.target is operator.getitem and not isinstance(self.values.get(fx.args[0]), torch.Tensor):
            return None
        known = [self._size(source) if is_size(source) else self.constant(source) for source in fx.all_input_nodes]
        if any(tensor is None for tensor in known):
            return None
        tensors = dict(zip(fx.all_input_nodes, known))
        return torch.fx.map_arg((fx.args, fx.kwargs), tensors.__getitem__)

    @staticmethod
    def _size(fx) -> int:
        """Of a dynamic batch, that of the example."""
        size = fx.meta["val"]
        return size if isinstance(size, int) else size.node.hint

    # -- refusals and names

    def refuse(self, fx, why: str) -> Refused:
        path = self.path(fx)
        where = f"in the module {path!r}" if path else "in the model's forward"
        return Refused(f"{fx.target} {where} {why}")

    @staticmethod
    def path(fx) -> str:
        stack = list((fx.meta.get("nn_module_stack") or {}).values())
        return stack[-1][0] if stack else ""

    def name_of(self, fx, operation: str) -> str:
        """For an operation that may stand in any module's forward, its own included."""
        return f"{self.path(fx) or 'forward'}.{operation}"

    def _free(self, wanted: str) -> str:
        taken = {INPUT, *(node.name for node in self.nodes)}
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}#{number}", number + 1
        return name

    # -- nodes

    def add(self, node: Node) -> str:
        """Adds a node under its name or the nearest free one, which it returns."""
        self.nodes.append(replace(node, name=self._free(node.name)))
        return self.nodes[-1].name

    def shared(self, node: Node) -> str:
        """As :meth:`add`, but one node for all that need the same."""
        for other in self.nodes:
            if replace(node, name=other.name) == other:
                return other.name
        return self.add(node)

    def program(
        self,
        name: str,
        source: str | tuple[str, ...],
        cell: Cell,
        parameters: dict,
        reverse: bool = False,
        initial: dict | None = None,
        **sizes: int,
    ) -> str:
        program = cell.program.with_sizes(**sizes)
        layer = FloatLayer(program, blocks_of(cell, parameters, program), initial or {})
        sources = (source,) if isinstance(source, str) else source
        return self.add(ProgramNode(name, sources, layer, reverse))

    @property
    def graph(self) -> Graph:
        """So far."""
        return Graph(self.input_size, tuple(self.nodes), INPUT, self.vocabulary)

    def size_of(self, node: str) -> int:
        return self.graph.size_of(node)

    def is_float(self, node: str) -> bool:
        return self.graph.is_float(node)

    # -- what tensors are

    def constant(self, argument) -> torch.Tensor | None:
        """A parameter, a buffer, or what was computed of them alone; None for anything else."""
        if argument in self.tensors_by_node:
            name, tensor = self.tensors_by_node[argument]
            if tensor.dtype.is_floating_point and not torch.isfinite(tensor).all():
                raise RindleError(f"the parameter {name!r} holds NaN or infinity; a trained model has finite weights")
            return tensor.detach()
        found = self.values.get(argument)
        return found if isinstance(found, torch.Tensor) else None

    @property
    def tensors_by_node(self) -> dict:
        if not hasattr(self, "_by_node"):
            placeholders = [fx for fx in self.exported.graph.nodes if fx.op == "placeholder"]
            self._by_node = {fx: self.tensors[fx.name] for fx in placeholders if fx.name in self.tensors}
        return self._by_node

    def parameter(self, fx, argument) -> torch.Tensor | None:
        if argument is None:
            return None
        tensor = self.constant(argument)
        if tensor is None:
            raise self.refuse(fx, f"computes its weight {argument.name!r} from the input; weights must be constant")
        return tensor.to(torch.float32)

    def natural(self, value: Value) -> Value:
        """With its index written out."""
        return value if value.index is not None else replace(value, index=np.arange(self.size_of(value.node)))

    def laid(self, fx, index: int = 0) -> Value:
        """An argument whose layout alone matters: ids and weights over time pass, too."""
        return self.laid_node(fx, fx.args[index])

    def laid_node(self, fx, argument) -> Value:
        value = self.values.get(argument) if isinstance(argument, torch.fx.Node) else None
        if not isinstance(value, Value):
            raise self.refuse(fx, "reads something that is not a sequence or a vector of features")
        return self.natural(value)

    def value(self, fx, index: int = 0) -> Value:
        """An argument of an operation that computes."""
        return self.checked(fx, self.laid(fx, index))

    def checked(self, fx, value: Value) -> Value:
        if self.ids and value.node == INPUT:
            raise self.refuse(fx, "reads the model's input, which is ids; only an Embedding can")
        if value.pending:
            raise self.refuse(
                fx,
                f"reads a softmax over time ({value.node!r}); it can only weigh a sequence that is then summed over time: "
                f"(weights * y).sum(dim)",
            )
        return value

    def ordered(self, fx, value: Value) -> str:
        """The node that has a value's features in the order of the tensor, for what computes in integers."""
        if self.is_float(value.node):
            raise self.refuse(
                fx,
                f"reads {value.node!r}, which is in floating point: softmax, LayerNorm and what follows them stand at the output "
                f"side, where only Linear, add, mul and activations can come after them; put integer layers before, and "
                f"BatchNorm instead of LayerNorm between them",
            )
        order = self._order(fx, value)
        if np.array_equal(order, np.arange(self.size_of(value.node))):
            return value.node
        return self.shared(GatherNode(f"{value.node}.gather", (value.node,), tuple(order.tolist())))

    def floats(self, fx, value: Value) -> str:
        """As :meth:`ordered`, for what computes in floating point."""
        if not self.is_float(value.node):
            return self.ordered(fx, value)
        order, size = self._order(fx, value), self.size_of(value.node)
        if np.array_equal(order, np.arange(size)):
            return value.node
        chosen = FloatOp("linear", {"weight": np.eye(size, dtype=np.float32)[order]})
        return self.add(FloatNode(f"{value.node}.gather", (value.node,), chosen))

    def _order(self, fx, value: Value) -> np.ndarray:
        order = value.index.ravel()
        if (order == ZERO).any():
            raise self.refuse(fx, "reads features padded with zeros; only a convolution takes up such padding")
        return order

    def is_whole(self, value: Value) -> bool:
        """Whether it has every feature of its node, each once."""
        return np.array_equal(np.sort(value.index.ravel()), np.arange(self.size_of(value.node)))

    def sequence(self, fx, batch_first: bool) -> Value:
        """What a recurrent layer reads."""
        layout = BATCH_TIME if batch_first else TIME_BATCH
        return Value(self.ordered(fx, self.sequence_of(fx, self.value(fx), layout)), layout)

    def sequence_of(self, fx, value: Value, layout: tuple) -> Value:
        """The value, which must be a sequence laid out so."""
        if not value.over_time:
            raise self.refuse(fx, "gets a vector, not a sequence")
        if value.dims != layout:
            wanted = Value("", layout).layout
            raise self.refuse(fx, f"takes a sequence laid out {wanted}, but gets {value.layout}; check batch_first")
        return value

    def pick(self, source: str, kind: str) -> Value:
        """One vector per row: the last or first frame, the mean or the maximum over time."""
        return Value(self.shared(NODES[kind](f"{source}.{kind}", (source,))), VECTOR)

    def frames(self, node: str) -> int | None:
        """Of a sequence, at the captured length; None of a vector."""
        graph = self.graph
        return graph.frames(node, self.time) if graph.is_sequence(node) else None

    def same_frames(self, fx, *names: str) -> None:
        """Refuses to join what has not the same frames."""
        graph = self.graph
        kinds = {name: graph.is_sequence(name) for name in names}
        if len(set(kinds.values())) > 1:
            sequence, vector = sorted(kinds, key=lambda name: not kinds[name])[:: len(kinds) - 1]
            raise self.refuse(
                fx,
                f"joins a sequence ({sequence}) and a vector ({vector}); a vector over all frames is known only when the "
                f"sequence has ended",
            )
        if all(kinds.values()) and len({graph.time_base(name) for name in names}) > 1:
            counts = ", ".join(f"{name} has {graph.frames(name, self.time)}" for name in names)
            raise self.refuse(fx, f"joins sequences whose frames are not the same: of {self.time} frames {counts}")


def is_size(fx) -> bool:
    return isinstance(fx.meta.get("val"), (int, torch.SymInt))


def functional(target):
    """relu of relu_, and so on: what an operation in place computes."""
    name = getattr(target, "__name__", "")
    if not is_in_place_name(name):
        return target
    base, _, overload = name.partition(".")
    packet = getattr(aten, base[:-1], None)
    return getattr(packet, overload or "default", target) if packet is not None else target


def is_in_place_name(name: str) -> bool:
    base = name.partition(".")[0]
    return base.endswith("_") and not base.endswith("__")


def is_in_place(fx) -> bool:
    return fx.op == "call_function" and is_in_place_name(getattr(fx.target, "__name__", ""))
