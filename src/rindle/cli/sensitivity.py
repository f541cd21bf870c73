from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..errors import RindleError, RindleWarning, needs
from ..file.dataset import load_data
from ..files import write_file
from ..scheme.rezk import REZK
from ..scheme.rules import SCHEMES, load_overrides
from ..search.choose_paths import GROUPS, kept_rules, measure, paths_of, toml
from ..search.sensitivity import KINDS, Found
from .app import Data, Decide, Force, Json, Task, app, check_output, notes, progress, show

SHOWN = 20


@app.command()
def sensitivity(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="a .pt2 file, or package.module:factory (EXECUTES CODE), as for quantize",
        ),
    ],
    data: Data,
    calibration: Annotated[Path, typer.Option(metavar="FILE", help="real sequences, a .npz or .npy file")],
    budget: Annotated[float, typer.Option(help="what may be lost: points of accuracy, or per cent of the MSE")],
    scheme: Annotated[str, typer.Option(help=f"the low precision: {', '.join((*SCHEMES, *REZK))}")] = "int8",
    overrides: Annotated[Path | None, typer.Option(help="path -> rule, on top of the scheme")] = None,
    weights: Annotated[Path | None, typer.Option(help="a safetensors file of the factory's model.state_dict()")] = None,
    by: Annotated[
        str,
        typer.Option(help="layer: the products of each layer, both directions together; cell: of all layers of a cell"),
    ] = "layer",
    parts: Annotated[
        bool,
        typer.Option("--parts/--no-parts", help="also weights and codes by themselves: three times the evaluations"),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="write the proposal, a .toml or .json file for quantize --overrides"),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="draw what every path costs: .svg, .png or .html")
    ] = None,
    task: Task = None,
    decision: Decide = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Find the paths that cannot bear a scheme's few bits, and which to leave at 16. Needs torch.

    Every product's path (its weights and the codes that they multiply) is measured in the C++ core on validation data: alone
    low, all others at 16 bits; and spared, all others low. Then the paths that buy the most for a byte are kept at 16 bits
    until the loss against all at 16 bits is within the budget. Drift is how far the outputs move: 0 to 1 for labels.

    Example: rindle sensitivity nets:speaker --weights s.safetensors --scheme w4a8 --calibration train.npz \
--data validation.npz --budget 0.5 -o overrides.toml --plot paths.svg
    """
    with needs("rindle sensitivity", "torch"):
        from ..nn.capture.source import load_model
        from ..nn.quantize import calibrated
        from ..nn.variants.paths import Variants
    if by not in GROUPS:
        raise RindleError(f"--by is {by!r}; there are {', '.join(GROUPS)}")
    for path, suffixes in ((output, (".toml", ".json")), (plot, (".svg", ".png", ".html"))):
        if path is not None and path.suffix not in suffixes:
            raise RindleError(
                f"{path} ends in {path.suffix or 'nothing'}; give a name that ends in {', '.join(suffixes)}"
            )
        if path is not None:
            check_output(path, force)
    log = output.with_name(f"{output.name}.paths.jsonl") if output else None  # a killed run goes on from it
    given = load_overrides(overrides)
    sequences, calibrating = load_data(data), load_data(calibration)
    with progress() as bar, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RindleWarning)
        line = bar.add_task(f"calibrating on {calibrating.frames:,} frames", total=None)
        first = calibrated(load_model(model, weights), scheme, calibrating, given)
        paths = paths_of(first.plan.graph, first.plan.rules, by)
        found = measure(
            Variants(first),
            paths,
            sequences,
            budget,
            task=task,
            decision=decision,
            kinds=KINDS if parts else ("both",),
            log=log,
            say=notes.print,
            seen=lambda done, planned: bar.update(line, description="measuring paths", completed=done, total=planned),
        )
    for remark in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, RindleWarning)):
        notes.print(f"warning: {remark}")
    if log:
        notes.print(f"{found.evaluations} evaluations, kept in {log}")
    kept = kept_rules(found, paths)
    rules = given | kept
    if output is not None:
        _write(output, (toml(rules) if output.suffix == ".toml" else json.dumps(rules, indent=1)).encode())
    if plot is not None:
        _write(plot, _drawn(found, scheme, str(data), plot.suffix[1:]))
    result = {
        "scheme": scheme,
        "data": {"file": data, "sha256": sequences.sha256, "rows": len(sequences)},
        "budget": budget,
        "low": found.low,
        "high": found.high,
        "chosen": found.chosen,
        "kept": found.kept,
        "overrides": rules,
        "contributions": found.contributions,
        "steps": [{"path": path, "outcome": outcome} for path, outcome in found.steps],
        "evaluations": found.evaluations,
    }
    show(as_json, result, *_tables(found, f"{model}, {scheme}, {len(sequences)} sequences of {data}", output))


def _tables(found: Found, title: str, output: Path | None):
    table = Table("path", "part", title=title)
    for name in ("alone: drift", "loss", "spared: drift bought", "loss", "bytes more", "drift per kB"):
        table.add_column(name, justify="right")
    for one in found.contributions[:SHOWN]:
        table.add_row(
            one.path,
            one.kind,
            f"{one.alone.drift:.4f}",
            f"{one.alone.error:.2f}",
            f"{one.bought:.4f}",
            f"{one.spared.error:.2f}",
            f"{one.bytes:,}",
            f"{1000 * one.bought / max(one.bytes, 1):.4f}",
        )
    hidden = len(found.contributions) - SHOWN
    walk = Table("left at 16 bits", title=f"proposal, budget {found.budget:g}")
    for name in ("drift", "loss", "bytes"):
        walk.add_column(name, justify="right")
    rows = [("nothing", found.low), *((f"+ {path}", outcome) for path, outcome in found.steps)]
    rows += [("proposed: " + (", ".join(found.kept) or "nothing"), found.chosen), ("everything", found.high)]
    for name, outcome in rows:
        walk.add_row(name, f"{outcome.drift:.4f}", f"{outcome.error:.2f}", f"{outcome.bytes:,}")
    notes_ = [f"{hidden} more paths matter less"] if hidden > 0 else []
    return table, *notes_, walk, *([f"{output}: for rindle quantize --overrides"] if output else [])


def _drawn(found: Found, scheme: str, data: str, form: str) -> bytes:
    with needs("--plot", "report"):
        from ..report.page import drawn
        from ..report.sensitivity import bars
    return drawn(bars(found, scheme, data), form)


def _write(path: Path, content: bytes) -> None:
    try:
        write_file(path, content)
    except OSError as error:
        raise RindleError(f"{path} cannot be written: {error.strerror}") from None
