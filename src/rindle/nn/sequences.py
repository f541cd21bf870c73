"""A layer over a sequence in floats, from given states, with every row's final states; and fake-quantized so for training.

What depends on the input alone (its codes, their products) is computed for all frames at once, before the loop over time:
the same values, at a fraction of the calls.
"""

from __future__ import annotations

import torch

from ..program.nodes import run_layer
from ..program.program import Op
from .lsq import quantize
from .numerics import FakeQuantized, FloatLayer, convolve


def finals_of(run, rows: list[int], states: dict) -> tuple[list, dict]:
    """rows: how many are still running at each frame, falling. run(start, end, states) -> (outputs, states) goes over frames of
    equal rows. Returns the outputs, and the states of every row after its own last frame.
    """
    outputs, ended, start = [], [], 0
    for end in range(1, len(rows) + 1):
        following = rows[end] if end < len(rows) else 0
        if following == rows[start]:
            continue
        made, states = run(start, end, states)
        outputs += made
        ended.append({path: value[following:] for path, value in states.items()})
        states = {path: value[:following] for path, value in states.items()}
        start = end
    return outputs, {path: torch.cat([one[path] for one in reversed(ended)]) for path in ended[0]}


def run_frames(numerics, frames: list, states: dict) -> tuple[list, dict]:
    """Any numerics without held codes. frames: per frame, a tuple of [rows still running, I], one of every input. Returns
    outputs [rows still running, n], and final states [rows, n].
    """

    def stretch(start, end, before):
        return run_layer(numerics.program, numerics, frames[start:end], before, {})[:2]

    return finals_of(stretch, [len(inputs[0]) for inputs in frames], states)


def _kept(code: str) -> str:
    """The name of v̂ among the states of a run."""
    return f"{code} held"


class Training(FakeQuantized):
    """Fake-quantized, with weights that are quantized already and learned steps of codes. codes: code path -> CodeStep.

    thetas: code path -> θ, of those that are held. look(code path, Σ|Δ|, elements that changed, elements): called for each.
    """

    def __init__(self, layer: FloatLayer, plan, codes, thetas: dict[str, int] | None = None, look=None):
        self.codes, self._steps = codes, {}
        self.thetas, self.look = thetas or {}, look
        super().__init__(layer, plan)
        self.program = program = plan.program
        known = {*program.inputs, *program.vectors}
        self.ahead: list[Op] = []
        self.partly: list[tuple[Op, list[int]]] = []  # affines of which some terms are known
        self.rest: list[Op] = []
        for op in program.ops:
            read = [path in known for path in op.reads]
            if all(read):
                self.ahead.append(op)
                known.update(op.out)
                continue
            if any(read) and op.kind == "affine":
                self.partly.append((op, [i for i, one in enumerate(read) if one]))
            self.rest.append(op)
        self.gates = {op.out: self._gates(op) for op in program.affines}

    def parameter(self, name, value):
        return super().parameter(name, value) if name in self.plan.formats else value

    def result(self, path, value):
        learned = self.codes.get(path)
        if learned is None:
            fmt = self.plan.formats[path]
            return quantize(value, fmt.scale, fmt.lo, fmt.hi)
        if path not in self._steps:
            self._steps[path] = learned.step()  # once for all frames
        return quantize(value, self._steps[path], learned.lo, learned.hi, learned.factor)

    def _gates(self, op: Op):
        """The gates of an affine side by side: sizes, and where their ranges are equal one vector of scales for all."""
        sizes, formats = [self.program.sizes[gate] for gate in op.out], [self.plan.formats[gate] for gate in op.out]
        like = self._weights[op.out][0]
        bias = torch.cat(self._biases[op.out])
        if len({(fmt.lo, fmt.hi) for fmt in formats}) > 1:
            return sizes, bias, None
        scales = torch.cat([like.new_full((size,), fmt.scale) for size, fmt in zip(sizes, formats)])
        return sizes, bias, (scales, formats[0].lo, formats[0].hi)

    def products(self, op: Op, terms: list[int], codes: list[torch.Tensor], total):
        """Σ W·x of these terms of an affine, all gates side by side, added to total."""
        sizes = self.gates[op.out][0]
        starts = dict(zip(op.out, torch.tensor([0, *sizes]).cumsum(0).tolist()))
        width = sum(sizes)
        for i, x in zip(terms, codes):
            weight, first = self._weights[op.out][i], starts[op.terms[i].gates[0]]
            conv = op.terms[i].conv
            part = x @ weight.T if conv is None else convolve(conv, x, weight)
            if part.shape[-1] < width:
                part = torch.nn.functional.pad(part, (first, width - first - part.shape[-1]))
            total = total + part
        return total

    def finish(self, op: Op, total: torch.Tensor) -> tuple:
        sizes, _, joint = self.gates[op.out]
        if joint is None:
            return tuple(self.result(gate, v) for gate, v in zip(op.out, total.split(sizes, -1)))
        return quantize(total, *joint).split(sizes, -1)

    def affine(self, op, *codes):
        return self.finish(op, self.products(op, list(range(len(codes))), codes, self.gates[op.out][1]))

    def run(self, inputs: dict[str, torch.Tensor], rows: list[int], states: dict) -> tuple[list, dict]:
        """inputs: input path -> [Σ rows, I], frame after frame. rows: how many are still running at each frame, falling. Returns
        outputs [rows still running, n], and every row's final states [rows, n].
        """
        env = dict(self.vectors)
        for path, x in inputs.items():
            fmt = self.plan.formats[path]
            env[path] = quantize(x, fmt.scale, fmt.lo, fmt.hi)
        for op in self.ahead:
            self._do(op, env)
            if op.out[0] in self.thetas:
                env[op.out[0]] = self._held(op.out[0], env[op.out[0]], rows)
        later = {op.out[0] for op in self.rest} & set(self.thetas)
        like = env[self.program.inputs[0]]
        states = states | {_kept(code): like.new_zeros(rows[0], self.program.sizes[code]) for code in later}
        partial = {}  # affine -> of each frame, the bias and the products that are known
        for op, terms in self.partly:
            codes = [env[op.terms[i].code] for i in terms]
            partial[op.out] = self.products(op, terms, codes, self.gates[op.out][1]).split(rows)
        wanted = {path for op in self.rest for path in op.reads} | {self.program.output}
        known = {path: env[path].split(rows) for path in env if path in wanted and path not in self.vectors}
        missing = {op.out: [i for i in range(len(op.terms)) if i not in terms] for op, terms in self.partly}

        def stretch(start, end, states):
            outputs = []
            for t in range(start, end):
                here = {path: parts[t] for path, parts in known.items()} | self.vectors | states
                for op in self.rest:
                    if op.out in partial:
                        terms = missing[op.out]
                        total = self.products(op, terms, [here[op.terms[i].code] for i in terms], partial[op.out][t])
                        here.update(zip(op.out, self.finish(op, total)))
                    else:
                        self._do(op, here)
                        if op.out[0] in later:
                            code = op.out[0]
                            here[code], here[_kept(code)] = self._hold(code, here[code], here[_kept(code)][: rows[t]])
                outputs.append(here[self.program.output])
                states = {state: here[path] for state, path in self.program.states}
                states |= {_kept(code): here[_kept(code)] for code in later}
            return outputs, states

        outputs, finals = finals_of(stretch, rows, states)
        return outputs, {state: finals[state] for state, _ in self.program.states}

    def _hold(self, code: str, v: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(20) of one frame: v̂ with v's gradient, and v̂ alone for the frame after. Δ of the penalty is v − v̂ of before."""
        step = self._steps[code].detach() if code in self._steps else self.plan.formats[code].scale
        delta = v - before
        changed = (delta.detach() / step).round().abs() > self.thetas[code]  # codes, whose floats are not quite exact
        held = torch.where(changed, v.detach(), before)
        self.look(code, delta.abs().sum(), changed.sum(), v.numel())
        return held + (v - v.detach()), held

    def _held(self, code: str, v: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """(20) of all frames, one after the other."""
        before, found = v.new_zeros(rows[0], v.shape[1]), []
        for frame in v.split(rows):
            one, before = self._hold(code, frame, before[: len(frame)])
            found.append(one)
        return torch.cat(found)

    def _do(self, op: Op, env: dict) -> None:
        results = getattr(self, op.kind)(op, *(env[path] for path in op.reads))
        env.update(zip(op.out, results if op.kind == "affine" else (results,)))
