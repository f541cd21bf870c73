"""A torch model -> a graph of programs with real weights, by torch.export. What is unknown is refused by name."""

from __future__ import annotations

import operator
import sys
import warnings
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..cells import linear
from ..formats import RindleError
from ..graph import INPUT, Embedding, Graph, Node
from ..program import Cell
from . import frontend_recurrent as recurrent
from .modules import blocks_of
from .numerics import FloatLayer
from .prepare import captured_copy

aten = torch.ops.aten
BATCH_TIME, TIME_BATCH, VECTOR = "[B, T, F]", "[T, B, F]", "[B, F]"


@dataclass(frozen=True)
class Value:
    """What a traced tensor is: a node's value, laid out in one of three ways."""

    node: str
    layout: str


class Refused(RindleError):
    """The model does something that Rindle cannot take over."""


def capture(model: nn.Module, example: torch.Tensor) -> tuple[Graph, bool]:
    """The graph of ``model`` and whether its input is batch first.

    example: input in the model's own layout, float [B, T, I] or [T, B, I], or ids, integers [B, T] or [T, B]; its time is
    arbitrary. Raises RindleError that names the operation and the module path for anything but recurrent layers, Linear,
    Embedding, concatenated features, and a choice of the last or first frame or the mean over time.
    """
    name, model = type(model).__name__, captured_copy(model)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, (example,))
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise RindleError(f"torch.export cannot capture {name}: {first}") from error
    return read_exported(exported, model)


def read_exported(exported: torch.export.ExportedProgram, model: nn.Module | None = None) -> tuple[Graph, bool]:
    """As :func:`capture`, from an exported program. model: what it was exported from, if that is at hand: it knows the
    cells that are a user's own.
    """
    refusals = []
    for layout in (BATCH_TIME, TIME_BATCH):
        try:
            return _Capture(model, exported).run(layout), layout == BATCH_TIME
        except Refused as refusal:
            refusals.append(refusal)
    layouts = [refusal for refusal in refusals if "laid out" not in str(refusal)]
    raise RindleError(str((layouts or refusals)[0])) from None


class _Capture:
    def __init__(self, model, exported):
        self.model, self.exported = model, exported
        self.nodes: list[Node] = []
        signature = exported.graph_signature
        targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.tensors = {name: (target, exported.state_dict[target]) for name, target in targets.items()}
        self.handlers = {
            aten.linear.default: self.linear,
            aten.gru.input: partial(recurrent.gru, self),
            aten.rnn_tanh.input: partial(recurrent.rnn_tanh, self),
            aten.rnn_relu.input: partial(recurrent.rnn_relu, self),
            aten.lstm.input: partial(recurrent.lstm, self),
            torch.ops.rindle.recurrent.default: partial(recurrent.recurrent, self),
            operator.getitem: lambda fx: self.values[fx.args[0]][fx.args[1]],
            aten.select.int: self.select,
            aten.squeeze.dim: partial(recurrent.squeeze, self),
            aten.mean.dim: self.mean,
            aten.cat.default: self.cat,
            aten.embedding.default: self.embedding,
            aten.transpose.int: self.transpose,
            aten.t.default: self.transpose,
            aten.stack.default: partial(recurrent.stack, self),
            aten.slice.Tensor: self.slice,
            aten.sym_size.int: lambda fx: None,  # of a dynamic batch; only zeros are made of it
            aten.zeros.default: lambda fx: recurrent.ZEROS,
            aten.dropout.default: self.same,
            aten.clone.default: self.same,
            aten.contiguous.default: self.same,
        }

    def run(self, layout: str) -> Graph:
        self.values: dict = {}
        inputs = [fx for fx in self.exported.graph.nodes if fx.op == "placeholder" and fx.name not in self.tensors]
        users = set(self.exported.graph_signature.user_inputs)
        inputs = [fx for fx in inputs if fx.name in users]
        if len(inputs) != 1:
            raise Refused(f"the model takes {len(inputs)} tensors; it must take one sequence")
        example = inputs[0].meta["val"]
        self.ids, self.vocabulary = not example.dtype.is_floating_point, 0
        if len(example.shape) != (2 if self.ids else 3):
            wanted = "2, for ids: [B, T] or [T, B]" if self.ids else "3: [B, T, I] or [T, B, I]"
            shape = tuple(example.shape)
            raise Refused(f"the model's input has {len(shape)} dimensions {shape}; it must have {wanted}")
        self.input_size = 1 if self.ids else int(example.shape[2])
        self.values[inputs[0]] = Value(INPUT, layout)
        (output,) = (fx for fx in self.exported.graph.nodes if fx.op == "output")
        needed = self._needed(output)
        for fx in self.exported.graph.nodes:
            if fx.op == "call_function" and fx in needed:
                self.values[fx] = self._call(fx)
        results = [self.values[fx] if fx in self.values else fx for fx in output.args[0]]
        if not isinstance(results[0], Value) or not all(
            state is None or isinstance(state, recurrent.Finals) for state in results[1:]
        ):
            raise Refused("the model must return one tensor, or one and the final states of a recurrent layer")
        if results[0].layout not in (layout, VECTOR):
            raise Refused(f"the output is laid out {results[0].layout}, but the input {layout}")
        nodes = self._live(results[0].node)
        if all(node.kind != "program" for node in nodes):
            raise Refused("the model has no recurrent or Linear layer; there is nothing to quantize")
        return Graph(self.input_size, nodes, results[0].node, self.vocabulary)

    def _live(self, output: str) -> tuple[Node, ...]:
        """The nodes that the output depends on: a layer whose final states alone are used needs no joined output."""
        needed = {output}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.sources)
        return tuple(node for node in self.nodes if node.name in needed)

    def _needed(self, output) -> set:
        needed, queue = set(), [output]
        while queue:
            fx = queue.pop()
            for source in fx.all_input_nodes:
                if source not in needed:
                    needed.add(source)
                    queue.append(source)
        return needed

    def _call(self, fx):
        handler = self.handlers.get(fx.target)
        if handler is None:
            raise self.refuse(fx, "is not supported")
        return handler(fx)

    def refuse(self, fx, why: str) -> Refused:
        path = self.path(fx)
        where = f"in the module {path!r}" if path else "in the model's forward"
        return Refused(f"{fx.target} {where} {why}")

    @staticmethod
    def path(fx) -> str:
        stack = list((fx.meta.get("nn_module_stack") or {}).values())
        return stack[-1][0] if stack else ""

    def _name(self, wanted: str) -> str:
        taken = {INPUT, *(node.name for node in self.nodes)}
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}#{number}", number + 1
        return name

    def parameter(self, fx, argument) -> torch.Tensor | None:
        if argument is None:
            return None
        if argument.name not in self.tensors:
            raise self.refuse(fx, f"computes its weight {argument.name!r}; weights must be parameters or buffers")
        name, tensor = self.tensors[argument.name]
        if not torch.isfinite(tensor).all():
            raise RindleError(f"the parameter {name!r} holds NaN or infinity; a trained model has finite weights")
        return tensor.detach().to(torch.float32)

    def _value(self, fx, index: int = 0) -> Value:
        value = self.values.get(fx.args[index])
        if not isinstance(value, Value):
            raise self.refuse(fx, "reads something that is not a sequence or a vector of features")
        if self.ids and value.node == INPUT:
            raise self.refuse(fx, "reads the model's input, which is ids; only an Embedding can")
        return value

    def add(self, name: str, kind: str, source, layer=None, **more) -> str:
        """A node, under this name or the nearest free one."""
        self.nodes.append(Node(self._name(name), kind, source, layer, **more))
        return self.nodes[-1].name

    def program(self, name: str, source: str, cell: Cell, parameters: dict, reverse: bool = False, **sizes: int) -> str:
        program = cell.program.with_sizes(**sizes)
        layer = FloatLayer(program, blocks_of(cell, parameters, program))
        return self.add(name, "program", source, layer, reverse=reverse)

    # -- operations

    def linear(self, fx):
        value = self._value(fx)
        weight, bias = self.parameter(fx, fx.args[1]), self.parameter(fx, fx.args[2] if len(fx.args) > 2 else None)
        name = self.path(fx) or fx.name
        rows, columns = weight.shape
        return Value(
            self.program(name, value.node, linear, {"weight": weight, "bias": bias}, I=columns, O=rows), value.layout
        )

    def sequence(self, fx, batch_first: bool) -> Value:
        value, layout = self._value(fx), BATCH_TIME if batch_first else TIME_BATCH
        if value.layout == VECTOR:
            raise self.refuse(fx, "gets a vector, not a sequence")
        if value.layout != layout:
            raise self.refuse(fx, f"takes a sequence laid out {layout}, but gets {value.layout}; check batch_first")
        return value

    def _time(self, fx, value: Value, dim: int) -> bool:
        rank = 2 if value.layout == VECTOR else 3
        return value.layout != VECTOR and dim % rank == (1 if value.layout == BATCH_TIME else 0)

    def select(self, fx):
        source, dim, index = self.values.get(fx.args[0]), *fx.args[1:3]
        if isinstance(source, recurrent.Finals) and dim == 0:
            return recurrent.final(self, source.nodes[index])
        value = self._value(fx)
        if not self._time(fx, value, dim) or index not in (0, -1):
            raise self.refuse(
                fx,
                f"selects index {index} of dimension {dim}; only the last frame, index -1 of the time, and the first, "
                f"index 0, are supported",
            )
        return self.pick(value.node, "last" if index else "first")

    def slice(self, fx):
        _, *rest = fx.args
        dim, start, end, step = (*rest, *(0, 0, None, 1)[len(rest) :])
        if start or step != 1 or (end is not None and end < sys.maxsize):
            raise self.refuse(fx, f"takes {start}:{end} of dimension {dim}; a part of a sequence is not supported")
        return self.values[fx.args[0]]

    def pick(self, source: str, kind: str) -> Value:
        for node in self.nodes:
            if node.kind == kind and node.source == source:
                return Value(node.name, VECTOR)
        return Value(self.add(f"{source}.{kind}", kind, source), VECTOR)

    def mean(self, fx):
        value, dims = self._value(fx), fx.args[1]
        keep = len(fx.args) > 2 and fx.args[2]
        if keep or len(dims) != 1 or not self._time(fx, value, dims[0]):
            raise self.refuse(
                fx, f"is over the dimensions {list(dims)}; only the mean over time, without keepdim, is supported"
            )
        return Value(self.add(f"{value.node}.mean", "mean", value.node), VECTOR)

    def cat(self, fx):
        parts, dim = [self.values.get(part) for part in fx.args[0]], fx.args[1] if len(fx.args) > 1 else 0
        if not all(isinstance(part, Value) for part in parts) or len({part.layout for part in parts}) != 1:
            raise self.refuse(fx, "joins values that are not all sequences, or all vectors, of features")
        if self.ids and any(part.node == INPUT for part in parts):
            raise self.refuse(fx, "reads the model's input, which is ids; only an Embedding can")
        rank = 2 if parts[0].layout == VECTOR else 3
        if dim % rank != rank - 1:
            raise self.refuse(
                fx, f"is along dimension {dim}; only features can be concatenated, along dimension {rank - 1}"
            )
        if len(parts) == 1:
            return parts[0]
        name = f"{self.path(fx) or 'forward'}.concat"
        return Value(self.add(name, "concat", tuple(part.node for part in parts)), parts[0].layout)

    def embedding(self, fx):
        value, weight = self.values.get(fx.args[1]), self.parameter(fx, fx.args[0])
        if not (isinstance(value, Value) and self.ids and value.node == INPUT):
            raise self.refuse(
                fx, "reads something that is not the model's input; only ids of the input can be looked up"
            )
        if self.vocabulary not in (0, len(weight)):
            raise self.refuse(fx, f"has {len(weight)} rows, but another Embedding {self.vocabulary}; they must agree")
        self.vocabulary = len(weight)
        name = self.path(fx) or "embedding"
        return Value(self.add(name, "embedding", INPUT, table=Embedding(weight)), value.layout)

    def transpose(self, fx):
        value, dims = self.values.get(fx.args[0]), {dim % 3 for dim in fx.args[1:]}
        if self.ids and isinstance(value, Value) and value.node == INPUT:
            dims = {0, 1}  # there are no others
        else:
            value = self._value(fx)
        if value.layout == VECTOR or dims != {0, 1}:
            raise self.refuse(fx, "is supported only between batch and time")
        return Value(value.node, TIME_BATCH if value.layout == BATCH_TIME else BATCH_TIME)

    def same(self, fx):
        if fx.target is aten.dropout.default and fx.args[2]:
            raise self.refuse(fx, "is active; call model.eval() or make it depend on self.training")
        return self.values[fx.args[0]]
