"""From a float graph, a scheme and data to a plan: every path's format, every weight's scale."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ...errors import RindleError, RindleWarning
from ...numbers.formats import FRAC_LIMIT, MIN_STEP, Format, integer, weight_format
from ...numbers.tables import TableRule
from ...program.graph import Graph
from ...program.nodes import INPUT, ProgramNode
from ...program.program import Program, TermKey, check_integer, refuse_planes
from ...scheme import rezk as presets
from ...scheme.paths import bounds_of, keys_of, saturating
from ...scheme.quantizers import QUANTIZERS
from ...scheme.rules import Rule, fitting, resolve
from ..numerics import Real, in_double, run_real, values_of
from .groups import Group, groups, kept, readable, row_of
from .histogram import Histogram
from .lower import lower
from .median import WORD, Medians, median_of
from .origins import agree, origin_format, readers
from .wide import Held, collect, widened

KEPT = 3  # calibration sequences that go into the golden vector
ROUNDING = 1 + 1e-6  # by which what is computed may pass a bound
GRID = 2.0 ** np.arange(-FRAC_LIMIT, FRAC_LIMIT + 1)


@dataclass
class LayerPlan:
    """How one layer will be converted.

    program: lowered, so that every product has one code and one weight format. formats: path -> Format, of element-wise
    paths, codes and vectors. weights: term -> (Format, steps per row or None). tables: result -> its rule, and
    accumulators: gate -> bits, where they were given. What ``nn/rounding`` chose: codes: term -> int64 [rows,
    columns], else the nearest ones; biases: gate -> real values [rows], else the layer's own.
    """

    program: Program
    formats: dict[str, Format]
    weights: dict[TermKey, tuple[Format, np.ndarray | None]] = field(default_factory=dict)
    tables: dict[str, TableRule] = field(default_factory=dict)
    accumulators: dict[str, int] = field(default_factory=dict)
    codes: dict[TermKey, np.ndarray] = field(default_factory=dict)
    biases: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Plan:
    """origins: embedding -> format of its codes. samples: some calibration sequences [T, I] or [T], for the golden vector.
    histograms: (node, path) -> what was seen there: other formats can be chosen from them. seen: (node, path) -> a Sample of what
    was seen there, where a rule asks for it. held: how well the codes of such rules hold their products.
    """

    graph: Graph
    input_format: Format | None
    layers: dict[str, LayerPlan]
    rules: dict[tuple[str, str], Rule]
    origins: dict[str, Format] = field(default_factory=dict)
    samples: list[np.ndarray] = field(default_factory=list)
    batches: int = 0
    frames: int = 0
    histograms: dict[tuple[str, str], Histogram] = field(default_factory=dict, repr=False)
    seen: dict = field(default_factory=dict, repr=False)
    held: list[Held] = field(default_factory=list)


@dataclass(frozen=True)
class Given:
    """What prepared modules bring to the calibration of a whole model.

    rules: of their nodes' paths. plans: node -> LayerPlan, taken as it is. weights: node -> the term of a single gate -> (Format, steps per
    row or None), where only weights were prepared. closed: there are no other data, so that all formats must be here.
    """

    rules: dict[tuple[str, str], Rule]
    plans: dict[str, LayerPlan] = field(default_factory=dict)
    weights: dict[str, dict] = field(default_factory=dict)
    closed: bool = False
    memo: dict | None = None


class Recorder(Real):
    """float numerics that keep every path's values of one run."""

    def __init__(self, layer):
        super().__init__(layer)
        self.values: dict[str, list] = {}

    def result(self, path, value):
        self.values.setdefault(path, []).append(value)
        return value

    def begun(self, state, value):
        return value


def calibrate(
    graph: Graph, calibration, batch_first: bool, scheme, overrides=None, check=None, given: Given | None = None
) -> Plan:
    """Observes every path on the calibration data and chooses its format by the scheme's rules, unless it is given.

    check(x, y): called with a batch of every length that occurs, and one of another, and the graph's output on it.
    """
    for node in graph.programs:
        check_integer(node.layer.program, node.name)
    keys, scheme = keys_of(graph), presets.rules(scheme, graph)
    if given is None:
        rules = resolve(scheme, overrides, keys)
    else:
        others = {name: paths for name, paths in keys.items() if not any(name == node for node, _ in given.rules)}
        own = fitting(scheme, others) if isinstance(scheme, dict) else scheme
        rules = resolve(own, fitting(overrides, others), others) | given.rules
    plan, medians = Plan(graph, None, {}, rules), medians_of(graph, rules)
    histograms, exact = plan.histograms, in_double(graph)
    lengths: set[int] = set()
    for group in groups(readable(graph, calibration, batch_first), kept(graph)):
        output = _observe(exact, group, plan, medians)
        for number, batch in group.batches.items():
            time = batch.shape[1]
            if check is not None and time not in lengths:
                x = torch.from_numpy(batch)
                check(x, group.part(output, number))
                if not lengths and time > graph.least_frames:  # what export has fixed to the captured length shows
                    shorter = x[:, : max(time // 2, graph.least_frames)]
                    check(shorter, _run(exact, shorter))
            lengths.add(time)
            plan.batches, plan.frames = plan.batches + 1, plan.frames + len(batch) * time
            plan.samples += list(batch[: KEPT - len(plan.samples)])
    for table in graph.embeddings:  # all rows, so that no id is beyond a wide format
        histograms[table.name, ""] = histogram = Histogram()
        histogram.add(table.rows)
    choose(plan, given)
    return plan


def replan(plan: Plan, rules: dict[tuple[str, str], Rule], memo: dict | None = None) -> Plan:
    """The plan that other rules give on what was observed. rules: those that change. memo: as ``plan_weights``."""
    changed, given = (
        replace(plan, input_format=None, layers={}, rules=plan.rules | rules, origins={}),
        Given({}, memo=memo),
    )
    choose(changed, given)
    return changed


def choose(plan: Plan, given: Given | None = None) -> None:
    """Every format, from what the plan's histograms and samples have seen."""
    choose_layers(plan, given)
    choose_origins(plan, plan.histograms, given)


def choose_layers(plan: Plan, given: Given | None = None) -> None:
    """Every layer's formats, codes that need more bits included."""
    choose_formats(plan, plan.histograms, given)
    if widen(plan, given):
        choose_formats(plan, plan.histograms, given)


def widen(plan: Plan, given: Given | None = None) -> bool:
    """Gives the codes that do not hold their products more bits, in the plan's rules. Returns whether there were any."""
    changed, plan.held = {}, []
    for node in plan.graph.programs:
        if given is None or node.name not in given.plans:
            rules, held = widened(node.name, node.layer, plan.layers[node.name], plan.rules, plan.seen)
            changed |= rules
            plan.held += held
    plan.rules = plan.rules | changed
    return bool(changed)


def choose_formats(plan: Plan, histograms: dict, given: Given | None = None) -> None:
    """Every layer's formats, from what was observed. The model's input and embeddings have wide ones, see choose_origins."""
    graph, rules, given = plan.graph, plan.rules, given or Given({})

    def choose(name: str, path: str) -> Format:
        if name in given.plans:
            return given.plans[name].formats[path]
        return _Formats(graph.node(name), rules, histograms).element(path)

    forced = agree(graph, rules, choose, lambda origin: _observed(origin, histograms, given))
    formats_of: dict[str, Format | None] = {INPUT: forced.get((INPUT, ""))}
    for node in graph.nodes:
        if isinstance(node, ProgramNode):
            sources = dict(zip(node.layer.program.inputs, (formats_of[source] for source in node.sources)))
            if node.name in given.plans:
                one = _given_layer(node.name, given.plans[node.name], sources, forced)
            elif given.closed:
                raise RindleError(f"{node.name} was not prepared, so its formats need data; give calibration=")
            else:
                one = plan_layer(node, rules, histograms, sources, forced, given.weights.get(node.name), given.memo)
            plan.layers[node.name] = one
            formats_of[node.name] = one.formats.get(one.program.output)
        else:
            formats_of[node.name] = formats_of[node.source] if node.keeps_format else forced.get((node.name, ""))
    plan.origins = {origin: fmt for (origin, path), fmt in forced.items() if not path}


def choose_origins(plan: Plan, histograms: dict, given: Given | None = None) -> None:
    """The formats of the model's input and of embeddings, which their readers decide."""
    graph, rules, given = plan.graph, plan.rules, given or Given({})
    forced, plan.origins = plan.origins, {}
    for origin in (() if graph.vocabulary else (INPUT,)) + tuple(node.name for node in graph.embeddings):
        wide = forced.get(origin) or origin_format(
            graph, origin, plan.layers, rules, lambda one: _observed(one, histograms, given)
        )
        if origin == INPUT:
            plan.input_format = wide
        else:
            plan.origins[origin] = wide
        for node, path in readers(graph, origin):
            plan.layers[node.name].formats[path] = wide


def _observed(origin: str, histograms: dict, given: Given) -> Format:
    """A 16-bit format for all that an origin was seen to hold."""
    if (origin, "") not in histograms or (given.closed and origin == INPUT):
        raise RindleError(f"the format of {origin} needs data; give calibration=")
    values, counts = histograms[origin, ""].magnitudes()
    headroom = 1.25 if origin == INPUT else None  # an embedding has no other rows
    return _format(Rule("fixed", 16, method="max", parameter=headroom), values, counts, False, origin)


def _given_layer(name: str, plan: LayerPlan, sources: dict[str, Format | None], forced: dict) -> LayerPlan:
    """A copy in the place where it stands: with its sources' formats, and what a concat demands."""
    formats = dict(plan.formats)
    for path in formats:
        formats[path] = forced.get((name, plan.program.format_name(path)), formats[path])
    formats |= {path: fmt for path, fmt in sources.items() if fmt is not None}
    return replace(plan, formats=formats)


@torch.no_grad()
def _observe(graph: Graph, group: Group, plan: Plan, medians: Medians):
    """Runs a graph in float64, and adds what its paths hold, as float32, to the plan. Returns the output, frames or [rows, n]."""
    histograms = plan.histograms
    recorders = {node.name: Recorder(node.layer) for node in graph.programs}
    frames = group.frames if graph.vocabulary else [frame.double() for frame in group.frames]
    values = values_of(graph, recorders, frames)
    observed = {name: dict(recorder.values) for name, recorder in recorders.items()}
    for node in graph.programs:
        for source, path in zip(node.sources, node.layer.program.inputs):
            observed[node.name][path] = values[source] if isinstance(values[source], list) else [values[source]]
    for node in graph.programs:
        program = node.layer.program
        for path, frames in observed[node.name].items():
            together = torch.cat(frames).float()
            if not torch.isfinite(together).all():
                number, where = _first_infinite(group, observed)
                raise RindleError(f"{where} becomes NaN or infinite on calibration batch {number}")
            histograms.setdefault((node.name, program.format_name(path)), Histogram()).add(together)
        medians.add(node.name, program, observed[node.name], histograms)
        collect(plan.seen, plan.rules, node.name, program, observed[node.name])
        for state, begins in node.layer.initial.items():
            histograms.setdefault((node.name, state), Histogram()).add(begins.float()[None])
    if not graph.vocabulary:
        histograms.setdefault((INPUT, ""), Histogram()).add(torch.cat(group.frames))
    return values[graph.output]


def _first_infinite(group: Group, observed: dict[str, dict[str, list]]) -> tuple[int, str]:
    """The first batch of which a row is not finite in some path, and the first such path there."""
    found: dict[int, str] = {}
    for name, paths in observed.items():
        for path, frames in paths.items():
            wrong = row_of(frames)[~torch.cat(frames).float().isfinite().all(1)]
            for number, places in group.places.items():
                if np.isin(places, wrong).any():
                    found.setdefault(number, f"{name}/{path}")
    return min(found.items())


@torch.no_grad()
def _run(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    """A graph in float64, on [B, T, I] or ids."""
    x = x if graph.vocabulary else x.double()
    return run_real(graph, {node.name: Real(node.layer) for node in graph.programs}, x)[0]


class _Formats:
    """Chooses formats for the paths of one layer."""

    def __init__(self, node, rules: dict, histograms: dict):
        self.name, self.program = node.name, node.layer.program
        self.rules, self.histograms = rules, histograms
        self.tables = _tables(node, rules)
        self.bounds, self.saturating = self._bounds(), saturating(self.program, self.tables)

    def _bounds(self) -> dict[str, float]:
        """Of paths, whatever the data: from zero states, or from the initial ones that calibration saw."""
        known, seen = bounds_of(self.program), {}
        for state, _ in self.program.states:
            histogram = self.histograms.get((self.name, state))
            if histogram is not None and histogram.largest > known.get(state, np.inf) * ROUNDING:
                seen[state] = histogram.largest
        return bounds_of(self.program, seen) if seen else known

    def element(self, path: str) -> Format:
        """Of an element-wise path, by its rule."""
        return self._choose(path, self.rules[self.name, path], False)

    def code(self, gate: str, source: str) -> Format:
        """Of the code that a block of a matrix multiplies."""
        return self._choose(source, self.rules[self.name, f"code.{gate}.{source}"], True)

    def _choose(self, path: str, rule: Rule, product: bool) -> Format:
        path = self.program.format_name(path)
        if rule.frac is not None:
            return Format(rule.bits, frac=rule.frac, product=product)
        histogram, where = self.histograms.get((self.name, path)), f"{self.name}/{path}"
        if not product and rule.method == "max" and path in self.bounds:
            # 16 bits are enough for all that can ever come
            return _format(replace(rule, parameter=None), np.array([self.bounds[path]]), None, product, where)
        if WORD in rule.modifiers:
            return _format_of(rule, median_of(rule, histogram, product, where), histogram.largest, product, where)
        return _format(rule, *self._within(path, rule, product, histogram), product, where)

    def step(self, path: str, rule: Rule, product: bool, histogram: Histogram) -> float:
        """Of a part of the data alone."""
        return _step(rule, *self._within(path, rule, product, histogram))

    def _within(self, path: str, rule: Rule, product: bool, histogram: Histogram | None):
        """(|v|, counts), up to where a path's values can matter."""
        values, counts = histogram.magnitudes() if histogram else (np.zeros(1), np.ones(1))
        limit = min(self.bounds.get(path, np.inf), np.inf if product else self.saturating.get(path, np.inf))
        return np.minimum(values, limit / (rule.parameter or 1.0) if rule.method == "max" else limit), counts


def medians_of(graph: Graph, rules: dict) -> Medians:
    """What the rules want of every calibration sequence by itself."""
    return Medians(graph.programs, rules, {node.name: _Formats(node, rules, {}).step for node in graph.programs})


def _tables(node, rules: dict) -> dict[str, TableRule]:
    """Result -> the rule of its table, where one was given. RindleError where it does not suit the function."""
    found = {}
    for op in node.layer.program.ops:
        if (node.name, f"table.{op.out[0]}") in rules:
            found[op.out[0]] = rule = rules[node.name, f"table.{op.out[0]}"]
            rule.check(op.function, f"{node.name}/{op.out[0]}")
    return found


def plan_layer(
    node, rules, histograms, sources: dict[str, Format | None], forced: dict, given: dict | None = None, memo=None
) -> LayerPlan:
    """sources: input path -> format, None while it is open, of an origin. forced: (node, path) -> format. given, memo: as
    ``plan_weights``.
    """
    program, blocks = node.layer.program, node.layer.blocks
    choose = _Formats(node, rules, histograms)
    formats: dict[str, Format] = {}
    for path in program.paths:
        if (node.name, path) in rules:
            formats[path] = forced.get((node.name, path)) or choose.element(path)
    formats |= {path: fmt for path, fmt in sources.items() if fmt is not None}
    for path in program.vectors:
        values = blocks[path].abs().double().numpy()
        formats[path] = _format(rules[node.name, path], values, None, False, f"{node.name}/{path}")
    codes = {block: choose.code(*block) for block in program.blocks}
    weight_rules = {pair: rules[node.name, "weight.{}.{}".format(*pair)] for pair in program.blocks}
    lowered, code_formats = lower(program, codes, weight_rules)
    formats |= code_formats
    for op in lowered.ops:
        for path in op.out:
            if op.kind == "clip":
                formats[path] = formats[op.args[0]]
            elif path not in formats:
                formats[path] = formats[program.format_name(path)]
    accumulators = {
        gate: rules[key].bits
        for op in program.affines
        for gate in op.out
        if (key := (node.name, f"accumulator.{gate}")) in rules
    }
    weights = plan_weights(node.name, lowered, blocks, weight_rules, given, memo)
    return LayerPlan(lowered, formats, weights, choose.tables, accumulators)


def plan_weights(
    name: str, lowered: Program, blocks: dict, rules: dict, given: dict | None = None, memo: dict | None = None
) -> dict:
    """Term -> (Format, steps per row or None). rules: block -> its own; given: the term of a single gate -> such a pair.
    memo: of the same blocks, what was chosen before; it is read and added to.
    """
    weights, memo = {}, {} if memo is None else memo
    for term in lowered.terms:
        if given is not None:
            parts = [given[term.key.of(gate)] for gate in term.gates]
            fmt, steps = parts[0]
            weights[term.key] = fmt, None if steps is None else np.concatenate([steps for _, steps in parts])
            continue
        refuse_planes([term.key], name, "whose formats no rule chooses")
        rule = rules[term.gates[0], term.source]
        key = name, term.key, rule
        if key not in memo:
            matrix = torch.cat([blocks[f"{gate}.{term.source}"] for gate in term.gates])
            values = matrix.detach().cpu().double().numpy()
            memo[key] = _weight_format(rule, values, f"{name}/weight.{term.key}")
        weights[term.key] = memo[key]
    return weights


def _format(rule: Rule, values: np.ndarray, counts, product: bool, where: str) -> Format:
    """values: |v| [N]."""
    if rule.frac is not None:
        return Format(rule.bits, frac=rule.frac, product=product)
    return _format_of(rule, _step(rule, values, counts), values.max(), product, where)


def _step(rule: Rule, values: np.ndarray, counts) -> float:
    grid = GRID if rule.kind == "fixed" else None
    (step,) = QUANTIZERS[rule.method].step(values[None], counts, rule.level_set, grid, rule.parameter)
    return float(step)


def _format_of(rule: Rule, step: float, largest: float, product: bool, where: str) -> Format:
    """largest: of |v|. A step of 0 is that of a path of zeros."""
    if not step > 0:
        warnings.warn(
            f"{where} is 0 throughout the calibration data; its scale is set to 1", RindleWarning, stacklevel=2
        )
        step = 1.0
    if not MIN_STEP <= step <= 1 / MIN_STEP:
        raise RindleError(
            f"{where} reaches {largest:.3g}: its scale would be {step:.3g}, outside 2^-64..2^64; rescale the data"
        )
    if rule.kind == "int":
        return integer(rule.bits, step)
    return Format(rule.bits, frac=int(-np.log2(step)), product=product)


def _weight_format(rule: Rule, matrix: np.ndarray, where: str) -> tuple[Format, np.ndarray | None]:
    """int: a step per row. fixed: one number of fraction bits for the matrix."""
    magnitude = np.abs(matrix)
    if rule.kind == "fixed":
        return _format(rule, magnitude.ravel(), None, True, where), None
    steps = QUANTIZERS[rule.method].step(magnitude, None, rule.level_set, None, rule.parameter)
    steps = np.asarray(steps, np.float32)
    empty, of_zeros = ~(steps > 0), 1.0 if rule.level_set.has_zero else MIN_STEP  # whatever the levels, next to nothing
    if empty.any():
        warnings.warn(
            f"{where} has {empty.sum()} rows of zeros, the first is {int(np.argmax(empty))}; their scale is set to {of_zeros:.3g}",
            RindleWarning,
            stacklevel=2,
        )
        steps[empty] = of_zeros
    return weight_format(rule.bits, rule.levels), steps
