"""quantize_dynamic: torch.ao's call, for the recurrent layers that it leaves behind. No calibration.

The product W·x of a first layer runs in float, outside the promise of equal bits: x is scaled per frame and row, max|x|/127, its
codes meet the weights' in exact sums, and the result enters the integers as fixed(16,11), one path per gate. All behind that is
integer: h has a known bound, and so a static code; layers above the first read an h, and so have static codes, too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches

import numpy as np
import torch
from torch import nn

from ...engines.model import Model
from ...errors import RindleError
from ...numbers.formats import encode
from ...program.graph import INPUT, Graph, Node
from ...program.program import Op, Program
from ...scheme.paths import bounds_of, keys_of
from ...scheme.quantizers import QUANTIZERS
from ...scheme.rules import Rule, special
from ..calibrate.histogram import Histogram
from ..calibrate.plan import Plan, choose_formats, choose_origins
from ..capture.stacks import RECURRENT, STACKS, Stack, kind_of, stack_of, take, walk
from ..conversion.convert import convert
from ..modules import Recurrent
from ..numerics import FloatLayer
from .drop_in import IntegerRecurrent, IntegerRNN

BITS = {torch.qint8: 8, torch.float16: 16}
OPEN = Rule("fixed", 16, 11)  # pre-activations, cell states: ±16
CALIBRATED = "rindle.quantize or rindle.prepare"


def quantize_dynamic(
    model: nn.Module, qconfig_spec=None, dtype=torch.qint8, mapping=None, inplace: bool = False
) -> nn.Module:
    """Replaces recurrent (and linear) modules by ones with integer weights, as ``torch.ao.quantization.quantize_dynamic`` does.

    qconfig_spec: a set of module types or names of modules; None: every recurrent type and nn.Linear. Types: nn.LSTM, nn.GRU,
        nn.RNN (tanh), their cells, :class:`rindle.Recurrent` of a cell whose h has a bound, nn.Linear.
    dtype: torch.qint8, or torch.float16: here 16-bit integer weights and codes of h, and x in float.
    mapping: must be None; it is there for torch.ao's sake. inplace: changes the model itself.

    Returns the model in evaluation mode; each replaced recurrent module is of integers behind W·x (``nn/drop_in.py``), its
    ``saturations`` say where fixed(16,11) was too narrow. Raises RindleError for what cannot be replaced, with the reason.
    """
    if not isinstance(model, nn.Module):
        raise RindleError(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
    if dtype not in BITS:
        raise RindleError(f"dtype is {dtype}; quantize_dynamic knows torch.qint8 and torch.float16")
    if mapping is not None:
        raise RindleError("mapping is given; Rindle has one module for each, leave it None")
    paths = _chosen(model, qconfig_spec)
    made = {
        path: _replacement(model.get_submodule(path), path, BITS[dtype]) for path in paths
    }  # all, or an error and none
    if "" in made:
        return made[""]
    model = model if inplace else copy.deepcopy(model)
    for path, module in made.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, module)
    return model.eval()


def _chosen(model: nn.Module, spec) -> list[str]:
    """Paths of the modules to replace."""
    if spec is None:
        spec = set(STACKS)
    if isinstance(spec, (dict, str)) or not isinstance(spec, Iterable):
        raise RindleError(
            f"qconfig_spec is {spec!r}; give a set of module types or of names, or None for all that are known"
        )
    modules = dict(model.named_modules())
    types, names = [], []
    for one in spec:
        if isinstance(one, str):
            if one not in modules:
                near = get_close_matches(one, modules, 1)
                raise RindleError(f"the model has no module {one!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
            if kind_of(modules[one], one) is None:
                raise RindleError(f"{one} is a {type(modules[one]).__name__}; {_known()}")
            names.append(one)
        elif one in STACKS or (isinstance(one, type) and issubclass(one, Recurrent)):
            types.append(one)
        else:
            raise RindleError(f"qconfig_spec has {one!r}; {_known()}")
    found = [path for path, module in modules.items() if path in names or isinstance(module, tuple(types))]
    if not found:
        raise RindleError(
            f"{type(model).__name__} has none of the modules in qconfig_spec; there is nothing to quantize"
        )
    return found


def _known() -> str:
    return f"quantize_dynamic replaces {', '.join(kind.__name__ for kind in STACKS)}"


def _replacement(module: nn.Module, path: str, bits: int) -> nn.Module:
    kind = kind_of(module, path)
    if kind not in RECURRENT:
        return DynamicLinear(Product(module.weight, module.bias, bits))
    stack = stack_of(module, path)
    graph, product = _graph(stack, path, module, bits)
    rules, histograms = _bounded(graph, bits)
    plan = Plan(graph, None, {}, rules)
    choose_formats(plan, histograms)
    choose_origins(plan, histograms)
    provenance = {
        "dynamic": "W·x of the first layer is computed in float, before this model's input, which is its result"
    }
    model = Model(convert(plan, provenance))
    made = (DynamicRecurrent if kind is Recurrent else DynamicRNN)(stack, path, model)
    made.product = product
    return made


# ------------------------------------------------------------------------------------------------------ programs


def without_input(program: Program, where: str = "the cell") -> Program:
    """The program with its products of x cut out: each of its gates reads their sum, from an input of its own.

    i = W·x + U·h + b becomes i = i_h + i_x with i_h = U·h + b; a gate of x alone becomes an input, its bias with it.
    """
    if len(program.inputs) > 1:
        raise RindleError(
            f"{where} is a {program.cell}, which has several inputs ({', '.join(program.inputs)}); give calibration: {CALIBRATED}"
        )
    (x,) = program.inputs
    codes = {
        op.out[0] for op in program.ops if op.kind == "requantize" and op.args == (x,) and op.out[0] in program.codes
    }
    ops: list[Op] = []
    inputs: dict[str, str] = {}  # input path -> gate
    for op in program.ops:
        if op.out[0] in codes:
            continue
        if x in op.args:
            raise RindleError(
                f"{where} reads its input outside of products, which has no bound; give calibration: {CALIBRATED}"
            )
        own = tuple(term for term in op.terms if term.code not in codes)
        if len(own) == len(op.terms):
            ops.append(op)
        elif not own:
            inputs |= {gate: gate for gate in op.out}
        else:
            inner = {gate: f"{gate}_h" for gate in op.out}
            terms = tuple(replace(term, gates=tuple(map(inner.get, term.gates))) for term in own)
            ops.append(replace(op, out=tuple(inner.values()), terms=terms, biased=tuple(map(inner.get, op.biased))))
            for gate, name in inner.items():
                inputs[f"{gate}_x"] = gate
                ops.append(Op("add", (gate,), (name, f"{gate}_x")))
    sizes = {path: size for path, size in program.sizes.items() if path != x and path not in codes}
    for op in ops:
        sizes |= {out: program.sizes[out.removesuffix("_h")] for out in op.out if out not in sizes}
    sizes |= {path: program.sizes[gate] for path, gate in inputs.items()}
    kept = tuple(code for code in program.codes if code not in codes)
    return replace(program, inputs=tuple(inputs), ops=tuple(ops), sizes=sizes, codes=kept)


def _blocks(cut: Program, blocks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of the cell, under the names of the program without its input."""
    found = {}
    for op in cut.affines:
        for gate in op.out:
            origin = gate if gate in blocks or f"{gate}.{op.terms[0].source}" in blocks else gate.removesuffix("_h")
            found |= {f"{gate}.{t.source}": blocks[f"{origin}.{t.source}"] for t in op.terms if gate in t.gates}
            if gate in op.biased:
                found[gate] = blocks[origin]
    return found | {name: blocks[name] for name in cut.vectors}


def _graph(stack: Stack, path: str, module: nn.Module, bits: int) -> tuple[Graph, Product]:
    """The stack whose input is W·x, all gates of all directions of the first layer side by side, and what computes it."""
    whole, nodes, matrices, biases, start = stack.graph(path, module), [], [], [], 0
    first = {stack.node_name(path, direction) for direction in stack.layers[0]}
    for node in whole.nodes:
        if node.name not in first:
            nodes.append(node)
            continue
        program, blocks = node.layer.program, node.layer.blocks
        cut, sources = without_input(program, node.name), []
        for name in cut.inputs:
            gate = name.removesuffix("_x") if name not in program.sizes else name
            size = program.sizes[gate]
            matrices.append(blocks[f"{gate}.{program.inputs[0]}"])
            biases.append(blocks[gate] if name == gate and gate in blocks else torch.zeros(size))
            nodes.append(Node(f"{node.name}.{name}", "gather", INPUT, index=tuple(range(start, start + size))))
            sources.append(nodes[-1].name)
            start += size
        source = tuple(sources) if len(sources) > 1 else sources[0]
        nodes.append(replace(node, source=source, layer=FloatLayer(cut, _blocks(cut, blocks))))
    return Graph(start, tuple(nodes), whole.output), Product(torch.cat(matrices), torch.cat(biases), bits)


def _bounded(graph: Graph, bits: int) -> tuple[dict, dict]:
    """Rules for every path of the graph, and what calibration would have seen: bounds, (node, path) -> Histogram."""
    rules, histograms, outputs = {}, {}, {}
    keys = keys_of(graph)
    for node in graph.nodes:
        if node.kind == "gather":
            continue
        if node.kind == "concat":
            outputs[node.name] = max(outputs[source] for source in node.sources)
            continue
        program, known = node.layer.program, bounds(node.layer)
        if node.sources[0] in outputs:
            known[program.inputs[0]] = outputs[node.sources[0]]
        output = program.format_name(program.output)
        for source in (*(source for _, source in program.blocks), output):
            if program.format_name(source) not in known:
                raise RindleError(
                    f"{node.name} is a {program.cell}, whose {source} has no bound; give calibration: {CALIBRATED}"
                )
        for path, bound in known.items():
            histograms[node.name, path] = one = Histogram()
            one.add(torch.tensor([bound]))
        for key in keys[node.name]:
            if special(key):
                continue
            if key.startswith(("weight.", "code.")):
                rules[node.name, key] = Rule("int", bits)
            else:
                rules[node.name, key] = Rule("fixed", 16) if key in known or key in program.vectors else OPEN
        outputs[node.name] = known[output]
    return rules, histograms


def bounds(layer: FloatLayer) -> dict[str, float]:
    """Path -> its largest magnitude whatever the input: of what tables bound (``bounds_of``), and of a projection of such values,
    Σ|w| of the row where that is largest (h = W_hr·(σ(o) ⊙ tanh(c)), and |σ·tanh| ≤ 1).
    """
    program, known = layer.program, bounds_of(layer.program)
    makers = {out: op for op in program.ops for out in op.out}
    for _, path in program.states:
        through = [path]
        while makers[path].kind == "requantize":
            (path,) = makers[path].args
            through.append(path)
        terms = [term for term in makers[path].terms if path in term.gates]
        if terms and all(term.source in known for term in terms):
            rows = sum(layer.blocks[f"{path}.{t.source}"].abs().sum(1) * known[t.source] for t in terms)
            rows = rows + layer.blocks[path].abs() if path in makers[path].biased else rows
            known |= {program.format_name(one): float(rows.max()) for one in through}
    return known


# --------------------------------------------------------------------------------------------------- float nodes


class Product(nn.Module):
    """W·x + b in float with integer weights, a scale per row of W. x: [rows, I] -> [rows, outputs].

    8 bits: each row of x becomes codes, scaled by max|x|/127; their products with the weights' codes are summed exactly.
    16 bits: x stays in float.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, bits: int):
        super().__init__()
        values, hi = weight.detach().cpu().double().numpy(), 2 ** (bits - 1) - 1
        steps = np.asarray(QUANTIZERS["max"].step(np.abs(values), None, hi, None, None), np.float32)
        steps[~(steps > 0)] = 1.0
        codes = encode(values, steps[:, None].astype(np.float64), -hi, hi)
        zero = torch.zeros(len(weight))
        self.bits = bits
        self.register_buffer("weight", torch.from_numpy(codes.astype(np.int8 if bits == 8 else np.int16)))
        self.register_buffer("steps", torch.from_numpy(steps))
        self.register_buffer("bias", zero if bias is None else bias.detach().float().clone())
        self.to(weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        if self.bits == 16:
            return x @ (self.weight * self.steps[:, None]).T + self.bias
        scale = x.abs().amax(-1, keepdim=True) / 127
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        exact = torch.float32 if x.shape[-1] * 127 * 127 < 2**24 else torch.float64
        sums = (x / scale).round().to(exact) @ self.weight.to(exact).T
        return sums.float() * scale * self.steps + self.bias


class DynamicLinear(nn.Module):
    """nn.Linear with integer weights: [.., in] -> [.., out]."""

    def __init__(self, product: Product):
        super().__init__()
        self.product = product

    def forward(self, input):
        return self.product(input.reshape(-1, input.shape[-1])).reshape(*input.shape[:-1], -1).to(input)


class _Dynamic:
    """Integers behind the product W·x of their first layer."""

    def run(self, input, states=None):
        call = take(self.stack, input, states)
        rows = [len(frame) for frame in call.frames]
        x = torch.cat(call.frames)
        call.frames = list(self.product(x).to(x).split(rows))
        return walk(self.stack, call, self._direction)


class DynamicRNN(_Dynamic, IntegerRNN):
    """Of torch's: nn.LSTM, nn.GRU, nn.RNN and their cells."""


class DynamicRecurrent(_Dynamic, IntegerRecurrent):
    """Of :class:`rindle.Recurrent`."""
