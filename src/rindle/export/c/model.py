"""A whole model in C: what it refuses, its state, and the function that takes one frame."""

from __future__ import annotations

import numpy as np

from ...errors import RindleError
from ...file.container import model_id
from ...program.nodes import (
    INPUT,
    ConcatNode,
    EmbeddingNode,
    FloatNode,
    GatherNode,
    LastNode,
    Node,
    ProgramNode,
    WindowNode,
)
from .affine import Products
from .arrays import Constants, Names, Struct, array_text, comment
from .operations import needed
from .program import ProgramWriter, Tables

INSTEAD = {
    "mean": "let the model end with the last frame, y[:, -1]",
    "max": "let the model end with the last frame, y[:, -1]",
    "first": "let the model end with the last frame, y[:, -1]",
    "program": "train the layer in one direction",
    "window": "make the convolution causal: all padding before the row, none behind it, stride 1",
}


def check(artifact) -> None:
    """Raises RindleError, which names the node, the reason and the remedy, for what cannot take one frame at a time."""
    for node in artifact.graph.nodes:
        if isinstance(node, FloatNode):
            raise RindleError(
                f"the node {node.name!r} computes {node.op.name} in floating point, and the C has integers only; quantize the "
                f"model without it, and compute it from the output of {' and '.join(map(repr, node.sources))}"
            )
        if node.why_whole:
            raise RindleError(
                f"the node {node.name!r} has no form in C, which takes one frame at a time: it {node.why_whole}; "
                f"{INSTEAD[node.kind]}, or run this file with rindle.load"
            )


class ModelWriter:
    """header, source: the text of the two files. constants: with their sizes. state: the struct that the caller keeps."""

    def __init__(self, artifact, prefix: str):
        self.artifact, self.graph, self.prefix = artifact, artifact.graph, prefix
        names = Names(own=f"{prefix}_")
        self.constants = Constants(names)
        self.tables, self.products = Tables(names, self.constants), Products(names)
        self.state, self.work = Struct(f"{prefix}_state"), Struct("work", union=True)
        self._nodes = Names()  # a node's member of the state, its function and its constants
        self._types: list[str] = []
        self._functions: list[str] = []
        self._begins: list[str] = []  # lines of the reset: states that do not begin at zero
        self._lines: list[str] = []
        self._values = {INPUT: "x"}
        for node in self.graph.nodes:
            self._values[node.name] = WRITERS[type(node)](self, node)
        self.state.nest(self.work, "work")
        if not self.state.fields:
            self.state.array("int16_t", "nothing", 1)  # C has no empty struct
        output = self._values[self.graph.output]
        if output != "y":
            self._lines.append(f"rindle_copy({artifact.output_size}, {output}, y);")

    # -- nodes: each writes its lines, and returns where its value is

    def _own(self, node: Node, name: str) -> str:
        if node.name == self.graph.output:
            return "y"
        return f"state->{self.state.array('int16_t', f'{name}_value', self.graph.size_of(node.name))}"

    def _program(self, node: ProgramNode) -> str:
        name = self._nodes.take(node.name)
        remembers = self.graph.is_sequence(node.sources[0])
        writer = ProgramWriter(node, name, self.prefix, self.constants, self.tables, self.products, remembers)
        self._functions.append(writer.function())
        self._begins += writer.begins
        where, what = writer.value
        value = self._own(node, name) if where == "own" else None
        self._lines.append(writer.call([self._values[source] for source in node.sources], value))
        for struct, parent in ((writer.state, self.state), (writer.work, self.work)):
            if struct.fields:
                self._types.append(struct.typedef())
                parent.nest(struct, name)
        return {"own": value, "state": f"state->{name}.{what}", "input": None}[where] or self._values[
            node.sources[what]
        ]

    def _last(self, node: LastNode) -> str:
        return self._values[node.source]  # what it would be if the sequence ended here

    def _concat(self, node: ConcatNode) -> str:
        value, first = self._own(node, self._nodes.take(node.name)), 0
        for source in node.sources:
            size = self.graph.size_of(source)
            self._lines.append(f"rindle_copy({size}, {self._values[source]}, {value} + {first});")
            first += size
        return value

    def _gather(self, node: GatherNode) -> str:
        name = self._nodes.take(node.name)
        value = self._own(node, name)
        index = self.constants.add(f"{name}_index", np.array(node.index), "int32_t", "vectors and thresholds")
        self._lines.append(f"rindle_gather({len(node.index)}, {index}, {self._values[node.source]}, {value});")
        return value

    def _embedding(self, node: EmbeddingNode) -> str:
        name, rows, bits = self._nodes.take(node.name), np.asarray(node.rows), node.format.bits
        value = self._own(node, name)
        table, size = self.constants.codes(name, rows, bits, "embeddings"), rows.shape[1]
        if bits > 8:
            self._lines.append(f"rindle_copy({size}, {table} + id * {size}, {value});")
        elif bits == 8:
            self._lines.append(f"rindle_look_up_8({size}, {table} + id * {size}, {value});")
        else:
            stride = (size * bits + 7) // 8
            self._lines.append(f"rindle_look_up_packed({size}, {table} + id * {stride}, {bits}, {value});")
        return value

    def _window(self, node: WindowNode) -> str:
        """(23), causal: the last frames in a ring, the oldest of which the new one replaces."""
        window, size = node.window, self.graph.size_of(node.source)
        if window.size == 1:
            return self._values[node.source]
        name, source = self._nodes.take(node.name), self._values[node.source]
        value = self._own(node, name)
        frames = f"state->{self.state.array('int16_t', f'{name}_frames', window.reach * size)}"
        oldest = f"state->{self.state.array('int32_t', f'{name}_oldest', 1)}[0]"
        self._lines += [
            f"for (int32_t k = 0; k < {window.size - 1}; ++k) {{",
            f"    const int32_t behind = {oldest} + k * {window.dilation};",
            f"    const int32_t at = behind < {window.reach} ? behind : behind - {window.reach};",
            f"    rindle_copy({size}, {frames} + at * {size}, {value} + k * {size});",
            "}",
            f"rindle_copy({size}, {source}, {value} + {(window.size - 1) * size});",
            f"rindle_copy({size}, {source}, {frames} + {oldest} * {size});",
            f"if (++{oldest} == {window.reach}) {oldest} = 0;",
        ]
        return value

    # -- the files

    @property
    def _signature(self) -> str:
        frame = "int32_t id" if self.graph.vocabulary else "const int16_t *x"
        return f"{'int' if self.graph.vocabulary else 'void'} {self.prefix}_step({self.prefix}_state *state, {frame}, int16_t *y)"

    @property
    def header(self) -> str:
        upper, graph = self.prefix.upper(), self.graph
        lines = [f"#define {upper}_OUTPUTS {self.artifact.output_size} /* codes of one output */"]
        step = "/* One frame: reads x, writes y; they must not overlap. x: codes from "
        if graph.vocabulary:
            lines.append(f"#define {upper}_VOCABULARY {graph.vocabulary} /* ids are 0 .. {graph.vocabulary - 1} */")
            step = (
                "/* One frame: reads an id, writes y. Returns 0; or 1 for an id out of range, which changes nothing. */"
            )
        else:
            fmt = self.artifact.input_format
            lines += [
                f"#define {upper}_INPUTS {graph.input_size} /* codes of one frame */",
                f"#define {upper}_INPUT_LO ({fmt.lo})",
                f"#define {upper}_INPUT_HI {fmt.hi}",
                f"#define {upper}_INPUT_SCALE {_float(fmt.scale)} /* value = code * scale; code = floor(value / scale + 0.5), saturated */",
            ]
            step += f"{upper}_INPUT_LO to {upper}_INPUT_HI. */"
        lines.append(f"#define {upper}_OUTPUT_SCALE {_float(self.artifact.output_format.scale)}")
        types = [*self._types, self.state.typedef()]
        return "\n".join(
            [
                f"/* {self._title} */",
                f"#ifndef RINDLE_{upper}_H",
                f"#define RINDLE_{upper}_H",
                "#include <stdint.h>",
                "",
                *lines,
                "",
                "#ifdef __cplusplus",
                'extern "C" {',
                "#endif",
                "",
                "\n\n".join(types),
                "",
                "/* Before the first frame of a sequence. */",
                f"void {self.prefix}_reset({self.prefix}_state *state);",
                "",
                step,
                f"{self._signature};",
                "",
                "#ifdef __cplusplus",
                "}",
                "#endif",
                "#endif",
                "",
            ]
        )

    @property
    def source(self) -> str:
        body = [f"    {line}" for line in self._lines]
        if self.graph.vocabulary:
            body = [f"    if (id < 0 || id >= {self.graph.vocabulary}) return 1;", *body, "    return 0;"]
        if not any("state" in line for line in self._lines):
            body = ["    (void)state;", *body]
        reset = [
            f"void {self.prefix}_reset({self.prefix}_state *state)",
            "{",
            "    rindle_zero(sizeof *state, state);",
            *(f"    {line}" for line in self._begins),
            "}",
        ]
        text = [
            *self.tables.text,
            *self.products.text,
            *self._functions,
            "\n".join(reset),
            "\n".join([self._signature, "{", *body, "}"]),
        ]
        code = "\n\n".join(text)
        checks = [
            "typedef char rindle_int_has_32_bits[sizeof(int) >= 4 ? 1 : -1];",
            "typedef char rindle_shifts_are_arithmetic[(-3 >> 1) == -2 ? 1 : -1];",
        ]
        return "\n\n".join(
            [
                f"/* {self._title}\n   Numbers in brackets are equations of Rindle's docs/numerics.md. */\n"
                f'#include "{self.prefix}.h"\n#include <stddef.h>',
                "/* What this code asks of the compiler. */\n" + "\n".join(checks),
                needed("\n".join([*self.constants.text, code])),
                *self.constants.text,
                code + "\n",
            ]
        )

    @property
    def _title(self) -> str:
        nodes = ", ".join(comment(node.name) for node in self.graph.nodes)
        return f"Made by rindle from the model {model_id(self.artifact)[:16]}: {nodes}."

    @property
    def golden(self) -> str:
        """The golden vector, and the function that replays it."""
        golden, graph = self.artifact.golden, self.graph
        real = np.arange(golden.inputs.shape[1]) < golden.lengths[:, None]
        sequence = graph.is_sequence(graph.output)
        outputs = golden.outputs[real] if sequence else golden.outputs
        ctype = "int32_t" if graph.vocabulary else "int16_t"
        arrays = [
            (f"static const {ctype} inputs[{{}}]", golden.inputs[real], ctype),
            ("static const int16_t outputs[{}]", outputs, "int16_t"),
            ("static const int32_t lengths[{}]", golden.lengths, "int32_t"),
        ]
        size, prefix = self.artifact.output_size, self.prefix
        frame = "*x++" if graph.vocabulary else "x"
        step = [f"{prefix}_step(&state, {frame}, y);"]
        step = [f"wrong += {step[0]}"] if graph.vocabulary else [*step, f"x += {graph.input_size};"]
        compare = f"for (k = 0; k < {size}; ++k) wrong += y[k] != *wanted++;"
        each = [*step, compare] if sequence else step
        return "\n\n".join(
            [
                f'/* The golden vector of the model in {prefix}.h: codes in, and the codes that must come out. */\n#include "{prefix}.h"',
                *(array_text(head.format(values.size), values.reshape(-1), kind) for head, values, kind in arrays),
                f"/* Replays it; returns how many codes differ. */\nint {prefix}_golden(void);",
                "\n".join(
                    [
                        f"int {prefix}_golden(void)",
                        "{",
                        f"    static {prefix}_state state;",
                        f"    int16_t y[{size}];",
                        f"    const {ctype} *x = inputs;",
                        "    const int16_t *wanted = outputs;",
                        "    int32_t row, t, k;",
                        "    int wrong = 0;",
                        f"    for (row = 0; row < {len(golden.lengths)}; ++row) {{",
                        f"        {prefix}_reset(&state);",
                        "        for (t = 0; t < lengths[row]; ++t) {",
                        *(f"            {line}" for line in each),
                        "        }",
                        *([] if sequence else [f"        {compare}"]),
                        "    }",
                        "    return wrong;",
                        "}",
                        "",
                    ]
                ),
            ]
        )


# What has no writer needs the whole sequence, or computes in floating point: ``check`` refuses it.
WRITERS = {
    ProgramNode: ModelWriter._program,
    LastNode: ModelWriter._last,
    ConcatNode: ModelWriter._concat,
    GatherNode: ModelWriter._gather,
    EmbeddingNode: ModelWriter._embedding,
    WindowNode: ModelWriter._window,
}


def _float(scale: float) -> str:
    text = f"{np.float32(scale):.9g}"
    return f"{text if set(text) & set('.e') else text + '.0'}f"
