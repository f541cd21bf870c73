"""What the verbs that search share: the model and its data, the study's options, and what a finished study leaves."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..errors import RindleError, RindleWarning, needs
from ..file.dataset import Dataset, load_data
from ..files import write_file
from ..measure.bench import machine
from ..measure.evaluate import Judge, judge_of
from ..scheme.paths import keys_of
from ..search.objectives import MEASURES, directions
from .app import Decide, Task, notes, plain, progress

MODEL = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="a .pt2 file of torch.export.save, or package.module:factory, which is imported and called: it EXECUTES CODE, "
        "that of the current directory first",
    ),
]
WEIGHTS = Annotated[Path | None, typer.Option(help="a safetensors file of the factory's model.state_dict()")]
CALIBRATION = Annotated[Path, typer.Option(metavar="FILE", help="real sequences, a .npz or .npy file")]
VALIDATION = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help="sequences that candidates are judged on, a .npz file: validation data, never test data"
    ),
]
FOLDER = Annotated[Path, typer.Option("--output", "-o", help="a folder; with a study in it, that goes on")]
WORKERS = Annotated[int, typer.Option(min=1, help="candidates evaluated at a time, each in a process of its own")]
RAY = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help='a Ray cluster that evaluates them ("auto", "ray://host:10001"), or "local"'),
]
STORAGE = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="the study's database, for several machines; default: study.db in the folder",
        show_default=False,
    ),
]
OBJECTIVE = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help=f"may be repeated; there are {', '.join(MEASURES)}. Default: error, bytes",
        show_default=False,
    ),
]
LIMIT = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="what a candidate must keep, of the same names; may be repeated", show_default=False
    ),
]
SEED = Annotated[int, typer.Option(help="of what is drawn")]
TASK, DECISION = Task, Decide


def numbers(text: str, what: str, kind: type = int) -> tuple:
    """ "2,4,8" -> (2, 4, 8); "" -> ()."""
    try:
        return tuple(dict.fromkeys(kind(one) for one in text.split(",") if one.strip()))
    except ValueError:
        raise RindleError(f"{what} is {text!r}; write numbers with commas, as in 2,4,8") from None


def limits_of(texts: list[str] | None) -> dict[str, float]:
    found = {}
    for text in texts or ():
        name, _, value = text.rpartition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise RindleError(f"the limit {text!r} cannot be read; write for example bytes=60000") from None
    directions(found)
    return found


@dataclass(frozen=True)
class Subject:
    """candidates: models by scheme. judge: of outputs on the data, against the float model's. recurrent: the recurrent layers' products."""

    name: str
    candidates: object
    data: Dataset
    judge: Judge
    paths: dict[str, list[str]]
    recurrent: tuple[str, ...]
    key: dict


def subject(
    model: str, weights: Path | None, calibration: Path, data: Path, task: str | None, decision: str | None
) -> Subject:
    """Loads and calibrates, once."""
    with needs("this", "torch"):
        from ..nn.capture.source import float_outputs
        from ..nn.variants.candidates import candidates_of
    sequences, validation = load_data(calibration), load_data(data)
    with progress() as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore", RindleWarning)
        bar.add_task(f"calibrating on {sequences.frames:,} frames", total=None)
        candidates = candidates_of(model, weights, sequences)
        graph, provenance = candidates.first.plan.graph, candidates.first.provenance
        validation.check_fits(graph)
        judge = judge_of(validation, float_outputs(graph, validation), graph, task, decision)
    notes.print(f"{data}: {judge}")
    recurrent = tuple(
        dict.fromkeys(f"{node.name}/{source}" for node in graph.recurrent for _, source in node.layer.program.blocks)
    )
    key = {"model": provenance["model"], "calibration": sequences.sha256, "data": validation.sha256, "task": task}
    key |= {} if decision is None else {"decision": decision}
    return Subject(model, candidates, validation, judge, keys_of(graph), recurrent, key)


def open_study(folder: Path, storage: str | None, name: str, space: dict, objectives: dict[str, str], key: dict):
    with needs("a search", "search"):
        from ..search.study import Study
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RindleError(f"the folder {folder} cannot be made: {error.strerror}") from None
    study = Study(storage or folder / "study.db", name, space, objectives, key)
    if known := len(study.records()):
        notes.print(f"{known} candidates are known already")
    return study


def watched(bar, total: int):
    """A line on stderr that follows a study."""
    line = bar.add_task("searching", total=total)

    def seen(record, number: int) -> None:
        text = record.refused or ", ".join(f"{name} {value:.4g}" for name, value in record.values.items())
        bar.update(line, completed=number, description=f"{number} of {total}: {text[:60]}")

    return seen


def document(kind: str, study, subject: Subject, scheme_of) -> dict:
    """What is left of a study, as plain data. scheme_of: candidate -> (scheme, overrides, θ shares)."""

    def entry(record) -> dict:
        scheme, overrides, shares = scheme_of(record.candidate)
        return {
            **plain(record),
            "feasible": record.feasible,
            "scheme": scheme,
            "overrides": overrides,
            "thresholds": shares,
        }

    data = subject.data
    judge = subject.judge
    base = None if judge.agreement else {"metric": judge.base_score.metric, "value": judge.base_score.value}
    return {
        "kind": kind,
        "model": subject.name,
        "command": shlex.join(["rindle", *sys.argv[1:]]),
        "machine": machine(),
        "data": {"file": data.name, "sha256": data.sha256, "rows": len(data), "frames": data.frames},
        "key": subject.key,
        "float": base,
        "judged": str(judge),
        "trivial": judge.trivial,
        "error": MEASURES["error"].unit,
        "space": {name: list(choices) for name, choices in study.space.items()},
        "objectives": [
            {"name": name, "unit": MEASURES[name].unit, "direction": direction}
            for name, direction in study.objectives.items()
        ],
        "records": [entry(record) for record in study.records()],
        "front": [record.number for record in study.front()],
    }


def leave(folder: Path, found: dict) -> list[Path]:
    """The numbers, the page, the figures, and a file of overrides for every candidate on the front. Needs the report's packages."""
    with needs("the figures", "report"):
        from ..report.page import drawn
        from ..report.study import figures, page
    made = {f"{found['kind']}.json": json.dumps(plain(found), ensure_ascii=False, indent=1).encode()}
    made[f"{found['kind']}.html"] = page(plain(found)).encode()
    made |= {f"{one.name}.svg": drawn(one, "svg") for one in figures(found)}
    for record in found["records"]:
        if record["number"] in found["front"]:
            rules = record["scheme"] if isinstance(record["scheme"], dict) else {}
            text = json.dumps(rules | record["overrides"], indent=1)
            made[f"front/{record['number']}.json"] = text.encode()
    try:
        (folder / "front").mkdir(exist_ok=True)
        for name, content in made.items():
            write_file(folder / name, content)
    except OSError as error:
        raise RindleError(f"{folder} cannot be written: {error.strerror}") from None
    return [folder / name for name in made]


def front_table(found: dict, title: str) -> Table:
    from ..report.study import table

    columns, rows = table(found)
    shown = Table("candidate", *columns, title=title)
    front = sorted(
        (one for one in found["records"] if one["number"] in found["front"]),
        key=lambda one: list(one["values"].values()),
    )
    for one, cells in zip(front, rows):
        shown.add_row(str(one["number"]), *cells)
    return shown
