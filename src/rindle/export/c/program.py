"""A program node as one C function: element-wise operations fused into loops, affines between them."""

from __future__ import annotations

from functools import cached_property

from ...numbers import bounds
from ...numbers.codes import alignment, one_of
from .affine import AffineWriter
from .arrays import Constants, Names, Struct, comment
from .expressions import INT32, finished, times


class Tables:
    """One function for each table and format of its results."""

    def __init__(self, names: Names, constants: Constants):
        self._names, self._constants = names, constants
        self._known: dict[tuple, str] = {}
        self.text: list[str] = []

    def function(self, table, fmt) -> str:
        """Its name: from code to code, (17) to (19)."""
        base = self._constants.add(f"{table.function}_base", table.base, "int16_t", "tables")
        slope = None
        if table.degree:
            slope = self._constants.add(f"{table.function}_slope", table.slope, "int16_t", "tables")
        key = base, slope, table.flag, table.x0, table.p, table.q, fmt.lo, fmt.hi, fmt.frac
        if key not in self._known:
            self._known[key] = name = self._names.take(table.function)
            # A code has 16 bits: an x0 far outside of them means the same as a nearer one, and x - x0 fits 32 bits.
            start = "x < 0 ? -x : x" if table.flag != "none" else minus("x", min(max(table.x0, -(2**24)), 2**16))
            u = f"rindle_sat({start}, 0, {table.top})"
            y = f"{base}[{u} >> {table.p}]"
            if table.degree:
                y = f"rindle_line({u}, {table.p}, {table.q}, {base}, {slope}, {fmt.lo}, {fmt.hi})"
            if table.flag != "none":
                y = f"rindle_mirror(x, {y}, {0 if table.flag == 'odd' else 2**fmt.frac}, {fmt.lo}, {fmt.hi})"
            self.text.append(f"static inline int32_t {name}(int32_t x)\n{{\n    return {y};\n}}")
        return self._known[key]


def minus(x: str, value: int) -> str:
    return x if value == 0 else f"{x} - {value}" if value > 0 else f"{x} + {-value}"


class ProgramWriter:
    """remembers: the node is on a sequence; on a vector it runs once per row, from v̂ = 0.

    state, work: what the function keeps from frame to frame, and within one. value: where the node's value is, "own" for
    an array that the caller gives, "input" with its number, or a member of the state.
    """

    def __init__(self, node, name: str, prefix: str, constants, tables, products, remembers: bool):
        self.node, self.layer, self.program = node, node.layer, node.layer.program
        self.name, self.prefix, self.remembers = name, prefix, remembers
        self.constants, self.tables, self.products = constants, tables, products
        self.state, self.work = Struct(f"{prefix}_{name}"), Struct(f"{prefix}_{name}_work")
        self.locals = Names()
        self.words = {path: self.locals.take(path) for path in self.program.sizes}
        self.inputs = [self.locals.take(f"{path}_in") for path in self.program.inputs]
        self.places: dict[str, str] = {}  # path -> the array that holds it
        self.lines: list[str] = []
        self.begins: list[str] = []  # of the reset: states that do not begin at zero
        self.affines = AffineWriter(self)
        self._place_known()
        self.value = self._value()

    # -- where everything is

    @cached_property
    def segments(self) -> list[list]:
        """Runs of element-wise operations of one size, which become one loop, and affines alone."""
        runs: list[list] = []
        for op in self.program.ops:
            joins = runs and op.kind != "affine" and runs[-1][0].kind != "affine"
            if joins and self.size(runs[-1][0].out[0]) == self.size(op.out[0]):
                runs[-1].append(op)
            else:
                runs.append([op])
        return runs

    def size(self, path: str) -> int:
        return self.program.sizes[path]

    @cached_property
    def _written(self) -> dict[str, int]:
        return {out: i for i, ops in enumerate(self.segments) for op in ops for out in op.out}

    @cached_property
    def _last_read(self) -> dict[str, int]:
        end = len(self.segments)
        reads = {path: i for i, ops in enumerate(self.segments) for op in ops for path in op.reads}
        return reads | {path: end for _, path in self.program.states} | {self.program.output: end}

    @cached_property
    def _in_place(self) -> dict[str, str]:
        """Next values, made in a loop, that may take their state's place: nothing reads the old one afterwards."""
        loops = {out for ops in self.segments for op in ops if op.kind != "affine" for out in op.out}
        return {
            following: state
            for state, following in self.program.states
            if following in loops and self._last_read.get(state, -1) <= self._written[following]
        }

    def _place_known(self) -> None:
        self.places |= dict(zip(self.program.inputs, self.inputs))
        for path, codes in self.layer.vectors.items():
            self.places[path] = self.constants.add(f"{self.name}_{path}", codes, "int16_t", "vectors and thresholds")
        for state, _ in self.program.states:
            self.places[state] = f"state->{self.state.array('int16_t', self.words[state], self.size(state))}"
        for state, codes in self.layer.initial.items():
            begins = self.constants.add(f"{self.name}_{state}_initial", codes, "int16_t", "vectors and thresholds")
            own = self.places[state].replace("state->", f"state->{self.name}.", 1)
            self.begins.append(f"rindle_copy({self.size(state)}, {begins}, {own});")

    def place(self, path: str) -> str:
        """Of a path that a loop or an affine of one gate writes, and something else reads."""
        if path not in self.places:
            if path in self._in_place:
                self.places[path] = self.places[self._in_place[path]]
            elif path == self.program.output:
                self.places[path] = "out"
            else:
                self.places[path] = self.scratch(self.words[path], self.size(path))
        return self.places[path]

    def scratch(self, name: str, elements: int, ctype: str = "int16_t") -> str:
        return f"work->{self.work.array(ctype, name, elements)}"

    def codes(self, name: str, elements: int) -> str:
        """Scratch of what products read."""
        return f"work->{self.work.codes(name, elements)}"

    def _value(self):
        output = self.program.output
        if output in self.program.inputs:
            return "input", self.program.inputs.index(output)
        if output in self._in_place:
            return "state", self.places[self._in_place[output]].removeprefix("state->")
        return "own", None

    # -- the function

    def function(self) -> str:
        for ops in self.segments:
            if ops[0].kind == "affine":
                self.affines.write(ops[0])
            else:
                self._loop(ops)
        self._leave()
        parameters = [f"{self.state.name} *state"] if self.state.fields else []
        parameters += [f"{self.work.name} *work"] if self.work.fields else []
        parameters += [f"const int16_t *{name}" for name in self.inputs]
        parameters += ["int16_t *out"] if self.value[0] == "own" else []
        body = "\n".join(f"    {line}" if line else "" for line in self.lines)
        title = f"/* {comment(self.node.name)}: {comment(self.program.cell)} */"
        return f"{title}\nstatic void {self.prefix}_run_{self.name}({', '.join(parameters)})\n{{\n{body}\n}}"

    def call(self, sources: list[str], y: str) -> str:
        arguments = [f"&state->{self.name}"] if self.state.fields else []
        arguments += [f"&state->work.{self.name}"] if self.work.fields else []
        arguments += [*sources, *([y] if self.value[0] == "own" else [])]
        return f"{self.prefix}_run_{self.name}({', '.join(arguments)});"

    def _loop(self, ops: list) -> None:
        here = {op.out[0] for op in ops}
        body, loaded = [], set()
        for op in ops:
            for path in op.args:
                if path not in here and path not in loaded:
                    loaded.add(path)
                    body.append(f"const int32_t {self.words[path]} = {self.places[path]}[k];")
            value = self._value_of(op)
            body.append(f"const int32_t {self.words[op.out[0]]} = {value}; /* {op.kind} */")
        index = self._written[ops[0].out[0]]
        for op in ops:
            path = op.out[0]
            if path in self.program.codes:
                body += [f"{array}[k] = (int16_t){self.words[path]};" for array in self.affines.arrays(path)]
            elif self._last_read.get(path, -1) > index:
                body.append(f"{self.place(path)}[k] = (int16_t){self.words[path]};")
        self.lines += [
            f"for (int32_t k = 0; k < {self.size(ops[0].out[0])}; ++k) {{",
            *(f"    {line}" for line in body),
            "}",
        ]
        for op in ops:
            if op.out[0] in self.program.codes:
                self.affines.prepare(op.out[0])

    def _value_of(self, op) -> str:
        result, constant = self.layer.formats[op.out[0]], self.layer.constants.get(op.out[0])
        a = [self.words[path] for path in op.args]
        if op.kind == "clip":
            return f"rindle_sat({a[0]}, {constant[0]}, {constant[1]})"
        if op.kind == "table":
            return f"{self.tables.function(constant, result)}({a[0]})"
        operands = tuple(self.layer.formats[path] for path in op.args)
        if op.kind == "requantize":
            bound = bounds.requantized(operands[0], constant)
            return finished(times(a[0], constant.multiplier, bound >= INT32), bound, constant.shift, result)
        lefts, shift = alignment(op.kind, tuple(fmt.frac for fmt in operands), result.frac)
        bound = bounds.elementwise(op.kind, operands, result)
        terms = {
            "add": lambda: (a[0], a[1]),
            "sub": lambda: (a[0], a[1]),
            "mul": lambda: (f"{a[0]} * {a[1]}",),
            "sum_of_products": lambda: (f"{a[0]} * {a[1]}", f"{a[2]} * {a[3]}"),
            "lerp": lambda: (f"{a[0]} * {a[1]}", f"({one_of(operands[0])} - {a[0]}) * {a[2]}"),
        }[op.kind]()
        up = max(-shift, 0)
        wide = bound >= INT32
        v = (" - " if op.kind == "sub" else " + ").join(
            times(term, 2 ** (left + up), wide) for term, left in zip(terms, lefts)
        )
        return finished(v, bound, max(shift, 0), result)

    def _leave(self) -> None:
        """The value, and the states that were not written in place."""
        output, states = self.program.output, dict(self.program.states)
        if self.value[0] == "own" and self.places[output] != "out":
            self._copy(output, "out")
        late = {state: path for state, path in states.items() if path not in self._in_place}
        sources = {}
        for state, path in late.items():
            sources[state] = self.places[path]
            if path in states:  # another state's old value, which is about to change
                sources[state] = self.scratch(f"old_{self.words[path]}", self.size(path))
                self._copy(path, sources[state])
        for state, source in sources.items():
            self.lines.append(f"rindle_copy({self.size(state)}, {source}, {self.places[state]});")

    def _copy(self, path: str, to: str) -> None:
        self.lines.append(f"rindle_copy({self.size(path)}, {self.places[path]}, {to});")
