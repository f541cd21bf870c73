"""What a model asks of hardware: every format with its reason, exact accumulator widths, multipliers or shifts, tables, memory.

All of it follows from the artifact; a reason from the scheme and overrides of its provenance, and from what is known
without data (``paths``). Nothing here is an estimate of area, energy or time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import RindleError
from ..file.artifact import Artifact
from ..numbers import bounds
from ..numbers.bounds import signed_bits
from ..numbers.formats import Format
from ..program.nodes import INPUT
from ..program.products import terms_of
from ..scheme.paths import bounds_of, keys_of, origin_of, saturating
from ..scheme.rules import Rule, resolve

UNKNOWN = "not recorded in the file"


@dataclass(frozen=True)
class Choice:
    """One format. name: "node/path". reach: the largest magnitude it can hold. rule: as the scheme says it, "" without one."""

    name: str
    size: int
    format: str
    reach: float
    rule: str
    reason: str


@dataclass(frozen=True)
class ProductNeeds:
    """One matrix on one code. reach: Σ|w|·max|x| of its worst row, exact from the codes; accumulator: signed bits for it.

    multiplier: bits of the largest M of (7); 0 where all are powers of two, so that shifts do.
    """

    name: str
    rows: int
    columns: int
    weight: str
    code: str
    rule: str
    reach: int
    row: int
    accumulator: int
    multiplier: int


@dataclass(frozen=True)
class SumNeeds:
    """One affine behind its accumulators: Σ M·acc + b + R of (7). bits: signed, for its worst row. bias: signed bits of b."""

    name: str
    terms: int
    rows: int
    bits: int
    bias: int
    shift: int


@dataclass(frozen=True)
class TableNeeds:
    """One stored table. form: "linear" or "direct". reach: |x| covered by its segments. bits: of base and slope together."""

    function: str
    form: str
    segments: int
    reach: float
    bits: int
    max_error: float
    used_by: tuple[str, ...]


@dataclass(frozen=True)
class Hardware:
    """elementwise: "node/path" -> signed bits of the widest sum before its shift, from the formats (15). memory: what -> bits,
    packed without padding. shifts_only: no multiplication but weight by code and path by path.
    """

    shifts_only: bool
    choices: tuple[Choice, ...]
    products: tuple[ProductNeeds, ...]
    sums: tuple[SumNeeds, ...]
    elementwise: dict[str, int]
    tables: tuple[TableNeeds, ...]
    memory: dict[str, int]

    @property
    def accumulator(self) -> int:
        """The widest one needed, in bits."""
        return max((one.accumulator for one in self.products), default=0)


def hardware(artifact: Artifact) -> Hardware:
    """Reads an artifact as a guideline for a circuit."""
    rules, graph = _rules(artifact), artifact.graph
    choices, sums, elementwise, rescaled = [], [], {}, []
    products = tuple(_products(graph, rules))
    if artifact.input_format is not None:
        choices.append(_origin(INPUT, graph.input_size, artifact.input_format))
    for table in graph.embeddings:
        choices.append(_origin(table.name, table.rows.shape[1], table.format))
    for node in graph.programs:
        layer = node.layer
        choices += _choices(graph, node, rules, artifact.provenance)
        for op in layer.program.ops:
            constant, name = layer.constants.get(op.out[0]), f"{node.name}/{op.out[0]}"
            if op.kind == "affine":
                sums.append(_sum(node, op, constant))
            elif op.kind == "requantize":
                rescaled.append(_multiplier(np.array([constant.multiplier])))
            elif op.kind not in ("table", "clip"):
                operands = tuple(layer.formats[path] for path in op.args)
                elementwise[name] = signed_bits(bounds.elementwise(op.kind, operands, layer.formats[op.out[0]]))
    shifts = not any(one.multiplier for one in products) and not any(rescaled)
    tables = _tables(graph)
    memory = _memory(graph, products, sums, tables)
    return Hardware(shifts, tuple(choices), products, tuple(sums), elementwise, tables, memory)


# -------------------------------------------------------------------------------------------------------- formats


def _rules(artifact: Artifact) -> dict[tuple[str, str], Rule]:
    """Those that made the file, from its provenance; none where it does not say, or no longer can."""
    about = artifact.provenance
    try:
        return resolve(about["scheme"], about.get("overrides") or None, keys_of(artifact.graph))
    except (KeyError, RindleError):
        return {}


def _origin(name: str, size: int, fmt: Format) -> Choice:
    reason = "narrow: all its readers are products that use this format"
    if not fmt.product:
        reason = "16 bits: its readers need more than one narrow code of it"
    return Choice(name, size, str(fmt), fmt.hi * fmt.scale, "", reason)


def _choices(graph, node, rules: dict, provenance: dict):
    """Of the paths, codes and vectors of one layer, in program order."""
    layer, program = node.layer, node.layer.program
    tables = {op.out[0]: rules[key] for op in program.ops if (key := (node.name, f"table.{op.out[0]}")) in rules}
    begins = {state: float(np.abs(codes).max()) * layer.formats[state].scale for state, codes in layer.initial.items()}
    known_bounds, flat = bounds_of(program, begins), saturating(program, tables)
    sources = dict(zip(program.inputs, node.sources))
    codes = {term.code: (term.gates[0], term.source) for op in program.affines for term in op.terms}
    clipped = {op.out[0]: op.args[0] for op in program.ops if op.kind == "clip"}
    for path in dict.fromkeys((*program.paths, *program.vectors, *program.codes)):
        fmt, rule = layer.formats[path], None
        if path in sources:
            reason = f"that of {sources[path]}, which it reads"
            rule = rules.get((node.name, path)) if origin_of(graph, sources[path]) else None
        elif path in clipped:
            reason = f"that of {clipped[path]}, which it clips"
        else:
            key = path if path not in codes else "code.{}.{}".format(*codes[path])
            rule = rules.get((node.name, key))
            known = {"bound": known_bounds.get(path), "flat": flat.get(path)} if path not in codes else {}
            reason = (
                UNKNOWN
                if rule is None
                else _reason(rule, fmt, known, path in program.vectors, "prepared" in provenance)
            )
        yield Choice(f"{node.name}/{path}", program.sizes[path], str(fmt), fmt.hi * fmt.scale, str(rule or ""), reason)


def _reason(rule: Rule, fmt: Format, known: dict, constant: bool, learned: bool) -> str:
    """Why calibration gives this format by this rule. known: what holds of the path without data, None where nothing does."""
    if rule.frac is not None:
        return "given"
    if learned and not fmt.is_fixed:
        return "learned in training, from where calibration began"
    if rule.bits != fmt.bits:
        return "shared with what it is joined with"
    seen = "its values" if constant else "observed"
    bound, flat = known.get("bound"), known.get("flat")
    if rule.method != "max":
        limit = "" if bound is None else f", its bound {bound:g} at most"
        return f"{rule.method} over what was {seen}{limit}" if not constant else f"{rule.method} of {seen}"
    if bound is not None:
        same = fmt.frac == _cover(bound, fmt)
        return f"bound known: |v| ≤ {bound:g}" if same else f"shared with what it is joined with (bound {bound:g})"
    if flat is not None and fmt.frac == _cover(flat, fmt):
        return f"only tables read it, flat beyond {flat:g}"
    reach = (fmt.hi + 1) * fmt.scale
    margin = "" if rule.parameter is None else f" with {rule.parameter:g} x headroom"
    inside = f" in ({reach / 2:g}, {reach:g}]" if fmt.is_fixed else f" up to {fmt.hi * fmt.scale:.4g}"
    return f"covers {seen}{margin},{inside}"


def _cover(limit: float, fmt: Format) -> int:
    """Fraction bits with which a fixed format of these bits just covers a limit, to within one code."""
    return int(np.floor(np.log2((fmt.hi + 1) / limit)))


# ------------------------------------------------------------------------------------------- products, sums, tables


def _multiplier(m: np.ndarray) -> int:
    """Bits of the largest, 0 where all are powers of two or none."""
    return 0 if not (m & (m - 1)).any() else int(m.max()).bit_length()


def _products(graph, rules: dict):
    for one in terms_of(graph):
        term, product, code = one.term, one.product, one.code_format
        reaches = bounds.accumulators(product.weight, code)
        row = int(np.argmax(reaches))
        rule = rules.get((one.node.name, f"weight.{term.gates[0]}.{term.source}"))
        weight = (
            str(product.format) if product.row_scales is None else f"{product.format.level_set.name}, a scale per row"
        )
        yield ProductNeeds(
            one.name,
            *product.weight.shape,
            weight,
            f"{term.code}: {code}",
            str(rule or UNKNOWN),
            int(reaches[row]),
            row,
            signed_bits(int(reaches[row])),
            _multiplier(product.multiplier),
        )


def _sum(node, op, constant) -> SumNeeds:
    worst = bounds.affine(op, constant, node.layer.formats, node.layer.program.sizes)
    needed = signed_bits(int(worst.max()) + bounds.rounding(constant.shift))
    bias = signed_bits(int(np.abs(constant.bias).max())) if constant.bias.any() else 0
    name = f"{node.name}/{' '.join(op.out)}"
    return SumNeeds(name, len(op.terms), len(worst), needed, bias, constant.shift)


def _tables(graph) -> tuple[TableNeeds, ...]:
    """Each once, as the file stores them."""
    users: dict[tuple, list[str]] = {}
    found = {}
    for node in graph.programs:
        for op in node.layer.program.ops:
            if op.kind == "table":
                table, x = node.layer.constants[op.out[0]], node.layer.formats[op.args[0]]
                slope = b"" if table.slope is None else table.slope.tobytes()
                key = table.function, table.p, table.q, x.frac, table.base.tobytes(), slope, table.max_error
                users.setdefault(key, []).append(f"{node.name}/{op.out[0]}")
                found[key] = table, x
    return tuple(
        TableNeeds(
            table.function,
            "linear" if table.degree else "direct",
            len(table.base),
            min((table.top + 1) * x.scale, (x.hi + 1) * x.scale),
            len(table.base) * 16 * (1 + table.degree),
            table.max_error,
            tuple(users[key]),
        )
        for key, (table, x) in found.items()
    )


def _memory(graph, products, sums, tables) -> dict[str, int]:
    states = held = vectors = 0
    for node in graph.programs:
        layer = node.layer
        sizes = {path: layer.program.sizes[path] * layer.formats[path].bits for path in layer.formats}
        states += sum(sizes[state] for state, _ in layer.program.states)
        held += sum(sizes[code] for code in layer.thetas)
        vectors += sum(sizes[vector] for vector in layer.program.vectors)
    return {
        "weights": sum(one.bits for one in terms_of(graph)),
        "embeddings": sum(node.rows.size * node.format.bits for node in graph.embeddings),
        "biases": sum(one.rows * one.bias for one in sums),
        "multipliers": sum(one.rows * one.multiplier for one in products),
        "constant vectors": vectors,
        "tables": sum(one.bits for one in tables),
        "states": states,
        "held inputs": held,
    }
