from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from ..engines.files import load
from ..engines.model import Model
from ..errors import RindleError, needs
from ..file.dataset import load_data
from ..file.diff import compare, shortened
from ..files import write_file
from ..measure.analysis import Analysis, analyse
from ..measure.cost import sizes
from ..measure.description import Description, describe
from ..measure.rezk import FORMULAS, check_formula, size_of
from ..measure.widths import hardware as widths_of
from ..numbers.levels import LEVELS
from ..report.hardware import markdown
from .app import File, Force, Json, MaybeData, Part, app, check_output, notes, opened, plain, progress, show


@app.command()
def inspect(
    file: File,
    diff: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="show what differs from another .rindle file; exit code 1 if they differ"),
    ] = None,
    data: MaybeData = None,
    part: Part = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="with --data: compare with this float model, a .pt2 file or package.module:factory (EXECUTES CODE)"
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="a safetensors file for --model package.module:factory")] = None,
    rows: Annotated[int | None, typer.Option(help="with --data: use only its first ROWS sequences", min=1)] = None,
    formula: Annotated[
        str | None, typer.Option(help=f"also the size by a published convention: {', '.join(FORMULAS)}")
    ] = None,
    hardware: Annotated[
        bool,
        typer.Option(
            "--hardware", help="what a circuit needs: formats and why, accumulators, tables, memory; in Markdown"
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="with --hardware: the .md file to write")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show a model: its nodes, formats, thresholds, operations and bytes.

    With --data, where it loses accuracy: per path the share of the format's range in use, what saturates, and the ratio of
    signal to quantization noise in dB, over everything and along the sequence. The float side is the same program with the
    file's own weights, dequantized; with --model it has the original ones, and what quantizing them costs is included.

    Examples: rindle inspect m.rindle --data validation.npz --model nets:speaker --weights speaker.safetensors

    rindle inspect dense.rindle --diff sparse.rindle

    rindle inspect m.rindle --hardware -o m.md
    """
    if hardware and (diff is not None or data is not None):
        raise RindleError("--hardware describes one file: leave out --diff and --data")
    if output is not None and not hardware:
        raise RindleError("--output is for --hardware")
    if diff is not None and data is not None:
        raise RindleError("--diff compares two files, --data runs one: give one or the other")
    if data is None and (model, weights, rows) != (None, None, None):
        raise RindleError("--model, --weights and --rows say what --data is compared with: give --data")
    check_formula(formula)
    if formula and (diff is not None or data is not None):
        raise RindleError(
            "--formula is for the model itself; leave out --diff and --data (rindle eval has operations, too)"
        )
    whole = load(file)
    if whole.parts and part is None and not (hardware or diff or data):
        _show_parts(file, whole, formula, as_json)
        return
    one = opened(file, part)
    if diff is not None:
        raise typer.Exit(_diff(file, one, diff, opened(diff, part), as_json))
    if data is not None:
        _noise(file, one, data, model, weights, rows, as_json)
        return
    if hardware:
        _hardware(file, one, output, force, as_json)
        return
    result, shown = _shown(str(file), one, formula)
    show(as_json, {"file": file, **result}, *shown)


def _show_parts(file: Path, whole: Model, formula: str | None, as_json: bool) -> None:
    found = {name: _shown(f"{file}, {name}", model, formula) for name, model in whole.parts.items()}
    result = {
        "file": file,
        "bytes": len(whole.data),
        "id": whole.id,
        "parts": {n: one for n, (one, _) in found.items()},
    }
    about = f"{file}: {len(whole.data):,} bytes, id {whole.id[:16]}…, the parts {', '.join(found)}"
    show(as_json, result, about, *(line for _, lines in found.values() for line in ("", *lines)))


def _hardware(file: Path, model: Model, output: Path | None, force: bool, as_json: bool) -> None:
    found = widths_of(model.artifact)
    text = markdown(found, f"Hardware needs of {file.name}")
    if output is not None:
        check_output(output, force)
        write_file(output, text.encode())
        show(as_json, {"file": file, "output": output, **plain(found)}, f"written to {output}")
    elif as_json:
        show(True, {"file": file, **plain(found)})
    else:
        print(text, end="")


def _shown(name: str, model: Model, formula: str | None) -> tuple[dict, list]:
    """What is known of a model as data, and as what makes it readable."""
    artifact, found = model.artifact, describe(model.artifact)
    about = [f"{name}: {len(model.data):,} bytes, id {model.id[:16]}…"]
    about += [shortened(f"{key}: {value}") for key, value in artifact.provenance.items()]
    result = {
        "bytes": len(model.data),
        "id": model.id,
        "input": {"size": model.input_size, "format": str(artifact.input_format)},
        "nodes": [{"name": one.name, "kind": one.kind, "reads": one.reads} for one in found.nodes[1:]],
        "paths": [{key: value for key, value in vars(one).items() if key != "segments"} for one in found.paths],
        "products": [{key: value for key, value in vars(one).items() if key != "kernel"} for one in found.products],
        "recurrent_macs_per_frame": found.recurrent_macs,
        "sizes": found.sizes,
        "provenance": artifact.provenance,
    }
    macs = f"recurrent multiply-accumulates per frame, dense: {found.recurrent_macs:,}"
    published = []
    if formula:
        size = size_of(artifact)
        parts = ("megabytes", "float_megabytes", "compression")
        result[formula] = {part: getattr(size, part) for part in parts}
        published.append(
            f"as {formula} counts: {size.megabytes:.4g} MB of 2^20 bytes, no overhead; compression {size.compression:.1%}"
        )
    nodes, paths, products, holds = _tables(found)
    return result, [*about, nodes, paths, products, macs, holds, *published]


def _tables(found: Description) -> tuple[Table, ...]:
    nodes = Table("node", "kind", "reads", "value", "format", title="graph")
    for one in found.nodes:
        nodes.add_row(one.name, one.label, ", ".join(one.reads), one.value, one.format)
    paths = Table("path", "size", "format", "made by", "table: max error", title="formats")
    for one in found.paths:
        error = "" if one.segments is None else f"{one.max_error:.2g}, {one.segments}"
        paths.add_row(one.path, str(one.size), one.format, one.made_by, error)
    products = Table("product", "weights", "code", "accumulator", "θ", title="products")
    for one in found.products:
        codes = one.levels if one.levels in LEVELS else f"{one.bits} bits"
        weights = f"{one.shape[0]} x {one.shape[1]}, {codes}, {one.scale}"
        weights += f", convolution {one.kernel[0]} x {one.kernel[1]}" if one.kernel else ""
        theta = "one per element" if isinstance(one.theta, np.ndarray) else "dense" if one.theta is None else one.theta
        products.add_row(one.product, weights, one.code, f"{one.accumulator_bits} bits", str(theta))
    holds = Table("holds", "bytes", title="file")
    for kind, count in found.sizes.items():
        holds.add_row(kind, f"{count:,}")
    return nodes, paths, products, holds


def _diff(file: Path, one: Model, diff: Path, other: Model, as_json: bool) -> int:
    """Exit code: 1 if the two compute different integers."""
    found = compare(one.artifact, other.artifact)
    differ = one.id != other.id
    table = Table("where", "what", file.name if file.name != diff.name else str(file), str(diff), title="differences")
    for difference in found:
        table.add_row(difference.where, difference.what, difference.a or "", difference.b or "")
    kinds = {kind: (count, sizes(other.artifact)[kind]) for kind, count in sizes(one.artifact).items()}
    bytes_ = Table("holds", "bytes", "bytes", title="sizes")
    for kind, (a, b) in (*kinds.items(), ("file", (len(one.data), len(other.data)))):
        bytes_.add_row(kind, f"{a:,}", f"{b:,}" if a != b else "same")
    verdict = "They compute different integers." if differ else "They compute the same integers."
    result = {
        "a": file,
        "b": diff,
        "same_integers": not differ,
        "bytes": [len(one.data), len(other.data)],
        "sizes": kinds,
        "differences": found,
    }
    show(as_json, result, *((table,) if found else ()), bytes_, verdict)
    return 1 if differ else 0


def _noise(file: Path, one: Model, data: Path, model: str | None, weights, rows: int | None, as_json: bool) -> None:
    sequences = load_data(data)
    if rows is not None and rows < len(sequences):
        notes.print(f"the first {rows} of {len(sequences)} sequences")
        sequences = sequences.rows(slice(rows))
    original = None
    if model is not None:
        with needs("--model", "torch"):
            from ..nn.capture.source import float_parameters, load_model, source_of
        graph, _ = source_of(load_model(model, weights)).capture(next(sequences.batches())[0])
        original = float_parameters(graph)
    with progress() as bar:
        line = bar.add_task("comparing with the float program", total=len(sequences))
        found = analyse(one.artifact, sequences, original, lambda done: bar.advance(line, done))
    result = {"file": file, "data": data, **plain(found)}
    for entry, path in zip(result["paths"], found.paths):
        entry["format"] = str(path.format)
    show(as_json, result, *_noise_tables(found, file))


def _noise_tables(found: Analysis, file: Path):
    about = f"{file}: {found.rows} sequences, {found.frames:,} frames, against the float program with {found.weights} weights"
    table = Table("path", "format", title="range, saturation, noise")
    for name in ("range used", "max |code|", "saturated", "SQNR dB"):
        table.add_column(name, justify="right")
    for path in found.paths:
        clipped = (
            ""
            if path.saturated is None
            else f"{path.saturated:,} ({path.saturation_rate:.2%})"
            if path.saturated
            else "0"
        )
        table.add_row(path.name, str(path.format), f"{path.used:.1%}", f"{path.largest:,}", clipped, f"{path.sqnr:.1f}")
    return about, table, growth_table(found, found.paths)


def growth_table(found: Analysis, paths) -> Table:
    """Of those paths that have one value per frame."""
    growth = Table("path", title="SQNR in dB along the sequence, 0 % its first frame")
    for position in found.positions:
        growth.add_column(f"{position:.0%}", justify="right")
    for path in paths:
        if path.growth:
            growth.add_row(path.name, *(f"{value:.1f}" for value in path.growth))
    return growth
