"""From a plan to integers: the last place where a float decides anything. docs/numerics.md (8a), (8b)."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...engines.golden import with_golden
from ...errors import RindleError, RindleWarning
from ...file.artifact import Artifact, Golden, Layer
from ...numbers import bounds
from ...numbers.bounds import check_elementwise
from ...numbers.codes import Affine, Product, Rescale
from ...numbers.formats import Format, encode, encode_counted, encode_input
from ...numbers.tables import DEFAULT, build
from ...program.nodes import EmbeddingNode, Node, ProgramNode
from ...program.program import check_integer, refuse_planes
from ..calibrate.plan import LayerPlan, Plan
from ..numerics import FloatLayer
from .exact_steps import with_exact_steps
from .shifts import choose_shift, fitting, stripped, too_coarse

TRIES = 4  # shifts to try in search of steps whose multipliers are exact


def convert(plan: Plan, provenance: dict) -> Artifact:
    """The artifact of a calibrated plan, golden vector included. Raises RindleError where no integers fit, with the numbers."""
    nodes = tuple(convert_node(node, plan) for node in plan.graph.nodes)
    graph = replace(plan.graph, nodes=nodes)
    artifact = Artifact(graph, plan.input_format, Golden(None, None, None), provenance)
    return with_golden(artifact, *golden_inputs(plan))


def convert_node(node: Node, plan: Plan) -> Node:
    """The node with codes for what it has as floats."""
    if isinstance(node, ProgramNode):
        return replace(node, layer=convert_layer(node.name, node.layer, plan.layers[node.name]))
    if isinstance(node, EmbeddingNode):
        fmt = plan.origins[node.name]
        rows = encode(node.rows.detach().double().numpy(), fmt.scale, -fmt.hi, fmt.hi).astype(np.int16)
        return replace(node, rows=rows, format=fmt)
    return node


def convert_layer(name: str, layer: FloatLayer, plan: LayerPlan) -> Layer:
    program, formats = plan.program, plan.formats
    check_integer(program, name)
    blocks = {block: value.detach().double().numpy() for block, value in layer.blocks.items()}
    constants: dict[str, object] = {}
    for op in program.ops:
        where = f"{name}/{op.out[0]}"
        operands = [formats[path] for path in op.args]
        result = formats[op.out[0]]
        if op.kind == "affine":
            constants[op.out[0]] = _affine(name, op, blocks, plan)
        elif op.kind == "requantize":
            constants[op.out[0]] = rescale(operands[0], result, where)
        elif op.kind == "table":
            try:
                rule = plan.tables.get(op.out[0], DEFAULT)
                constants[op.out[0]] = build(op.function, operands[0], result, rule)
            except RindleError as error:
                raise RindleError(f"{where}: {error}") from None
        elif op.kind == "clip":
            lo, hi = (encode(np.clip(bound, -1e30, 1e30), result.scale, result.lo, result.hi) for bound in op.bounds)
            constants[op.out[0]] = int(lo), int(hi)
        else:
            check_elementwise(op.kind, tuple(operands), result, where)
    vectors = {
        path: encode(blocks[path], formats[path].scale, formats[path].lo, formats[path].hi) for path in program.vectors
    }
    initial = {state: _initial(name, state, value, formats[state]) for state, value in layer.initial.items()}
    return Layer(
        program, dict(formats), constants, vectors, initial={state: v for state, v in initial.items() if v.any()}
    )


def _initial(name: str, state: str, value: torch.Tensor, fmt: Format) -> np.ndarray:
    """Codes of a state before the first frame."""
    values = value.detach().double().numpy()
    codes, outside = encode_counted(values, fmt)
    if outside:
        warnings.warn(
            f"{outside} elements of the initial state {name}/{state} saturate: up to {np.abs(values).max():.4g}, where its format "
            f"ends at {fmt.hi * fmt.scale:.4g}; calibrate anew, or give {name}/{state} and its next value a wider format",
            RindleWarning,
            stacklevel=2,
        )
    return codes


def _affine(name: str, op, blocks: dict, plan: LayerPlan) -> Affine:
    """(7), converted. Where M would be too coarse, with other steps of the weights: other codes and sums, and so maybe another shift."""
    where = f"{name}/{'_'.join(op.out)}"
    for tries in reversed(range(TRIES + 1)):
        terms = [
            _encoded(name, op, term, rows, blocks, plan) for term, rows in zip(op.terms, op.spans(plan.program.sizes))
        ]
        check_accumulators(name, op, terms, plan)
        ratios, reaches = np.array([term.ratio for term in terms]), np.array([term.reach for term in terms])
        found = fitting(ratios, reaches, _bias(op, blocks, plan), where)
        refused = too_coarse(ratios, reaches, found, where)
        if refused is None:
            multipliers, bias, shift = stripped(found)
            products = (
                Product(term.codes, term.format, multiplier[term.rows], term.steps)
                for term, multiplier in zip(terms, multipliers)
            )
            return Affine(tuple(products), bias, shift)
        plan = with_exact_steps(name, op, plan, found.shift) if tries else None
        if plan is None:
            raise RindleError(refused)


@dataclass(frozen=True)
class _Term:
    """A term's weights, encoded. rows: of the affine, to which it adds. ratio, reach: m and A of (8b), [rows of the affine]."""

    codes: np.ndarray
    format: Format
    steps: np.ndarray | None
    rows: slice
    ratio: np.ndarray
    reach: np.ndarray


def _encoded(name: str, op, term, rows: slice, blocks: dict, plan: LayerPlan) -> _Term:
    y_scale, code = _scales(op, plan), plan.formats[term.code]
    matrix = np.concatenate([blocks[f"{gate}.{term.source}"] for gate in term.gates])
    fmt, steps = plan.weights[term.key]
    scale = np.full(len(matrix), fmt.scale) if steps is None else steps.astype(np.float64)
    codes = plan.codes.get(term.key)
    if codes is None:
        refuse_planes([term.key], name, "which have no nearest codes")
        codes = encode(matrix, scale[:, None], fmt.lo, fmt.hi, fmt.spacing)
    ratio, reach = np.zeros(len(y_scale)), np.zeros(len(y_scale))
    reach[rows] = bounds.accumulators(codes, code)
    used = (reach[rows] > 0) & (fmt.level_set.has_zero | matrix.any(1))  # without a 0, a row of zeros has M = 0
    ratio[rows] = np.where(used, scale * code.scale / y_scale[rows], 0.0)
    return _Term(codes, fmt, steps, rows, ratio, reach)


def _scales(op, plan: LayerPlan) -> np.ndarray:
    """s_y of every row of an affine."""
    rows = op.rows(plan.program.sizes)
    return np.concatenate([np.full(span.stop - span.start, plan.formats[gate].scale) for gate, span in rows.items()])


def _bias(op, blocks: dict, plan: LayerPlan) -> np.ndarray:
    """The real bias of every row, in codes of the result."""
    rows = op.rows(plan.program.sizes)
    own = {gate: blocks[gate] if gate in op.biased else np.zeros(span.stop - span.start) for gate, span in rows.items()}
    return np.concatenate([plan.biases.get(gate, own[gate]) for gate in op.out]) / _scales(op, plan)


def check_accumulators(name: str, op, terms: list[_Term], plan: LayerPlan) -> None:
    """RindleError where a gate's partial sums can pass the accumulator that its rule allows."""
    for gate, rows in op.rows(plan.program.sizes).items():
        limit = plan.accumulators.get(gate)
        if limit is None:
            continue
        for term, encoded in zip(op.terms, terms):
            of_gate = encoded.reach[rows]
            needed = bounds.signed_bits(int(of_gate.max()))
            if needed > limit:
                raise RindleError(
                    f"{name}/{gate}: row {int(np.argmax(of_gate))} of the product with {term.code} can reach "
                    f"{int(of_gate.max()):,}, which needs an accumulator of {needed} bits; the rule allows {limit}. Give weight.{gate}."
                    f"{term.source} or code.{gate}.{term.source} {needed - limit} bits less between them, or allow accumulator.{gate} "
                    f"{needed} bits"
                )


def rescale(x: Format, y: Format, where: str) -> Rescale:
    """M and s of a requantize, (9)."""
    ratio, reach = np.array([[x.scale / y.scale]]), np.array([[float(bounds.largest(x))]])
    multipliers, _, shift = choose_shift(ratio, reach, np.zeros(1), where)
    return Rescale(int(multipliers[0, 0]), shift)


def golden_inputs(plan: Plan, rows: int = 6, time: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Input codes [rows, time, I] (or ids [rows, time]) and lengths: frames of calibration data, then random and extreme codes."""
    fmt, generator, least = plan.input_format, np.random.default_rng(0), plan.graph.least_frames
    time += least - 1
    lengths = np.array([time, time, max(least, time - 5), least, time, time], np.int32)[:rows]
    if plan.graph.vocabulary:
        codes = generator.integers(0, plan.graph.vocabulary, (rows, time))
    else:
        codes = generator.integers(fmt.lo, fmt.hi + 1, (rows, time, plan.graph.input_size))
        codes[-1] = np.where(generator.random(codes[-1].shape) < 0.5, fmt.lo, fmt.hi)
        codes[-2] = np.where(generator.random(codes[-2].shape) < 0.8, codes[-2][:1], fmt.hi)
    for row, sample in enumerate(plan.samples):
        frames = min(time, len(sample))
        codes[row, :frames] = sample[:frames] if plan.graph.vocabulary else encode_input(sample[:frames], fmt)[0]
        lengths[row] = max(min(lengths[row], frames), least)
    return codes, lengths


def hash_of(parameters: dict[str, torch.Tensor]) -> str:
    """SHA-256 over the names and bytes of a state dict, for the provenance."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        digest.update(name.encode() + b"\0" + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
