"""Rounding with error feedback over the joint columns of an affine: what rounding one weight costs, the weights that are
still to be rounded make good, those of the recurrent matrix for those of the input's and the other way round.

Frantar et al. 2022 (GPTQ, arXiv 2210.17323), algorithm 1; then the coordinate descent of Behdin et al. 2023 (QuantEase,
arXiv 2309.01885), which never makes the error larger. Rows do not share anything, so that weights for rows (of a gate's
Jacobian, say) would change nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ....errors import RindleError
from ....numbers.codes import conv_reads
from ....numbers.formats import encode
from ....program.program import Op, refuse_planes
from ...calibrate.plan import LayerPlan, Plan
from .runs import Rows, run_codes
from .words import words_of

PASSES = 2  # of a recurrent layer: the second sees the states that the first one's codes make
DAMPING = 0.01  # λ of H = 2XᵀX + λI, a share of the mean of the diagonal
BLOCK = 64  # columns between two updates of all that are left
SWEEPS = 4  # of the descent
PENDING = 2048  # inputs [columns] that are multiplied at once


def round_layer(plan: Plan, name: str, rows: Rows, settings) -> dict:
    """Chooses the codes of a layer's ``gptq`` terms. The inputs are those of the quantized recurrence: the integers of all
    layers below, and of this one as rounded so far.

    Returns {"error": Σ‖(W − Q)X‖² over that of the nearest codes} of the last pass.
    """
    layer = plan.layers[name]
    affines = [op for op in layer.program.affines if any(is_rounded(plan, name, term) for term in op.terms)]
    for op in affines:
        _check(name, op)
    for number in range(PASSES if layer.program.states else 1):
        settings.progress(f"{name}: gptq, pass {number + 1}")
        grams = {op.out: Gram(layer, op) for op in affines}

        def watch(op, codes, _, grams=grams):
            if op.out in grams:
                grams[op.out].add(codes)

        for _ in run_codes(plan, name, rows, watch):
            pass
        error = nearest = 0.0
        for op in affines:
            one, other = _round_affine(plan, name, op, grams[op.out])
            error, nearest = error + one, nearest + other
    return {"error": error / nearest if nearest else 1.0}


def is_rounded(plan: Plan, name: str, term) -> bool:
    return "gptq" in words_of(plan, name, term)


def _check(name: str, op: Op) -> None:
    refuse_planes((term.key for term in op.terms), name, "which gptq does not round")
    grouped = [term.key for term in op.terms if term.conv and term.conv.groups > 1]
    if grouped:
        raise RindleError(
            f"{name}/weight.{grouped[0]} is a convolution of several groups, which gptq does not round; give it a rule without it"
        )
    if len({term.conv is None for term in op.terms}) > 1:
        raise RindleError(
            f"{name}/{'_'.join(op.out)} adds a convolution to a matrix, which gptq does not round; give it a rule without it"
        )


class Gram:
    """XᵀX and ΣX of an affine, over its inputs one beside the other, in real values. Of a convolution, X has a row for every
    pixel of the result. Streamed: nothing else is kept.
    """

    def __init__(self, layer: LayerPlan, op: Op):
        self.terms, self.sizes = op.terms, layer.program.sizes
        self.scales = {term.code: layer.formats[term.code].scale for term in op.terms}
        # terms of other gates may multiply the same code by the same kernel
        keys = dict.fromkeys((term.code, term.conv) for term in op.terms)
        self.spans, self.reads, end = {}, {}, 0
        for code, conv in keys:
            width = self.sizes[code] if conv is None else conv.columns(self.sizes[code])
            if conv is not None:
                reads = conv_reads(conv, self.sizes[code] // math.prod(conv.image))[0]
                self.reads[code, conv] = torch.from_numpy(reads)
            self.spans[code, conv] = slice(end, end + width)
            end += width
        self.total, self.sums, self.count = np.zeros((end, end)), np.zeros(end), 0
        self._pending: list[torch.Tensor] = []

    def add(self, codes: tuple) -> None:
        """codes: of the terms, [batch, n] each."""
        by_key = {(term.code, term.conv): code * self.scales[term.code] for term, code in zip(self.terms, codes)}
        if not self.reads:
            self._pending.append(torch.cat([by_key[key] for key in self.spans], 1))
        else:
            for row in range(len(codes[0])):  # one at a time: patches take memory
                padded = {key: torch.cat([x[row], x.new_zeros(1)]) for key, x in by_key.items()}
                self._pending.append(torch.cat([padded[key][self.reads[key]] for key in self.spans], 1))
                self._multiply(PENDING)
        self._multiply(PENDING)

    def _multiply(self, least: int) -> None:
        if sum(map(len, self._pending)) >= max(least, 1):
            x = torch.cat(self._pending).numpy()
            self.total += x.T @ x
            self.sums += x.sum(0)
            self.count += len(x)
            self._pending = []

    def of(self, terms: list, centred: bool) -> np.ndarray:
        """XᵀX of some terms' columns. centred: of X less its mean, which a corrected bias makes good."""
        self._multiply(0)
        columns = np.concatenate([np.arange(self.total.shape[0])[self.spans[t.code, t.conv]] for t in terms])
        total = self.total - np.outer(self.sums, self.sums) / max(self.count, 1) if centred else self.total
        return total[np.ix_(columns, columns)]


def _round_affine(plan: Plan, name: str, op: Op, gram: Gram) -> tuple[float, float]:
    """Returns Σ‖(W − Q)X‖² with the codes chosen, and with the nearest."""
    layer, blocks = plan.layers[name], plan.graph.program(name).layer.blocks
    groups: dict[tuple, list[str]] = {}  # gates with the same columns
    for gate in op.out:
        groups.setdefault(tuple(t for t in op.terms if gate in t.gates), []).append(gate)
    found: dict[tuple, np.ndarray] = {}
    error = nearest = 0.0
    for terms, gates in groups.items():
        chosen = [t for t in terms if is_rounded(plan, name, t)]
        if not chosen:
            continue
        parts = [[block_of(layer, blocks, term, gate) for gate in gates] for term in terms]
        weights, steps, *grid = (np.hstack([np.vstack(one) for one in column]) for column in _columns(parts))
        free = np.concatenate([np.full(part[0][0].shape[1], t in chosen) for t, part in zip(terms, parts)])
        words = frozenset().union(*(words_of(plan, name, t) for t in chosen))
        h = gram.of(list(terms), "corrected" in words)
        codes = gptq(weights, h, steps, grid, free, "actorder" in words)
        error += row_errors(weights - codes * steps, h).sum()
        nearest += row_errors(weights - encode(weights, steps, *grid) * steps, h).sum()
        ends = np.cumsum([part[0][0].shape[1] for part in parts])[:-1]
        for term, part in zip(terms, np.split(codes, ends, axis=1)):
            rows = np.cumsum([layer.program.block_shape(gate)[0] for gate in gates])[:-1]
            found |= {(term.key, gate): block for gate, block in zip(gates, np.split(part, rows))}
    for term in op.terms:
        if is_rounded(plan, name, term):
            layer.codes[term.key] = np.concatenate([found[term.key, gate] for gate in term.gates])
    return error, nearest


def block_of(layer: LayerPlan, blocks: dict, term, gate: str) -> tuple[np.ndarray, ...]:
    """A gate's rows of a term: weights, their steps, the lowest and the highest code and the distance of two, each [rows, columns]."""
    weights = blocks[f"{gate}.{term.source}"].detach().double().numpy()
    fmt, steps = layer.weights[term.key]
    start = sum(layer.program.block_shape(g)[0] for g in term.gates[: term.gates.index(gate)])
    own = fmt.scale if steps is None else steps[start : start + len(weights), None].astype(np.float64)
    return weights, *(np.broadcast_to(value, weights.shape) for value in (own, fmt.lo, fmt.hi, fmt.spacing))


def _columns(parts: list) -> list:
    """[term][gate][kind] -> [kind][term][gate]."""
    return [[[block[kind] for block in term] for term in parts] for kind in range(5)]


def row_errors(error: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """‖e X‖² of every row e of W − Q."""
    return ((error @ gram) * error).sum(1)


def gptq(weights, gram, steps, grid, free=None, actorder: bool = False) -> np.ndarray:
    """Codes int64 [R, C] of which ‖(W − Q)X‖² is small, and in no row larger than that of the nearest ones.

    weights: [R, C]; gram: XᵀX [C, C]; steps: [R, C], the value of code 1; grid: the lowest code, the
    highest and the distance of two, [R, C] each; free: bool [C],
    False where the nearest code stays, whose error the others make good. actorder: columns with large inputs first.
    """
    free = np.ones(weights.shape[1], bool) if free is None else free
    h = 2 * gram
    h[np.diag_indices_from(h)] += DAMPING * np.diag(h).mean() or 1.0
    codes = encode(weights, steps, *grid)
    nearest, kept, left = codes.copy(), np.flatnonzero(~free), np.flatnonzero(free)
    if actorder:
        left = left[np.argsort(-np.diag(h)[left], kind="stable")]
    h_left = h[np.ix_(left, left)]
    target = weights[:, left]
    if len(kept):  # the least squares of what stays: the target that the others have then
        stays = weights[:, kept] - codes[:, kept] * steps[:, kept]
        target = target + np.linalg.solve(h_left, h[np.ix_(left, kept)] @ stays.T).T
    codes[:, left] = _feedback(target, h_left, steps[:, left], [one[:, left] for one in grid])
    _descend(codes, weights, h, steps, grid, left)
    better = row_errors(weights - codes * steps, gram) <= row_errors(weights - nearest * steps, gram)
    return np.where(better[:, None], codes, nearest)


def _feedback(target, h, steps, grid) -> np.ndarray:
    """Algorithm 1: column by column, with the Cholesky factor U of H⁻¹ = UᵀU."""
    left, u = target.copy(), np.linalg.cholesky(np.linalg.inv(h)).T
    codes = np.zeros(target.shape, np.int64)
    for start in range(0, target.shape[1], BLOCK):
        block = slice(start, min(start + BLOCK, target.shape[1]))
        errors = np.zeros((len(target), block.stop - start))
        for j in range(start, block.stop):
            codes[:, j] = encode(left[:, j], steps[:, j], *(one[:, j] for one in grid))
            errors[:, j - start] = (left[:, j] - codes[:, j] * steps[:, j]) / u[j, j]
            left[:, j : block.stop] -= np.outer(errors[:, j - start], u[j, j : block.stop])
        left[:, block.stop :] -= errors @ u[block, block.stop :]
    return codes


def _descend(codes, weights, h, steps, grid, columns) -> None:
    """Each code in turn becomes the best one while all others stay: e_j − (e H)_j / H_jj is then the error of its target."""
    error = weights - codes * steps
    gradient = error @ h
    for _ in range(SWEEPS):
        before = codes.copy()
        for j in columns:
            wanted = weights[:, j] - error[:, j] + gradient[:, j] / h[j, j]
            codes[:, j] = encode(wanted, steps[:, j], *(one[:, j] for one in grid))
            change = weights[:, j] - codes[:, j] * steps[:, j] - error[:, j]
            if change.any():
                error[:, j] += change
                gradient += np.outer(change, h[j])
        if (codes == before).all():
            return
