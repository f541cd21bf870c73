"""The command line. It knows both sides, and loads torch only inside the verbs that need it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import numpy as np

from .container import write_file
from .cost import measured_inputs, sizes
from .formats import RindleError
from .graph import INPUT
from .runtime import Model, load

try:
    import typer
    from rich.console import Console
    from rich.table import Table
except ModuleNotFoundError as error:  # the library itself runs without them
    sys.exit(f"the rindle command needs {error.name}: pip install 'rindle[cli]'")

app = typer.Typer(
    help="Quantized recurrent networks: run, verify and inspect .rindle files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(markup=False, highlight=False)  # names and errors are data: their brackets are no styles
File = Annotated[Path, typer.Argument(help="a .rindle file", metavar="FILE", show_default=False)]


@app.command()
def run(
    file: File,
    input: Annotated[Path, typer.Option(help="float32 [T, I] or [B, T, I], a .npy file")],
    output: Annotated[Path, typer.Option(help="where the float32 outputs go, a .npy file")],
    lengths: Annotated[Path | None, typer.Option(help="real frames of each row, integers [B], a .npy file")] = None,
    engine: Annotated[str, typer.Option(help="runtime or reference: the same bits")] = "runtime",
    force: Annotated[bool, typer.Option("--force", help="overwrite OUTPUT")] = False,
) -> None:
    """Run a model on sequences from a file."""
    if output.exists() and not force:
        raise RindleError(f"{output} exists; give --force to overwrite it")
    model = load(file)
    y = model.run(_read_array(input), None if lengths is None else _read_array(lengths), engine)
    _write_array(output, y)
    console.print(f"{output}: float32 {list(y.shape)}")


@app.command()
def verify(file: File) -> None:
    """Replay the golden vector in every engine there is; exit code 1 if one disagrees."""
    model = load(file)
    golden = model.artifact.golden
    table = Table("engine", "golden outputs", title=f"{file}, {golden.inputs.shape[0]} golden sequences")
    failed = False
    for name, replay in _engines(model):
        try:
            outputs = replay()
        except ModuleNotFoundError as error:
            table.add_row(name, f"not run: {error.name} is not installed")
            continue
        wrong = int(np.count_nonzero(outputs != golden.outputs))
        failed |= wrong > 0
        table.add_row(name, f"{wrong} of {golden.outputs.size} codes differ" if wrong else "equal")
    console.print(table)
    raise typer.Exit(1 if failed else 0)


def _engines(model: Model):
    golden = model.artifact.golden
    yield f"runtime ({model.kernel} kernel)", lambda: model.run_codes(golden.inputs, golden.lengths)
    if model.artifact.graph.whole_sequence is None:
        yield "runtime, frame by frame", lambda: _stepped(model)
    yield "reference (NumPy)", lambda: model.run_codes(golden.inputs, golden.lengths, "reference")
    yield "simulation (torch)", lambda: _simulated(model)


def _simulated(model: Model) -> np.ndarray:
    from .nn.simulate import run

    return run(model.artifact, model.artifact.golden.inputs, model.artifact.golden.lengths).codes


def _stepped(model: Model) -> np.ndarray:
    """The golden inputs, streamed."""
    golden = model.artifact.golden
    outputs, stream = np.zeros_like(golden.outputs), model.stream()
    for row, (codes, length) in enumerate(zip(golden.inputs, golden.lengths)):
        stream.reset()
        for t in range(length):
            y = stream.step_codes(codes[t])
            if model.is_sequence:
                outputs[row, t] = y
        if not model.is_sequence:
            outputs[row] = y
    return outputs


@app.command()
def inspect(file: File) -> None:
    """Show a model: its nodes, formats, thresholds, operations and bytes."""
    model = load(file)
    artifact = model.artifact
    console.print(f"{file}: {len(model.data):,} bytes, id {model.id[:16]}…")
    for key, value in artifact.provenance.items():
        console.print(f"{key}: {value}")

    nodes = Table("node", "kind", "reads", "value", "format", title="graph")
    nodes.add_row(INPUT, "", "", f"[T, {model.input_size}]", str(artifact.input_format))
    for node in artifact.graph.nodes:
        fmt = str(artifact.format_of(node.name))
        size = artifact.graph.size_of(node.name)
        shape = f"[T, {size}]" if artifact.graph.is_sequence(node.name) else f"[{size}]"
        kind = node.layer.program.cell if node.layer else node.kind
        nodes.add_row(node.name, kind, node.source, shape, fmt)
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


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RindleError(f"{path} is not a readable .npy file: {error}") from None


def _write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    try:
        write_file(path, buffer.getvalue())
    except OSError as error:
        raise RindleError(f"{path} cannot be written: {error.strerror}") from None


def main() -> None:
    """Console entry point: one line for what the user can mend, exit code 2."""
    try:
        app()
    except RindleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
