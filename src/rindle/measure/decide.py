"""What a model's outputs are, and how a label is decided from them.

    several outputs, one label each   -> the label of the highest one (argmax)
    one output, or a label per output -> yes where it lies above a threshold: 1/2 where outputs are probabilities (they end
                                         in a sigmoid, or all lie in 0..1), 0 where they are scores (logits)

A threshold of one's own overrides the last two. A value at the threshold itself is a no.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import RindleError
from ..program.graph import Graph
from ..program.nodes import INPUT, FloatNode, ProgramNode

HALF, ZERO, ARGMAX = "half", "zero", "argmax"


@dataclass(frozen=True)
class Decision:
    """How outputs become labels. threshold: above it the answer is yes; None: the highest output is the answer.

    probabilities: outputs are probabilities already, and not scores. why: what that follows from, for people.
    """

    threshold: float | None
    probabilities: bool
    why: str

    @property
    def rule(self) -> str:
        """ "argmax", "half", "zero", or the threshold."""
        return {None: ARGMAX, 0.5: HALF, 0.0: ZERO}.get(self.threshold, f"{self.threshold}")

    def __str__(self) -> str:
        if self.threshold is None:
            return f"decided by the highest output: {self.why}"
        at = {HALF: "1/2", ZERO: "logit 0"}.get(self.rule, self.rule)
        return f"decided at {at}: {self.why}"

    def labels(self, output: np.ndarray) -> np.ndarray:
        """[..., O] -> int64 [...]: the place of the highest output, the first among equals; with a threshold int64 [..., O]
        of 0 and 1.
        """
        return output.argmax(-1) if self.threshold is None else (output > self.threshold).astype(np.int64)

    def chances(self, output: np.ndarray) -> np.ndarray:
        """Probabilities, float64 [..., O]: of every label, or of a yes per output. 1/2 where an output is at the threshold."""
        output = np.asarray(output, np.float64)
        if self.threshold is None:
            if self.probabilities:
                output = np.log(np.clip(output, 1e-12, 1.0))
            powers = np.exp(output - output.max(-1, keepdims=True))
            return powers / powers.sum(-1, keepdims=True)
        if not self.probabilities:
            return 1 / (1 + np.exp(-np.clip(output - self.threshold, -700, 700)))
        yes = np.clip(output, 0.0, 1.0) * (1 - self.threshold)
        return yes / (yes + (1 - np.clip(output, 0.0, 1.0)) * self.threshold)


def ending_of(graph: Graph | None) -> str | None:
    """What makes a model's outputs: "sigmoid", "softmax", "scores" (a product, or the logarithm of a softmax), or "values" (a
    state, a tanh, a clip beyond 0..1 and whatever else no score is taken from). None without a graph.
    """
    if graph is None:
        return None
    return _ending(graph, graph.output)


def _ending(graph: Graph, name: str) -> str:
    if name == INPUT:
        return "values"
    node = graph.node(name)
    if isinstance(node, FloatNode):
        known = {"sigmoid": "sigmoid", "softmax": "softmax", "log_softmax": "scores", "linear": "scores"}
        return known.get(node.op.name, "values")
    if isinstance(node, ProgramNode):
        return _made_by(node.layer.program)
    endings = {_ending(graph, source) for source in node.sources} if node.keeps_format else {"values"}
    return endings.pop() if len(endings) == 1 else "values"


def _made_by(program) -> str:
    if program.states:
        return "values"
    makers = {out: op for op in program.ops for out in op.out}
    name = program.output
    while name in makers and makers[name].kind == "requantize":
        name = makers[name].args[0]
    if name not in makers:
        return "values"
    op = makers[name]
    if op.kind == "affine":
        return "scores"
    within = op.kind == "clip" and op.bounds is not None and 0 <= op.bounds[0] < op.bounds[1] <= 1
    return "sigmoid" if within or (op.kind == "table" and op.function == "sigmoid") else "values"


def decide(
    outputs: np.ndarray, several: bool, ending: str | None = None, wanted: str | float | None = None
) -> Decision:
    """The decision that fits.

    outputs: float [K, O], of a model that is known to work: where they lie tells probabilities from scores. several: one of
    O outputs is the answer; else each is a yes or a no. ending: see :func:`ending_of`. wanted: "half", "zero", a number or
    "argmax" in place of what follows from these. Raises RindleError for what cannot decide such outputs.
    """
    if several:
        if wanted not in (None, ARGMAX):
            raise RindleError(
                f"the decision {wanted!r} is of one output, or of a label per output; one label of {outputs.shape[-1]} "
                "is decided by argmax"
            )
        return Decision(None, ending == "softmax", f"{outputs.shape[-1]} outputs, one for each label")
    if wanted == ARGMAX:
        raise RindleError(
            "argmax chooses among several outputs; here each is a yes or a no: give half, zero or a number"
        )
    low, high = float(outputs.min()), float(outputs.max())
    inside = 0 <= low and high <= 1
    if wanted is None:
        if ending == "sigmoid":
            return Decision(0.5, True, "the model ends in a sigmoid")
        if inside:
            return Decision(0.5, True, f"all outputs lie in 0..1, from {low:.3g} to {high:.3g}")
        return Decision(0.0, False, f"outputs are scores from {low:.3g} to {high:.3g}")
    threshold = {HALF: 0.5, ZERO: 0.0}.get(wanted, wanted)
    probabilities = 0 < threshold < 1 and (wanted == HALF or ending == "sigmoid" or inside)
    return Decision(float(threshold), probabilities, "as asked for")


def parse_decision(wanted: str | float | None) -> str | float | None:
    """ "half", "zero", "argmax", or a number. Raises RindleError for anything else."""
    if wanted is None or wanted in (HALF, ZERO, ARGMAX):
        return wanted
    try:
        number = float(wanted)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RindleError(f"the decision is {wanted!r}; give half, zero, argmax or a number") from None
    return number
