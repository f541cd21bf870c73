"""From a plan to integers: the last place where a float decides anything. docs/numerics.md (8a), (8b)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch

from ...engines.golden import with_golden
from ...errors import RindleError
from ...file.artifact import Artifact, Golden, Layer
from ...numbers.codes import LIMIT, MAX_MULTIPLIER, MAX_SHIFT, Affine, Product, Rescale, check_elementwise, signed_bits
from ...numbers.formats import Format, encode, encode_input
from ...numbers.tables import DEFAULT, build
from ...program.nodes import EmbeddingNode, Node, ProgramNode
from ...program.program import check_integer
from ..calibrate.plan import LayerPlan, Plan
from ..numerics import FloatLayer
from .exact_steps import TooCoarse, with_exact_steps

FINE, ROUGH = 2**11, 2**7  # an inexact M of the leading term, and of any term, is at least so large
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
            constants[op.out[0]] = _fine_affine(name, op, blocks, plan)
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
    return Layer(program, dict(formats), constants, vectors)


def _fine_affine(name: str, op, blocks: dict, plan: LayerPlan) -> Affine:
    """With other steps of its weights where theirs are refused. Other steps are other codes and sums, and so may be other shifts."""
    for _ in range(TRIES):
        try:
            return _affine(name, op, blocks, plan)
        except TooCoarse as refused:
            plan = with_exact_steps(name, op, plan, refused)
    return _affine(name, op, blocks, plan)


def _affine(name: str, op, blocks: dict, plan: LayerPlan) -> Affine:
    size, formats = {gate: plan.program.block_shape(gate)[0] for gate in op.out}, plan.formats
    starts = dict(zip(op.out, np.cumsum([0, *(size[gate] for gate in op.out)])))
    rows = sum(size[gate] for gate in op.out)
    y_scale = np.concatenate([np.full(size[gate], formats[gate].scale) for gate in op.out])
    own = {gate: blocks[gate] if gate in op.biased else np.zeros(size[gate]) for gate in op.out}
    bias = np.concatenate([plan.biases.get(gate, own[gate]) for gate in op.out])
    weights, ratios, reaches = [], [], []
    for term in op.terms:
        matrix = np.concatenate([blocks[f"{gate}.{term.source}"] for gate in term.gates])
        fmt, steps = plan.weights[term.weight]
        scale = np.full(len(matrix), fmt.scale) if steps is None else steps.astype(np.float64)
        codes = plan.codes.get(term.weight)
        if codes is None:
            codes = encode(matrix, scale[:, None], fmt.lo, fmt.hi)
        span = slice(starts[term.gates[0]], starts[term.gates[0]] + len(matrix))
        code_format = formats[term.code]
        ratio, reach = np.zeros(rows), np.zeros(rows)
        reach[span] = np.abs(codes).sum(1) * max(-code_format.lo, code_format.hi)
        ratio[span] = np.where(reach[span] > 0, scale * code_format.scale / y_scale[span], 0.0)
        weights.append((codes, fmt, steps, span))
        ratios.append(ratio)
        reaches.append(reach)
    check_accumulators(name, op, reaches, starts, plan)
    multipliers, b, shift = choose_shift(
        np.array(ratios), np.array(reaches), bias / y_scale, f"{name}/{'_'.join(op.out)}"
    )
    products = tuple(
        Product(codes, fmt, multiplier[span], steps)
        for (codes, fmt, steps, span), multiplier in zip(weights, multipliers)
    )
    return Affine(products, b, shift)


def check_accumulators(name: str, op, reaches: list[np.ndarray], starts: dict, plan: LayerPlan) -> None:
    """RindleError where a gate's partial sums can pass the accumulator that its rule allows. reaches: A of (8b), per term [rows]."""
    for gate in op.out:
        limit = plan.accumulators.get(gate)
        if limit is None:
            continue
        first = starts[gate]
        for term, reach in zip(op.terms, reaches):
            of_gate = reach[first : first + plan.program.block_shape(gate)[0]]
            needed = signed_bits(int(of_gate.max()))
            if needed > limit:
                raise RindleError(
                    f"{name}/{gate}: row {int(np.argmax(of_gate))} of the product with {term.code} can reach "
                    f"{int(of_gate.max()):,}, which needs an accumulator of {needed} bits; the rule allows {limit}. Give weight.{gate}."
                    f"{term.source} or code.{gate}.{term.source} {needed - limit} bits less between them, or allow accumulator.{gate} "
                    f"{needed} bits"
                )


def rescale(x: Format, y: Format, where: str) -> Rescale:
    """M and s of a requantize, (9)."""
    ratio, reach = np.array([[x.scale / y.scale]]), np.array([[float(max(-x.lo, x.hi))]])
    multipliers, _, shift = choose_shift(ratio, reach, np.zeros(1), where)
    return Rescale(int(multipliers[0, 0]), shift)


def choose_shift(
    ratios: np.ndarray, reaches: np.ndarray, bias: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """(8a), (8b). ratios: m [terms, rows]; reaches: A [terms, rows]; bias in output codes [rows]. Returns M, b, s."""
    if not np.all(np.isfinite(ratios)) or not np.all(np.isfinite(bias)):
        raise RindleError(f"{where}: a scale ratio or a bias is not finite")
    nonzero = ratios[ratios > 0]
    mantissas, exponents = np.frexp(nonzero)
    if len(nonzero) and np.all(mantissas == 0.5):
        shift = max(0, 1 - int(exponents.min()))
        if shift <= MAX_SHIFT:
            multipliers, b = _integers(ratios, bias, shift)
            if _fits(multipliers, reaches, b, shift):
                return multipliers, b, shift
        raise RindleError(
            f"{where}: powers of two from 2^{int(exponents.min()) - 1} to 2^{int(exponents.max()) - 1} with sums up to "
            f"{reaches.max():.0f} do not fit a common shift of at most {MAX_SHIFT}; give the result fewer fraction bits"
        )
    for shift in range(MAX_SHIFT, -1, -1):
        multipliers, b = _integers(ratios, bias, shift)
        if _fits(multipliers, reaches, b, shift):
            break
    else:
        raise RindleError(
            f"{where}: no shift fits: the ratios reach {ratios.max():.4g}, the sums {reaches.max():.4g} and the bias "
            f"{np.abs(bias).max():.4g} output codes; give the result fewer fraction bits"
        )
    exact = ratios * 2.0**shift
    inexact = (ratios > 0) & (np.abs(multipliers - exact) > exact * 2.0**-22)  # steps are float32
    error = 0.5 * np.where(inexact, reaches, 0.0).sum(0) / 2.0**shift
    leading = np.argmax(reaches * multipliers, axis=0)
    coarse = np.zeros_like(inexact)
    columns = np.arange(ratios.shape[1])
    coarse[leading, columns] = (multipliers < FINE)[leading, columns] & (error > 1.0)
    coarse |= (multipliers < ROUGH) & (
        0.5 * reaches / 2.0**shift > 1.0
    )  # a term that is not the largest may not vanish, either
    coarse &= inexact
    if coarse.any():
        row = int(np.argmax(coarse.any(0)))
        term = int(np.argmax(coarse[:, row]))
        raise TooCoarse(
            f"{where}: in row {row} the multiplier {multipliers[term, row]} is too coarse for the ratio "
            f"{ratios[term, row]:.6g}: up to {error[row]:.1f} output codes of error at shift {shift}; give the result fewer "
            f"fraction bits, or the terms scales that lie closer together",
            shift,
        )
    while shift > 0 and not (multipliers & 1).any() and not (b & 1).any():
        multipliers, b, shift = multipliers >> 1, b >> 1, shift - 1
    return multipliers, b, shift


def _integers(ratios: np.ndarray, bias: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    wide = np.clip(np.floor(bias * 2.0**shift + 0.5), -(2.0**60), 2.0**60)
    return np.clip(np.floor(ratios * 2.0**shift + 0.5), 0, 2.0**40).astype(np.int64), wide.astype(np.int64)


def _fits(multipliers: np.ndarray, reaches: np.ndarray, b: np.ndarray, shift: int) -> bool:
    if (multipliers >= MAX_MULTIPLIER).any():
        return False
    rounding = 2 ** (shift - 1) if shift else 0
    rough = (reaches * multipliers).sum(0) + np.abs(b)  # float64: tells far above from below
    return bool(
        (rough < 2 * LIMIT).all()
        and ((reaches.astype(np.int64) * multipliers).sum(0) + np.abs(b) + rounding < LIMIT).all()
    )


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
