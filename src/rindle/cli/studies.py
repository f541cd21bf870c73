"""What the verbs that search share: the model and its data, the study's options, and what a finished study leaves."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, get_type_hints

import typer
from rich.table import Table

from ..errors import RindleError, RindleWarning, needs
from ..file.dataset import Dataset, load_data
from ..files import write_file
from ..measure.bench import machine
from ..measure.evaluate import Judge, judge_of
from ..scheme.paths import keys_of
from ..search.objectives import MEASURES, STILL, directions
from .app import Decide, Json, Task, notes, plain, progress, show

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


@dataclass(frozen=True)
class Options:
    """What every verb that searches is given, and what it does with it alike: begin, and end."""

    model: MODEL
    output: FOLDER
    calibration: CALIBRATION
    data: VALIDATION
    weights: WEIGHTS = None
    objective: OBJECTIVE = None
    workers: WORKERS = 1
    ray: RAY = None
    storage: STORAGE = None
    seed: SEED = 0
    task: Task = None
    decision: Decide = None
    as_json: Json = False

    @property
    def goals(self) -> dict[str, str]:
        """Objective -> its direction."""
        return directions(tuple(dict.fromkeys(self.objective or ("error", "bytes"))))

    def subject(self) -> Subject:
        """Loads and calibrates, once. An unknown objective is refused before that."""
        _ = self.goals
        with needs("this", "torch"):
            from ..nn.capture.source import float_outputs
            from ..nn.variants.candidates import candidates_of
        sequences, validation = load_data(self.calibration), load_data(self.data)
        with progress() as bar, warnings.catch_warnings():
            warnings.simplefilter("ignore", RindleWarning)
            bar.add_task(f"calibrating on {sequences.frames:,} frames", total=None)
            candidates = candidates_of(self.model, self.weights, sequences)
            graph, provenance = candidates.first.plan.graph, candidates.first.provenance
            validation.check_fits(graph)
            judge = judge_of(validation, float_outputs(graph, validation), graph, self.task, self.decision)
        notes.print(f"{self.data}: {judge}")
        recurrent = tuple(
            dict.fromkeys(
                f"{node.name}/{source}" for node in graph.recurrent for _, source in node.layer.program.blocks
            )
        )
        key = {"model": provenance["model"], "calibration": sequences.sha256, "data": validation.sha256}
        key |= {"task": self.task} | ({} if self.decision is None else {"decision": self.decision})
        return Subject(self.model, candidates, validation, judge, keys_of(graph), recurrent, key)

    def study(self, name: str, space: dict, key: dict):
        """The study of this name in the folder, or in the storage."""
        with needs("a search", "search"):
            from ..search.study import Study
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RindleError(f"the folder {self.output} cannot be made: {error.strerror}") from None
        study = Study(self.storage or self.output / "study.db", name, space, self.goals, key)
        if known := len(study.records()):
            notes.print(f"{known} candidates are known already")
        return study

    def how(self, bar, total: int) -> dict:
        """How a study evaluates its candidates: where, and who watches."""
        return {"workers": self.workers, "ray": self.ray, "seen": watched(bar, total)}

    def conclude(self, kind: str, study, found: Subject, scheme_of) -> None:
        """Writes what the study found into the folder, and prints its front. scheme_of: candidate -> (scheme, overrides, θ shares).
        RindleError where no candidate is a working model.
        """
        left = document(kind, study, found, scheme_of)
        if not any(one["refused"] is None and STILL not in one["constraints"] for one in left["records"]):
            first = left["records"][0]
            raise RindleError(
                f"no candidate is a working model; the first: {first['refused'] or first['more']['still']}"
            )
        page = leave(self.output, left)[1]
        shown = front_table(left, f"the front of {len(left['records'])} candidates")
        show(self.as_json, left, shown, f"{page}: all of it")


def takes_options(verb):
    """Puts the fields of ``Options`` before a verb's own options on the command line. The verb gets them as one, its first parameter."""
    kinds, shared = get_type_hints(verb, include_extras=True), get_type_hints(Options, include_extras=True)
    _, *own = signature(verb).parameters.values()
    given = [
        Parameter(
            one.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if one.default is MISSING else one.default,
            annotation=shared[one.name],
        )
        for one in fields(Options)
    ]
    given += [one.replace(kind=Parameter.KEYWORD_ONLY, annotation=kinds[one.name]) for one in own]

    @wraps(verb)
    def run(**values):
        return verb(Options(**{one.name: values.pop(one.name) for one in fields(Options)}), **values)

    run.__signature__ = Signature(given)
    run.__annotations__ = {one.name: one.annotation for one in given}
    return run


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
