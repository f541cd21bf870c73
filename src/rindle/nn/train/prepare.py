"""prepare, train, convert: quantization-aware training of the recurrent and linear modules in any ``nn.Module``."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import nn

from ...engines.model import Model
from ...errors import RindleError
from ...program.nodes import ProgramNode
from ...program.program import check_integer
from ...scheme.paths import keys_of
from ...scheme.rezk import is_preset
from ...scheme.rules import load_overrides, resolve
from ..back.drop_in import drop_in
from ..calibrate.groups import batches
from ..calibrate.lower import lower
from ..calibrate.plan import (
    Given,
    LayerPlan,
    Plan,
    calibrate,
    choose_formats,
    choose_layers,
    choose_origins,
    medians_of,
    plan_weights,
)
from ..calibrate.wide import choices
from ..capture.captured import captured_copy
from ..capture.source import source_of
from ..capture.stacks import RECURRENT, Stack, kind_of, stack_of
from ..conversion.convert import convert as integers_of
from ..conversion.convert import hash_of
from ..conversion.rounding import refuse_words
from .delta import thresholds
from .observe import Observer
from .prepared import NAME, PREPARED, Quantization, weights_by_gate

STATE = "_rindle"  # the attribute of a prepared model


@dataclass
class Preparation:
    """What a prepared model remembers. stacks: path -> Stack. example: an input of the model, if it was one tensor."""

    scheme: str | dict
    overrides: dict[str, str]
    rules: dict
    stacks: dict[str, Stack]
    activations: bool
    example: torch.Tensor | None = None
    provenance: dict = field(default_factory=dict)
    held: list = field(default_factory=list)  # calibrate.wide.Held of the codes that were looked at


def prepare(model: nn.Module, scheme="int8", calibration=None, overrides=None, activations: bool = True) -> nn.Module:
    """A copy of a model, to be trained under quantization; then :func:`convert` makes integers of it.

    model: any nn.Module. Weight norm and the like are evaluated, and registered modules replaced, as capture does. Its nn.LSTM,
        nn.GRU, nn.RNN, their cells, :class:`rindle.Recurrent` and nn.Linear compute on the codes' grid; all else stays as it is. Their forward (initial states, packed sequences, …), attributes and parameters are those of
        the origin, a float checkpoint loads into the copy, and :func:`float_state_dict` gives one back.
    scheme, overrides: as for :func:`rindle.quantize`; the layers' names are "path.l0", "path.l0_reverse" and, of a Linear, "path".
    calibration: real inputs of the model's own forward: a tensor or array, an iterable of batches (a pair counts as its first
        part, a dict as keyword arguments), or a function that is called with the model and runs it. Not needed for weights alone.
    activations: False quantizes weights alone, and torch's fused kernels run on them. What the activations cost is then seen after
        conversion.

    Steps of ``int`` formats are learned (LSQ: ``nn/lsq.py``). Formats with power-of-two scales stay as calibrated: 16-bit ones have
    resolution to spare, and a narrower one could only jump by a factor of two. Raises RindleError, also for a model
    without any such module.
    """
    if not isinstance(model, nn.Module):
        raise RindleError(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
    if hasattr(model, STATE):
        raise RindleError("the model is prepared already; train it, or convert it")
    training = model.training
    model = captured_copy(model).train(training)
    stacks = {path: stack_of(module, path) for path, module in model.named_modules() if kind_of(module, path)}
    if not any(isinstance(model.get_submodule(path), RECURRENT) for path in stacks):
        raise RindleError(f"{type(model).__name__} has no recurrent module; there is nothing to prepare")
    graphs = {path: stack.graph(path, model.get_submodule(path)) for path, stack in stacks.items()}
    for graph in graphs.values():
        for node in graph.programs:
            check_integer(node.layer.program, node.name)
    if is_preset(scheme):
        raise RindleError(
            f"the scheme {scheme!r} depends on the model's layers together, which prepare sees one by one; give its rules: "
            f"prepare(model, rindle.scheme_rules(model, {scheme!r}, example), …)"
        )
    rules = resolve(scheme, overrides, {name: ks for graph in graphs.values() for name, ks in keys_of(graph).items()})
    refuse_words(rules, "prepare trains the weights that the nearest codes are taken of")
    state = Preparation(scheme, load_overrides(overrides), rules, stacks, activations)
    state.provenance = {"class": type(model).__name__, "sha256": hash_of(model.state_dict())}
    plans = None
    if activations:
        plans, state.example = _observed(model, stacks, graphs, state, calibration)
    for path, stack in stacks.items():
        module, names = model.get_submodule(path), {d.name: stack.node_name(path, d) for d in stack.directions}
        own = None if plans is None else {direction: plans[name] for direction, name in names.items()}
        nodes = {direction: graphs[path].program(name) for direction, name in names.items()}
        formats = {d: _weights(node, rules) if own is None else own[d].weights for d, node in nodes.items()}
        device = next(module.parameters()).device
        module.add_module(NAME, Quantization(stack, formats, own).to(device).train(module.training))
        module.__class__ = PREPARED[kind_of(module, path)]
    setattr(model, STATE, state)
    return model


def _observed(
    model, stacks, graphs, state: Preparation, calibration, weights=None
) -> tuple[dict[str, LayerPlan], torch.Tensor | None]:
    """Node -> its plan, and an example of the model's input. weights: node -> the term of a single gate -> a weight format that is given.
    The rules of codes that were given more bits change in ``state``.
    """
    observer = Observer(stacks, {path: medians_of(graph, state.rules) for path, graph in graphs.items()}, state.rules)
    observer.watch(model, calibration)
    plans: dict[str, LayerPlan] = {}
    for graph in graphs.values():
        given = Given({}, weights=weights or {})
        plan = Plan(graph, None, {}, state.rules, histograms=observer.histograms, seen=observer.samples)
        choose_layers(plan, given)
        plans |= plan.layers
        state.rules, state.held = plan.rules, [*state.held, *plan.held]
    return plans, observer.example


def _weights(node: ProgramNode, rules: dict) -> dict:
    """The formats of a layer's weights, which need no data."""
    program = node.layer.program
    own = {pair: rules[node.name, "weight.{}.{}".format(*pair)] for pair in program.blocks}
    lowered, _ = lower(program, dict.fromkeys(program.blocks), own)
    return plan_weights(node.name, lowered, node.layer.blocks, own)


def float_state_dict(prepared: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a prepared model under the names of its float origin, which loads it; without the learned steps."""
    return _restored(prepared).state_dict()


def _state(prepared) -> Preparation:
    state = getattr(prepared, STATE, None)
    if not isinstance(state, Preparation):
        raise RindleError(f"{type(prepared).__name__} is not a prepared model; give what rindle.prepare returned")
    return state


def _restored(prepared: nn.Module) -> nn.Module:
    """A copy in float, of the original classes, with the weights as they are now."""
    state, model = _state(prepared), copy.deepcopy(prepared)
    for path in state.stacks:
        module = model.get_submodule(path)
        delattr(module, NAME)
        module.__class__ = next(kind for kind, own in PREPARED.items() if type(module) is own)
    delattr(model, STATE)
    return model


def convert(prepared: nn.Module, calibration=None, whole: bool = True) -> Model | nn.Module:
    """The integers of a prepared model, with the formats and steps that it has now.

    whole: True captures the whole model (see :func:`rindle.quantize` for what can be) and returns a :class:`rindle.Model`. False
        returns a copy of the model in evaluation mode, in which every prepared module has become one of integers with the same
        forward (``nn/drop_in.py``): for any control flow around them, initial states and packed sequences.
    calibration: for what was not prepared: activations where only weights were, layers that prepare does not know. With whole, as for
        :func:`rindle.quantize`; without, as for :func:`prepare`.
    """
    state, model = _state(prepared), _restored(prepared).eval()
    plans, weights = _learned(prepared, state)
    if not whole:
        return _replaced(model, state, plans, weights, calibration, thresholds(prepared))
    if not state.activations and calibration is None:
        raise RindleError("only weights were prepared, so activations need data; give calibration=")
    data = state.example if calibration is None else calibration
    if data is None:
        raise RindleError("the model's input was not one tensor; give calibration=, or convert(…, whole=False)")
    source = source_of(model)
    if not isinstance(data, (torch.Tensor, list, tuple)) and not hasattr(data, "ndim"):
        data = list(data)
    graph, batch_first = source.capture(next(iter(batches(data, True))))
    given = Given(state.rules, plans, weights, closed=calibration is None)
    plan = calibrate(graph, data, batch_first, state.scheme, state.overrides, source.check, given)
    return _with_thresholds(Model(integers_of(plan, _provenance(state, plan))), thresholds(prepared))


def _with_thresholds(model: Model, thetas: dict[str, int]) -> Model:
    """Those that training had, of this model's inputs."""
    own = {name: theta for name, theta in thetas.items() if name in model.thresholds}
    return model.with_thresholds(own) if own else model


def _provenance(state: Preparation, plan: Plan) -> dict:
    return {
        "model": state.provenance,
        "scheme": state.scheme,
        **choices([*state.held, *plan.held], state.overrides),
        "prepared": {"activations": state.activations},
        "calibration": {"batches": plan.batches, "frames": plan.frames},
    }


def _learned(prepared: nn.Module, state: Preparation) -> tuple[dict[str, LayerPlan], dict[str, dict]]:
    """Node -> its plan; or, where only weights are prepared, node -> the term of a single gate -> format and steps."""
    plans, weights = {}, {}
    for path, stack in state.stacks.items():
        module = prepared.get_submodule(path)
        for direction in stack.directions:
            name = stack.node_name(path, direction)
            quantization = getattr(module, NAME)
            if state.activations:
                plans[name] = quantization.learned(direction)
            else:
                weights[name] = weights_by_gate(direction, quantization.learned_weights(direction))
    return plans, weights


def _replaced(
    model: nn.Module, state: Preparation, plans: dict, weights: dict, calibration, thetas: dict[str, int]
) -> nn.Module:
    graphs = {path: stack.graph(path, model.get_submodule(path)) for path, stack in state.stacks.items()}
    if not state.activations:
        if calibration is None:
            raise RindleError("only weights were prepared, so activations need data; give calibration=")
        plans, _ = _observed(model, state.stacks, graphs, state, calibration, weights)
    for path, stack in state.stacks.items():
        plan = Plan(graphs[path], None, {}, state.rules)
        given = Given(state.rules, plans, closed=True)
        choose_formats(plan, {}, given)
        choose_origins(plan, {}, given)
        module = drop_in(kind_of(model.get_submodule(path), path))(
            stack, path, _with_thresholds(Model(integers_of(plan, _provenance(state, plan))), thetas)
        )
        if not path:
            return module
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, module)
    return model.eval()
