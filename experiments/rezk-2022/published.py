"""The published method, as the authors' code has it: a simulation in float of any captured model.

    simulation = Simulation(graph, rules_of("rezk-m1", "all", graph), gains=…)
    simulation.calibrate(sequences)
    scores, densities = simulation.run(sequences, thetas)

Every matrix of weights and every vector that enters a product becomes integers (quantizers.py), a product comes back
to real scale by matching its maximum to that of the float model, and everything between is 16-bit fixed point in decimals.
The cells' equations are the package's own programs, run by other numerics; so every cell can be had.

What calibration knows, as medians over its sequences (batch 1 there, rows of a batch here):

- D: max |y| of every product in the float model, per gate and layer; of SRU and the read-out per layer.
- T: the clipping threshold of every vector: by MMSE over the sequence; of h over the vector that enters the fifth product
  (Li-GRU: the twentieth), until which every step has its own; of the read-out's input 0.8 max |x|.
- M: of SRU and the read-out max |y| of the integer product; the others take the maximum of the tensor at hand: of W·x over
  the sequence, of U·h over the step. A `rescale` of "clean" divides by both scales instead.

Left out of the authors' code, as errors of it: the read-out's integer bias with a scale of its own, and h' in place of ĥ
where a delta does not update. What they leave open and was chosen here: D of U·h is the median of a sequence's steps, like
the tensor that is matched to it. A `rescale` of "max of sequence" takes their maximum instead; on one layer of LSTM (36
validation utterances, 8 bits, 42.5 % errors in float) these gave 49.8 and 47.7 %, "clean" 42.0. Decimals of a 16-bit vector follow the
largest magnitude of calibration; of the element-wise paths only states are rounded.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from products import Product, base_of, products_of
from quantizers import WIDE, fixed_vector, fixed_weight, mmse, scale_of, vector_codes, weight_codes

from rindle.errors import RindleError
from rindle.nn.numerics import Real
from rindle.program.graph import Graph
from rindle.program.nodes import INPUT, ConcatNode, GatherNode, ProgramNode

STEPS = {"ligru": 20}  # products whose h has a threshold of its own in calibration; the others 5
FREE = 2  # frames that a delta passes unchanged
RESCALES = ("max", "max of sequence", "clean")


@dataclass
class Statistics:
    """Medians over the calibration sequences, by (layer's base name, unit or source). largest: of 16-bit vectors."""

    d: dict[tuple[str, str], float] = field(default_factory=dict)
    t: dict[tuple[str, str], float] = field(default_factory=dict)
    m: dict[tuple[str, str], float] = field(default_factory=dict)
    largest: dict[tuple[str, str], float] = field(default_factory=dict)


@dataclass
class Batch:
    """Rows by falling length, time first: values [T, D, B, F], D directions side by side."""

    lengths: torch.Tensor
    order: torch.Tensor
    x: torch.Tensor

    @staticmethod
    def of(sequences: list) -> Batch:
        """sequences: float32 [T, I] each."""
        lengths = torch.tensor([len(one) for one in sequences])
        order = torch.argsort(lengths, descending=True, stable=True)
        x = torch.zeros(int(lengths.max()), len(sequences), sequences[0].shape[1])
        for row, i in enumerate(order.tolist()):
            x[: lengths[i], row] = torch.as_tensor(sequences[i])
        return Batch(lengths[order], order, x)

    @property
    def real(self) -> torch.Tensor:
        """bool [T, B]"""
        return torch.arange(len(self.x))[:, None] < self.lengths

    @property
    def running(self) -> list[int]:
        """Rows that have a frame t."""
        return self.real.sum(1).tolist()

    def reversed(self, x: torch.Tensor) -> torch.Tensor:
        """[T, B, …], each row from its own end; padding stays."""
        time = torch.arange(len(x))[:, None]
        order = torch.where(time < self.lengths, self.lengths - 1 - time, time)
        return x[order, torch.arange(x.shape[1])]


class Simulation:
    """graph: captured, in float. rules: as `rows.rules_of` gives, of which the bits are taken; 16 bits of weights and codes are
    a skipped path; None runs the float model. gains: base name of a layer -> gate -> [H], of a batch
    norm that is folded into W: the norm is taken out again, since the authors quantize W and not what is folded.
    """

    def __init__(self, graph: Graph, rules: dict | None, rescale: str = "max", gains: dict | None = None):
        if rescale not in RESCALES:
            raise RindleError(f"there is no rescale {rescale!r}; there are {', '.join(RESCALES)}")
        self.graph, self.rules, self.rescale, self.gains = graph, rules, rescale, gains or {}
        self.known = Statistics()
        products = defaultdict(dict)
        for one in products_of(graph):
            products[one.node][one.gate, one.source] = one
        self.layers: dict[str, Layer] = {}
        for node in graph.programs:
            base = base_of(node.name)
            if base == node.name:
                twin = [other for other in graph.programs if other.name == f"{base}_reverse"]
                nodes = [node, *twin]
                if node.reverse:
                    raise RindleError(f"{node.name} is reversed and has no forward twin; the study has no such model")
                self.layers[base] = Layer(self, nodes, products[node.name], self.gains.get(base, {}))
        self.thetas: dict[tuple[str, str], int] = {}

    def by_node(self, densities: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
        """What `run` gives for a layer, for each of its directions: (node, source) -> density."""
        return {
            (node.name, source): density
            for (base, source), density in densities.items()
            for node in self.layers[base].nodes
        }

    def held(self) -> dict[tuple[str, str], int]:
        """Every vector that a delta may hold -> its bits: all that enters a product that is not skipped."""
        return {(base, source): bits for base, layer in self.layers.items() for source, bits in layer.code_bits.items()}

    @torch.no_grad()
    def calibrate(self, sequences: list, exact: Statistics | None = None) -> None:
        """D, T and M from these sequences, float32 [T, I] each. exact: what ``float_statistics`` found on them already."""
        exact = exact or float_statistics(self.graph, sequences, self.rescale, self.gains)
        self.known.d, self.known.largest = exact.d, exact.largest
        looking = Looking("quantized")
        self._execute(Batch.of(sequences), looking)
        self.known.t, self.known.m = looking.medians("t"), looking.medians("m")

    @torch.no_grad()
    def run(self, sequences: list, thetas: dict[tuple[str, str], int] | None = None):
        """Scores [T, O] of each sequence, in its place; and (layer, source) -> density, the share of held elements that
        changed, of real frames. thetas: (layer, source) -> θ in codes; 0 where none is given.
        """
        unknown = set(thetas or {}) - set(self.held())
        if unknown:
            raise RindleError(f"no vector {sorted(unknown)} can be held; there are {sorted(self.held())}")
        self.thetas = thetas or {}
        batch, looking = Batch.of(sequences), Looking("use")
        y = self._execute(batch, looking)
        scores = [None] * len(sequences)
        for row, i in enumerate(batch.order.tolist()):
            scores[i] = y[: batch.lengths[row], row]
        return scores, {key: float(changed / seen) for key, (changed, seen) in looking.activity.items()}

    def _execute(self, batch: Batch, looking: Looking) -> torch.Tensor:
        values = {INPUT: batch.x}
        for node in self.graph.nodes:
            if isinstance(node, ConcatNode):
                values[node.name] = torch.cat([values[name] for name in node.sources], -1)
            elif isinstance(node, GatherNode):
                values[node.name] = values[node.source][..., list(node.index)]
            elif not isinstance(node, ProgramNode):
                raise RindleError(f"{node.name} is a {node.kind!r}; the published method has no such node")
            elif node is self.layers[base := base_of(node.name)].nodes[-1]:  # what both directions read is there
                outputs = self.layers[base].run(values, batch, looking)
                values[base] = outputs[0]
                if len(outputs) > 1:
                    values[f"{base}_reverse"] = batch.reversed(outputs[1])
        return values[self.graph.output]


@torch.no_grad()
def float_statistics(graph: Graph, sequences: list, rescale: str = "max", gains: dict | None = None) -> Statistics:
    """The pass of the float model, which no bits change: D, and the largest magnitude of every vector."""
    exact, looking = Simulation(graph, None, rescale, gains), Looking("float")
    exact._execute(Batch.of(sequences), looking)
    return Statistics(d=looking.medians("d"), largest=looking.medians("largest"))


class Looking:
    """What a pass watches. mode: "float" (for D), "quantized" (for T and M), "use" (for densities)."""

    def __init__(self, mode: str):
        self.mode = mode
        self.values: dict[str, dict[tuple[str, str], torch.Tensor]] = {"d": {}, "t": {}, "m": {}, "largest": {}}
        self.steps: dict[str, dict] = {what: {} for what in self.values}
        self.activity: dict[tuple[str, str], list[float]] = {}

    def maximum(self, what: str, base: str, names: list[str], rows: torch.Tensor) -> None:
        """Of every sequence, over all that comes: rows [k, names], the first ones of the batch."""
        for name, one in zip(names, rows.unbind(1)):
            before = self.values[what].setdefault((base, name), one.clone())
            before[: len(one)] = torch.maximum(before[: len(one)], one)

    def each(self, what: str, base: str, names: list[str], rows: torch.Tensor) -> None:
        """As ``maximum``, but of what comes the median of each sequence is wanted."""
        for name, one in zip(names, rows.unbind(1)):
            self.steps[what].setdefault((base, name), []).append(one)

    def medians(self, what: str) -> dict[tuple[str, str], float]:
        found = {key: rows for key, rows in self.values[what].items()}
        for key, steps in self.steps[what].items():
            whole = torch.full((len(steps), len(steps[0])), torch.nan)
            for t, rows in enumerate(steps):
                whole[t, : len(rows)] = rows
            found[key] = whole.nanquantile(0.5, 0)
        return {key: float(rows.quantile(0.5)) for key, rows in found.items()}

    def count(self, key: tuple[str, str], changed: float, seen: int) -> None:
        one = self.activity.setdefault(key, [0.0, 0])
        one[0], one[1] = one[0] + changed, one[1] + seen


class Layer(Real):
    """The numerics of one layer, both directions in a dimension before the batch: values [D, B, F], or [T, D, B, F] of what
    depends on the input alone and is computed for all frames at once.

    products: (gate, source) -> Product. gains: see Simulation.
    """

    def __init__(self, owner: Simulation, nodes: list, products: dict[tuple[str, str], Product], gains: dict):
        self.owner, self.nodes, self.products = owner, nodes, products
        self.program = program = nodes[0].layer.program
        self.base, self.sru = nodes[0].name, program.cell.startswith("sru")
        self.fc = all(one.role == "fc" for one in products.values())
        self.joint = self.sru or not program.states  # one scale for all gates
        self.exact = owner.rules is None
        blocks = [node.layer.blocks for node in nodes]
        self.blocks = {name: torch.stack([b[name].detach().float() for b in blocks]) for name in blocks[0]}
        constants = {name: v if self.exact else fixed_weight(v) for name, v in self.blocks.items() if "." not in name}
        self.vectors = {name: constants.pop(name)[:, None] for name in program.vectors}
        self.biases = {name: value[:, None] for name, value in constants.items()}
        self.gains = gains
        bits = {} if self.exact else {pair: self._bits(*pair) for pair in products}
        self.skipped = {pair for pair, both in bits.items() if both == (WIDE, WIDE)}
        self.weights, self.scales = self._weights(bits)
        self.code_bits = {source: bits[gate, source][1] for gate, source in bits if (gate, source) not in self.skipped}
        self._plan()

    def _bits(self, gate: str, source: str) -> tuple[int, int]:
        """Of a product's weights, and of the vector that they multiply."""
        weight, code = (self.owner.rules[self.base, f"{kind}.{gate}.{source}"].bits for kind in ("weight", "code"))
        return weight, code

    def _weights(self, bits: dict) -> tuple[dict, dict]:
        """(gate, source) -> weights [D, rows, columns], of a batch norm freed; and codes per weight, 0 where it is none."""
        raw = {
            (gate, source): self.blocks[f"{gate}.{source}"] / self._gain(gate, source).mT
            for gate, source in self.products
        }
        weights, scales = dict(raw), dict.fromkeys(raw, 0.0)
        for unit in dict.fromkeys(one.unit for one in self.products.values()) if bits else ():
            pairs = [pair for pair, one in self.products.items() if one.unit == unit]
            width, whole = bits[pairs[0]][0], torch.cat([raw[pair].flatten() for pair in pairs])
            codes, scale = (fixed_weight(whole), 0.0) if width == WIDE else weight_codes(whole, width)
            for pair, part in zip(pairs, codes.split([raw[pair].numel() for pair in pairs])):
                weights[pair], scales[pair] = part.view_as(raw[pair]), scale
        return weights, scales

    def _gain(self, gate: str, source: str) -> torch.Tensor:
        """Of the batch norm behind a product: [1, 1, H], or a 1."""
        there = gate in self.gains and self.products[gate, source].role == "x"
        return self.gains[gate][None, None] if there else torch.ones(1, 1, 1)

    def _plan(self) -> None:
        """Which operations need the input alone; and of every path that is multiplied its gates, kept and skipped ones
        apart, with their matrices side by side.
        """
        known = {*self.program.inputs, *self.program.vectors}
        self.ahead, self.rest, self.early = [], [], set()
        for op in self.program.ops:
            if all(path in known for path in op.reads):
                self.ahead.append(op)
                known.update(op.out)
            else:
                self.rest.append(op)
                self.early |= {term.code for term in op.terms if term.code in known}
        self.sources = {term.code: term.source for op in self.program.affines for term in op.terms}
        self.matrices = {}
        for source in dict.fromkeys(self.sources.values()):
            of_source = [pair for pair in self.products if pair[1] == source]
            groups = ([pair for pair in of_source if (pair in self.skipped) == skipped] for skipped in (False, True))
            self.matrices[source] = [(pairs, self._matrix(pairs)) for pairs in groups if pairs]

    def _matches(self, pairs: list) -> bool:
        """Whether these products come back to real scale by their maxima: else weights and vectors are in real scale, which
        gives the same as a division of the integer product by both scales. Of SRU's projection, that is made into codes
        again as it is, any scale will do.
        """
        projection = self.joint and self.products[pairs[0]].role == "h"
        integer = any(self.scales[pair] for pair in pairs) or self.code_bits.get(pairs[0][1]) not in (None, WIDE)
        return integer and self.owner.rescale != "clean" and not projection and pairs[0] not in self.skipped

    def _matrix(self, pairs: list) -> torch.Tensor:
        """[D, columns, rows of all gates]: codes, or, where no maxima are matched, real values with the batch norm's gain."""
        if self._matches(pairs):
            parts = [self.weights[pair] for pair in pairs]
        else:
            parts = [self.weights[pair] / (self.scales[pair] or 1.0) * self._gain(*pair).mT for pair in pairs]
        return torch.cat(parts, 1).mT.contiguous()

    def run(self, values: dict, batch: Batch, looking: Looking) -> list[torch.Tensor]:
        """Outputs [T, B, F] per direction, in the direction's own order of time; 0 past a row's end. values: of nodes."""
        self.looking, self.batch, self.step, self.made = looking, batch, None, {}
        self.holds, self.thresholds, self.steps = {}, {}, {}
        ways = [[values[name] for name in node.sources] for node in self.nodes]
        ways[1:] = [[batch.reversed(x) for x in way] for way in ways[1:]]
        env = {path: torch.stack(parts, 1) for path, parts in zip(self.program.inputs, zip(*ways))} | self.vectors
        for op in self.ahead:
            self._do(op, env)
        if self.program.states:
            y = self._recur(env, batch)
        else:
            y = env[self.program.output]
        return list((y * batch.real[:, None, :, None]).unbind(1))

    def _recur(self, env: dict, batch: Batch) -> torch.Tensor:
        early = {code: self._products(code, env[code]) for code in self.early}
        wanted = {path for op in self.rest for path in op.reads} & set(env)
        whole = len(batch.lengths)
        states = {
            state: torch.zeros(len(self.nodes), whole, self.program.sizes[state]) for state, _ in self.program.states
        }
        outputs = torch.zeros(len(batch.x), len(self.nodes), whole, self.program.sizes[self.program.output])
        for t, k in enumerate(batch.running):
            self.step, self.made = t, {c: {g: y[t, :, :k] for g, y in parts.items()} for c, parts in early.items()}
            here = {path: env[path] if path in self.vectors else env[path][t, :, :k] for path in wanted}
            here |= {path: value[:, :k] for path, value in states.items()}
            for op in self.rest:
                self._do(op, here)
            states = {state: self._fixed(state, here[path]) for state, path in self.program.states}
            outputs[t, :, :k] = here[self.program.output]
        return self._fixed(self.program.output, outputs)

    def _do(self, op, env: dict) -> None:
        results = getattr(self, op.kind)(op, *(env[path] for path in op.reads))
        env.update(zip(op.out, results if op.kind == "affine" else (results,)))

    def _fixed(self, path: str, value: torch.Tensor) -> torch.Tensor:
        """16-bit fixed point; a path that calibration has not seen entering a product stays below 32 (c)."""
        if self.exact:
            return value
        return fixed_vector(value, self.owner.known.largest.get((self.base, path), 1.0))

    # -- products. A path that enters one stays as it is until all its products are made together, in affine.

    def requantize(self, op, x):
        return x

    def affine(self, op, *values):
        sums = {gate: self.biases.get(gate, 0.0) for gate in op.out}
        for term, value in zip(op.terms, values):
            if term.code not in self.made:
                self.made[term.code] = self._products(term.code, value)
            for gate in term.gates:
                sums[gate] = sums[gate] + self.made[term.code][gate]
        return tuple(sums.values())

    def _products(self, code: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
        """gate -> its product with this path in real scale, [.., D, k, H]; made of codes, once for all gates."""
        source, found = self.sources[code], {}
        if self.looking.mode == "float":
            self.looking.maximum("largest", self.base, [source], self._peak(value[..., None, :]))
        for pairs, matrix in self.matrices[source]:
            matches = self._matches(pairs)
            if self.exact or pairs[0] in self.skipped:
                vector = self._wide(source, value)
            else:
                vector, scale = self._vector(source, value)
                vector = vector if matches else vector / scale
            y = (vector @ matrix).unflatten(-1, (len(pairs), -1))
            if self.exact:
                steps = self.step is not None and self.owner.rescale == "max"
                peaks = self._peak(y / self._gains(pairs))
                (self.looking.each if steps else self.looking.maximum)("d", self.base, self._units(pairs), peaks)
            if matches:
                y = self._matched(pairs, y) * self._gains(pairs)
            y = y.round(decimals=3) if self.sru and not self.exact else y  # 16-bit fixed point
            found |= dict(zip((gate for gate, _ in pairs), y.unbind(-2)))
        return found

    def _gains(self, pairs: list) -> torch.Tensor:
        """[G, H] or [G, 1]"""
        return torch.cat([self._gain(*pair)[0] for pair in pairs])

    def _units(self, pairs: list) -> list[str]:
        """What has a scale of its own among these products."""
        return list(dict.fromkeys(self.products[pair].unit for pair in pairs))

    def _peak(self, y: torch.Tensor) -> torch.Tensor:
        """Largest magnitude of every sequence: of y [.., D, k, G, H] as [k, G], or [k, 1] where the gates have one scale."""
        y = y.abs().amax((0, 1) if y.ndim == 5 else 0).amax(-1)
        return y.amax(-1, keepdim=True) if self.joint else y

    def _wide(self, source: str, value: torch.Tensor) -> torch.Tensor:
        return value if self.exact else fixed_vector(value, self.owner.known.largest[self.base, source])

    def _vector(self, source: str, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Codes of what enters a product, held; and codes per value: a number, or [k, 1] in calibration; 1 of fixed point."""
        bits = self.code_bits[source]
        if bits == WIDE:
            return self._hold(source, self._wide(source, value)), 1.0
        if self.looking.mode == "quantized":
            scale = scale_of(self._threshold(source, value, bits), bits)[:, None]
            return vector_codes(value, scale, bits), torch.where(scale > 0, scale, 1.0)
        if source not in self.steps:
            self.steps[source] = float(scale_of(self.owner.known.t[self.base, source], bits))
        return self._hold(source, vector_codes(value, self.steps[source], bits)), self.steps[source] or 1.0

    def _threshold(self, source: str, value: torch.Tensor, bits: int) -> torch.Tensor:
        """T of every sequence, [k]. Of what is inside the loop, of the step while it is among the first ones."""
        if self.step is not None:
            if self.step < STEPS.get(self.program.cell, 5):
                now = mmse(value.transpose(0, 1).flatten(1), bits)
                before = self.thresholds.get(source, now.clone())
                before[: len(now)] = now
                self.thresholds[source] = before
                self.looking.values["t"][self.base, source] = before
            return self.thresholds[source][: value.shape[-2]]
        rows = value.permute(2, 0, 1, 3).flatten(1)  # of the reversed direction, too, which has the same frames
        if self.fc:
            found = 0.8 * rows.abs().amax(1)
        else:
            real = self.batch.real.T[:, :, None].expand(-1, -1, rows.shape[1] // len(self.batch.real)).flatten(1)
            found = mmse(rows, bits, real)
        self.looking.values["t"][self.base, source] = found
        return found

    def _matched(self, pairs: list, y: torch.Tensor) -> torch.Tensor:
        """A product of codes, [.., D, k, G, H], in real scale: y D / max |y|."""
        units = self._units(pairs)
        target = torch.tensor([self.owner.known.d[self.base, unit] for unit in units])
        if self.looking.mode == "quantized" or not self.joint:
            peak = self._peak(y)
            if self.joint:
                self.looking.maximum("m", self.base, units, peak)
        else:
            peak = torch.tensor([[self.owner.known.m[self.base, unit] for unit in units]])
        factor = torch.where(peak > 0, target / peak.clamp_min(1e-12), 0.0)  # [k or 1, G or 1]
        return y * factor[..., None]

    def _hold(self, source: str, codes: torch.Tensor) -> torch.Tensor:
        """v̂: a code stays where it has changed by no more than θ. Counts what changed; the first frames pass, and count."""
        if self.looking.mode != "use":
            return codes
        theta, key = self.owner.thetas.get((self.base, source), 0), (self.base, source)
        if self.step is None:
            held, real = codes, self.batch.real[:, None, :, None]
            if theta:
                frames = list(codes[:FREE].unbind())
                for now in codes[FREE:]:
                    frames.append(torch.where((now - frames[-1]).abs() > theta, now, frames[-1]))
                held = torch.stack(frames)
            per_frame = codes.shape[1] * codes.shape[3]
            changed = float(((held[FREE:] != held[FREE - 1 : -1]) & real[FREE:]).sum())
            free = int(self.batch.real[:FREE].sum()) * per_frame
            self.looking.count(key, free + changed, int(self.batch.lengths.sum()) * per_frame)
            return held
        if self.step < FREE:
            self.looking.count(key, codes.numel(), codes.numel())
            held = codes
        else:
            before = self.holds[source][:, : codes.shape[1]]
            changed = (codes - before).abs() > theta
            held = torch.where(changed, codes, before) if theta else codes
            self.looking.count(key, changed.sum(), codes.numel())
        self.holds[source] = held
        return held
