"""Affines of a program node in C, (7) and (7c): products of codes with matrices or patches, and one rounding per row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...numbers import bounds
from ...numbers.levels import Levels
from .arrays import Names, comment, planes, smallest, words
from .expressions import INT32, finished, times

BLOCK = 16  # rows whose sums are on the stack at once


@dataclass
class Matrix:
    """One term of an affine in C. rows, columns: of the weights. array: their constant. wide: its sums have 64 bits.

    code: the array of codes that it meets; acc: where kept accumulators are, of a held code.
    """

    term: object
    product: object
    bits: int
    wide: bool
    narrow: int  # whether no code is beyond 273: see products.c
    array: str = ""
    code: str = ""
    acc: str = ""

    @property
    def rows(self) -> int:
        return len(self.product.weight)

    @property
    def columns(self) -> int:
        return self.product.weight.shape[1]

    @property
    def form(self) -> str:
        """Of the functions in products.c and delta.c."""
        return "8" if self.bits == 8 else "16" if self.bits > 8 else "planes"

    @property
    def stride(self) -> int:
        """Elements of the constant per row."""
        return self.columns if self.bits >= 8 else words(self.columns, self.bits)

    @property
    def order(self) -> str:
        """In which order its codes stand: the SIMD form of 8 bits has its own."""
        return "8" if self.bits == 8 and not self.wide else ""

    @property
    def shape(self) -> str:
        """What functions of planes must know besides."""
        if self.bits >= 8:
            return ""
        alpha, beta = self.levels.alpha, self.levels.beta
        return f"{self.bits}, {alpha}, {beta}, " if self.wide else f"{self.bits}, {alpha}, {self.narrow}, "

    @property
    def ctype(self) -> str:
        return "int64_t" if self.wide else "int32_t"

    @property
    def levels(self) -> Levels:
        """What a stored q of fewer than 8 bits is worth: a sum of levels is alpha times that of q, plus beta times the sum of the code."""
        return self.product.format.level_set

    @property
    def starts(self) -> bool:
        """Whether its sums begin with beta times the sum of the code."""
        return self.bits < 8 and not self.wide

    @property
    def weight_type(self) -> str:
        return "int8_t" if self.bits == 8 else "int16_t" if self.bits > 8 else "uint32_t"


class Products:
    """One function for each kind of product: its number of columns is a constant there."""

    def __init__(self, names: Names):
        self._names = names
        self._known: dict[tuple, str] = {}
        self.text: list[str] = []

    def call(self, m: Matrix, rows: int, first: str, code: str, start: str, acc: str) -> str:
        """acc = so many rows of the weights, from ``first`` on, times code. start: of weights below 8 bits."""
        key = m.bits, m.columns, m.wide, m.narrow, m.levels
        if key not in self._known:
            self._known[key] = self._function(m)
        start = f"{start}, " if m.starts else ""
        return f"{self._known[key]}({rows}, {m.array}{first}, {code}, {start}{acc});"

    def _function(self, m: Matrix) -> str:
        wide = "_wide" if m.wide else "" if m.narrow or m.bits >= 8 else "_16"
        codes = m.product.format.levels or f"{m.bits}_bits"
        name = self._names.take(f"rows_{codes}_{m.columns}{wide}")
        start, take = ("start, ", "int32_t start, ") if m.starts else ("", "")
        self.text.append(
            f"static RINDLE_APART void {name}(int32_t rows, const {m.weight_type} *w, const int16_t *x, {take}{m.ctype} *acc)\n"
            f"{{\n    rindle_rows{'64' if m.wide else ''}_{m.form}(rows, w, {m.columns}, {m.shape}x, {start}acc);\n}}"
        )
        return name


class AffineWriter:
    """All affines of one program, and the codes that they read."""

    def __init__(self, writer):
        self.writer, self.layer, self.program = writer, writer.layer, writer.program
        self.matrices = {op.out[0]: [self._matrix(op, i) for i in range(len(op.terms))] for op in self.program.affines}
        self._arrays: dict[str, dict[str, str]] = {}  # code -> order -> array

    def _matrix(self, op, index: int) -> Matrix:
        term, product = op.terms[index], self.layer.constants[op.out[0]].products[index]
        fmt = self.layer.formats[term.code]
        bits, largest, levels = product.format.bits, bounds.largest(fmt), product.format.level_set
        reach = int(bounds.accumulators(product.weight, fmt).max())
        # Of the stored q, the sums on the way are larger.
        most = levels.alpha * (2**bits - 1) + abs(levels.beta)
        on_the_way = most * product.weight.shape[1] * largest if bits < 8 else 0
        return Matrix(term, product, bits, max(reach, on_the_way) >= INT32, int(largest <= 273))

    def _of_code(self, code: str) -> list[Matrix]:
        return [m for matrices in self.matrices.values() for m in matrices if m.term.code == code]

    def _is_kept(self, code: str) -> bool:
        return code in self.layer.thetas and self.writer.remembers

    # -- codes

    def arrays(self, code: str) -> list[str]:
        """Where the loop that makes a code writes it: once for each order in which it is read."""
        if code not in self._arrays:
            orders = {m.order if m.term.conv is None else "" for m in self._of_code(code)}
            orders = {""} if self._is_kept(code) else orders
            word, size = self.writer.words[code], self.writer.size(code)
            self._arrays[code] = {
                order: self.writer.codes(f"{word}_{order}" if order and len(orders) > 1 else word, size)
                for order in sorted(orders)
            }
        return list(self._arrays[code].values())

    def prepare(self, code: str) -> None:
        """After that loop: (20), and the order of the columns."""
        writer, size, word = self.writer, self.writer.size(code), self.writer.words[code]
        theta, each = self.layer.thetas.get(code), ""
        if theta is not None:
            each = "_each" if isinstance(theta, np.ndarray) else ""
            name = f"{writer.name}_{code}_theta"
            theta = writer.constants.add(name, theta, "int16_t", "vectors and thresholds") if each else str(theta)
        if self._is_kept(code):
            self._hold(code, theta, each, size, word)
            return
        for order, array in self._arrays[code].items():
            if theta is not None:
                writer.lines.append(f"rindle_quiet{each}({size}, {theta}, {array});")
            if order:
                writer.lines.append(f"rindle_order_{order}({size}, {array});")

    def _hold(self, code: str, theta: str, each: str, size: int, word: str) -> None:
        writer = self.writer
        (array,) = self._arrays[code].values()
        held = f"state->{writer.state.codes(f'{word}_held', size)}"
        columns = writer.scratch(f"{word}_columns", size, "int32_t")
        changes = writer.scratch(f"{word}_changes", size, "int32_t")
        call = f"rindle_hold{each}({size}, {array}, {theta}, {held}, {columns}, {changes});"
        kept = [m for m in self._of_code(code) if m.term.conv is None]
        count = writer.locals.take(f"{word}_count")
        writer.lines.append(f"const int32_t {count} = {call}" if kept else f"(void){call}")
        for m in kept:
            m.acc = f"state->{writer.state.array(m.ctype, f'{writer.locals.take(str(m.term.key))}_acc', m.rows)}"
            m.array = self._weights(m, m.product.weight.T)
            wide = "64" if m.wide else ""
            writer.lines.append(
                f"rindle_columns{wide}_{m.form}({count}, {columns}, {changes}, {m.rows}, {m.array}, {m.shape}{m.acc});"
            )
        for m in self._of_code(code):
            m.code = held

    def _weights(self, m: Matrix, codes: np.ndarray) -> str:
        name = f"{self.writer.name}_{m.term.key}"
        if m.bits < 8:
            q = m.levels.stored(codes) ^ m.levels.flip
            return self.writer.constants.add(name, planes(q, m.bits), "uint32_t", "weights")
        return self.writer.constants.codes(name, codes, m.bits, "weights")

    # -- affines

    def write(self, op) -> None:
        writer, matrices = self.writer, self.matrices[op.out[0]]
        for m in matrices:
            if not m.acc:
                m.array = self._weights(m, m.product.weight)
                order = m.order if m.term.conv is None else ""
                m.code = m.code or self._arrays[m.term.code][order]
        sizes = [writer.size(gate) for gate in op.out]
        if len(op.out) == 1:
            base = writer.place(op.out[0])
        else:
            base = writer.scratch("_".join(writer.words[gate] for gate in op.out), sum(sizes))
            for gate, first in zip(op.out, np.cumsum([0, *sizes[:-1]]).tolist()):
                writer.places[gate] = f"({base} + {first})" if first else base
        sources = " + ".join(f"W {comment(m.term.source)}" for m in matrices)
        writer.lines.append(f"/* {comment(' '.join(op.out))} = {sources} + b, (7) */")
        if op.terms[0].conv:
            self._convolution(op, matrices, base)
            return
        starts = self._starts(matrices)
        for first, rows, gates in self._runs(op):
            self._rows(op, matrices, base, first, rows, gates, starts)

    def _starts(self, matrices) -> dict[int, str]:
        """beta times the sum of a code, of weights that are stored as q."""
        starts = {}
        for m in matrices:
            if m.starts:
                starts[id(m)] = name = self.writer.locals.take(f"{self.writer.words[m.term.code]}_start")
                size = self.writer.size(m.term.code)
                self.writer.lines.append(f"const int32_t {name} = {m.levels.beta} * rindle_sum({size}, {m.code});")
        return starts

    def _runs(self, op) -> list[tuple[int, int, list[str]]]:
        """Consecutive gates with the same terms and the same range: (first row, rows, gates)."""
        runs, first = [], 0
        for gate in op.out:
            rows, fmt = self.writer.size(gate) // op.pixels, self.layer.formats[gate]
            key = fmt.lo, fmt.hi, [gate in term.gates for term in op.terms]
            if runs and runs[-1][0] == key:
                runs[-1][2] += rows
                runs[-1][3].append(gate)
            else:
                runs.append([key, first, rows, [gate]])
            first += rows
        return [(first, rows, gates) for _, first, rows, gates in runs]

    def _offset(self, op, m: Matrix, first: int) -> int:
        """The row of a term that adds to the affine's row ``first``."""
        before = op.out[: op.out.index(m.term.gates[0])]
        return first - sum(self.writer.size(gate) // op.pixels for gate in before)

    def _finish(self, op, matrices, first: int, rows: int, gates, acc: dict, row: str) -> str:
        """One row's code, (7). acc: of each matrix, an expression. row: index from ``first`` on."""
        constant, fmt = self.layer.constants[op.out[0]], self.layer.formats[gates[0]]
        bias = constant.bias[first : first + rows]
        worst = bounds.affine(op, constant, self.layer.formats, self.program.sizes)[first : first + rows]
        bound = int(worst.max()) + bounds.rounding(constant.shift)
        wide, terms = bound >= INT32, []
        for m in matrices:
            offset = self._offset(op, m, first)
            multiplier = m.product.multiplier[offset : offset + rows]
            name = acc[id(m)]
            if (multiplier == multiplier[0]).all():
                terms += [times(name, int(multiplier[0]), wide)] if multiplier[0] else []
                continue
            array = self._constant(f"{m.term.key}_m", multiplier)
            terms.append(f"{times(name, 1, wide)} * {array}[{row}]")
        if bias.any():
            terms.append(f"{self._constant(f'{gates[0]}_b', bias)}[{row}]")
        return finished(" + ".join(terms) or "0", bound, constant.shift, fmt)

    def _constant(self, name: str, values: np.ndarray) -> str:
        return self.writer.constants.add(
            f"{self.writer.name}_{name}", values, smallest(values), "multipliers and biases"
        )

    def _rows(self, op, matrices, base: str, first: int, rows: int, gates, starts) -> None:
        """One loop over the rows of a run, in blocks."""
        mine = [m for m in matrices if gates[0] in m.term.gates]
        names = self.writer.locals
        local = {id(m): names.take(f"acc_{self.writer.words[m.term.code]}") for m in mine if not m.acc}
        acc = {id(m): f"{local[id(m)]}[lane]" for m in mine if not m.acc}
        for m in mine:
            if m.acc:
                offset = self._offset(op, m, first)
                kept = f"{m.acc}[{offset} + row + lane]" if offset else f"{m.acc}[row + lane]"
                acc[id(m)] = f"({kept} + {starts[id(m)]})" if m.starts else kept
        value = self._finish(op, mine, first, rows, gates, acc, "row + lane")
        target = f"{base}[{first} + row + lane]" if first else f"{base}[row + lane]"

        def block(count: int, row: str) -> list[str]:
            lines = []
            for m in mine:
                if m.acc:
                    continue
                skip = self._offset(op, m, first)
                start = f" + ({skip} + {row}) * {m.stride}" if skip else f" + {row} * {m.stride}"
                lines += [f"{m.ctype} {local[id(m)]}[{count}];"]
                lines += [self.writer.products.call(m, count, start, m.code, starts.get(id(m), ""), local[id(m)])]
            lines += [f"for (int32_t lane = 0; lane < {count}; ++lane) {target} = (int16_t){value};"]
            return lines

        whole = rows // BLOCK * BLOCK
        if whole:
            head = f"for (int32_t row = 0; row < {whole}; row += {BLOCK}) {{"
            self.writer.lines += [head, *(f"    {line}" for line in block(BLOCK, "row")), "}"]
        if rows - whole:
            lines = [f"const int32_t row = {whole};", *block(rows - whole, "row")]
            self.writer.lines += ["{", *(f"    {line}" for line in lines), "}"]

    def _convolution(self, op, matrices, base: str) -> None:
        """Pixel by pixel: the patch that the weights meet, the channels' accumulators, and their rounding."""
        writer, result = self.writer, op.terms[0].conv.result
        patch = writer.codes("patch", max(m.columns for m in matrices))
        lines, acc = [], {}
        for m in matrices:
            conv, channels = m.term.conv, writer.size(m.term.code) // math.prod(m.term.conv.image)
            geometry = writer.constants.geometry(f"{writer.name}_{m.term.key}_conv", conv, channels // conv.groups)
            array = writer.scratch(f"acc_{writer.words[m.term.code]}", m.rows, m.ctype)
            acc[id(m)] = f"{array}[row]"
            rows, one = m.rows // conv.groups, conv.groups == 1
            source = m.code if one else f"{m.code} + group * {channels // conv.groups * math.prod(conv.image)}"
            inner = [f"rindle_patch(&{geometry}, line, column, {source}, {patch});"]
            start = ""
            if m.starts:
                start = f"{m.levels.beta} * rindle_sum({m.columns}, {patch})"
            if m.order:
                inner.append(f"rindle_order_{m.order}({m.columns}, {patch});")
            skip = "" if one else f" + group * {rows * m.stride}"
            inner.append(
                writer.products.call(m, rows, skip, patch, start, array if one else f"{array} + group * {rows}")
            )
            if one:
                lines += inner
            else:
                lines += [
                    f"for (int32_t group = 0; group < {conv.groups}; ++group) {{",
                    *(f"    {line}" for line in inner),
                    "}",
                ]
        for first, rows, gates in self._runs(op):
            mine = [m for m in matrices if gates[0] in m.term.gates]
            here = {
                id(m): acc[id(m)].replace("[row]", f"[{self._offset(op, m, first)} + row]")
                if self._offset(op, m, first)
                else acc[id(m)]
                for m in mine
            }
            value = self._finish(op, mine, first, rows, gates, here, "row")
            row = f"({first} + row)" if first else "row"
            target = f"{base}[{row} * {op.pixels} + line * {result[1]} + column]"
            lines.append(f"for (int32_t row = 0; row < {rows}; ++row) {target} = (int16_t){value};")
        head = f"for (int32_t line = 0; line < {result[0]}; ++line) {{"
        middle = f"    for (int32_t column = 0; column < {result[1]}; ++column) {{"
        writer.lines += [head, middle, *(f"        {line}" for line in lines), "    }", "}"]
