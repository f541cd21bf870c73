from __future__ import annotations

import numpy as np
from rich.table import Table

from ..cost import measured_inputs, sizes
from ..graph import INPUT
from ..runtime import load
from .app import File, app, console


@app.command()
def inspect(file: File) -> None:
    """Show a model: its nodes, formats, thresholds, operations and bytes."""
    model = load(file)
    artifact = model.artifact
    console.print(f"{file}: {len(model.data):,} bytes, id {model.id[:16]}…")
    for key, value in artifact.provenance.items():
        console.print(f"{key}: {value}")

    nodes = Table("node", "kind", "reads", "value", "format", title="graph")
    shape = "[T]" if model.vocabulary else f"[T, {model.input_size}]"
    fmt = f"ids 0..{model.vocabulary - 1}" if model.vocabulary else str(artifact.input_format)
    nodes.add_row(INPUT, "", "", shape, fmt)
    for node in artifact.graph.nodes:
        fmt = str(artifact.format_of(node.name))
        size = artifact.graph.size_of(node.name)
        shape = f"[T, {size}]" if artifact.graph.is_sequence(node.name) else f"[{size}]"
        kind = node.layer.program.cell if node.kind == "program" else node.kind
        kind += ", reversed" if node.reverse else ""
        nodes.add_row(node.name, kind, ", ".join(node.sources), shape, fmt)
    console.print(nodes)

    paths = Table("path", "size", "format", "made by", "max error", title="formats")
    products = Table("product", "weights", "code", "θ", title="products")
    for node in artifact.graph.programs:
        layer, program = node.layer, node.layer.program
        made = {out: op for op in program.ops for out in op.out}
        for path in (program.input, *(state for state, _ in program.states), *program.vectors, *made):
            size, op = program.sizes[path], made.get(path)
            table = layer.constants.get(path) if op and op.kind == "table" else None
            error = f"{table.max_error:.2g}" if table else ""
            paths.add_row(f"{node.name}/{path}", str(size), str(layer.formats[path]), op.kind if op else "", error)
        for op in program.affines:
            for term, product in zip(op.terms, layer.constants[op.out[0]].products):
                rows, columns = product.weight.shape
                scale = "a scale per row" if product.row_scales is not None else str(product.format)
                theta = layer.thetas.get(term.code)
                shown = "dense" if theta is None else "one per element" if isinstance(theta, np.ndarray) else str(theta)
                weights = f"{rows} x {columns}, {product.format.bits} bits, {scale}"
                products.add_row(f"{node.name}/{term.weight}", weights, str(layer.formats[term.code]), shown)
    console.print(paths)
    console.print(products)

    recurrent = sum(one.macs for one in measured_inputs(artifact, {}, 1))
    console.print(f"recurrent multiply-accumulates per frame, dense: {recurrent:,}")
    holds = Table("holds", "bytes", title="file")
    for kind, count in sizes(artifact).items():
        holds.add_row(kind, f"{count:,}")
    console.print(holds)
