from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import RindleError
from ..search.objectives import Evaluation, Mixed, Region, directions
from ..search.precision import BITS, GRAINS, overrides_of, shares_of, space_of, uniform
from .app import Json, app, progress, show
from .studies import (
    CALIBRATION,
    DECISION,
    FOLDER,
    LIMIT,
    MODEL,
    OBJECTIVE,
    RAY,
    SEED,
    STORAGE,
    TASK,
    VALIDATION,
    WEIGHTS,
    WORKERS,
    document,
    front_table,
    leave,
    limits_of,
    numbers,
    open_study,
    subject,
    watched,
)

ALL = ",".join(map(str, BITS))


@app.command()
def search(
    model: MODEL,
    output: FOLDER,
    calibration: CALIBRATION,
    data: VALIDATION,
    budget: Annotated[int, typer.Option(help="candidates in all, those of earlier runs included")],
    weights: WEIGHTS = None,
    weight_bits: Annotated[str, typer.Option(metavar="BITS", help="choices; 16 is 16-bit fixed point")] = ALL,
    activation_bits: Annotated[
        str, typer.Option(metavar="BITS", help="choices, of the codes that weights multiply")
    ] = ALL,
    grain: Annotated[str, typer.Option(help=f"what has bits of its own: {', '.join(GRAINS)}")] = "source",
    tied: Annotated[bool, typer.Option("--tied", help="weights and codes of one width, as SiLago has")] = False,
    theta: Annotated[
        str,
        typer.Option(
            metavar="SHARES", help="thresholds, as shares of the codes' range: 0,0.0625,0.125", show_default=False
        ),
    ] = "",
    scheme: Annotated[str, typer.Option(help="of all else")] = "int8",
    objective: OBJECTIVE = None,
    limit: LIMIT = None,
    sampling: Annotated[
        str, typer.Option(help='"default", or "mohaq": population and operators as published')
    ] = "default",
    retrain: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            show_default=False,
            help="beacon-based search: overrides -> parameters by name (arrays), trained under them. It EXECUTES CODE",
        ),
    ] = None,
    region: Annotated[
        str,
        typer.Option(
            metavar="LOW,HIGH",
            help="with --retrain: the errors for which a beacon is worth its training",
            show_default=False,
        ),
    ] = "",
    workers: WORKERS = 1,
    ray: RAY = None,
    storage: STORAGE = None,
    seed: SEED = 0,
    task: TASK = None,
    decision: DECISION = None,
    as_json: Json = False,
) -> None:
    """Mixed precision: bits for every layer's weights and codes, and thresholds, by NSGA-II over error, size and hardware (MOHAQ).

    A candidate is quantized after training and run in the C++ runtime. Objectives and limits may be of any measure: the published models
    of SiLago and Bitfusion, this machine's time per step, what delta thresholds leave of the operations. With --retrain, a few candidates are retrained
    and their neighbours evaluated with those parameters, too. The folder gets search.json, search.html, figures, and front/N.json: overrides
    for `rindle quantize`. A search that was killed goes on where it was; the same command started twice shares the work. Needs torch.

    Example: rindle search nets:speaker --weights speaker.safetensors --calibration train.npz --data validation.npz -o search --budget 200

    rindle search … --objective error --objective "silago energy" --tied --weight-bits 4,8,16 --limit error=5
    """
    bits, codes = numbers(weight_bits, "--weight-bits"), numbers(activation_bits, "--activation-bits")
    shares = numbers(theta, "--theta", float)
    goals, limits = directions(tuple(dict.fromkeys(objective or ("error", "bytes")))), limits_of(limit)
    found = subject(model, weights, calibration, data, task, decision)
    space = space_of(found.paths, bits, codes, grain, tied, shares, found.recurrent)
    key = found.key | {"scheme": scheme, "limits": limits, "retrain": retrain, "region": region}
    study = open_study(output, storage, "search", space, goals, key)
    evaluate = Evaluation(Mixed(found.candidates, scheme), found.data, found.judge, tuple(goals), limits)
    if retrain:
        evaluate = _with_beacons(evaluate, retrain, region, output)
    elif region:
        raise RindleError("--region says where beacons are worth their training; give --retrain with it")
    with progress() as bar:
        seen = watched(bar, min(budget, study.size))
        study.explore(evaluate, budget, sampling, seed, uniform(space), workers=workers, ray=ray, seen=seen)

    def scheme_of(candidate):
        return scheme, overrides_of(candidate), shares_of(candidate)

    left = document("search", study, found, scheme_of)
    files = leave(output, left)
    show(
        as_json,
        left,
        front_table(left, f"the front of {len(left['records'])} candidates"),
        f"{files[1]}: all of it",
    )


def _with_beacons(evaluate: Evaluation, retrain: str, region: str, output: Path):
    from ..nn.variants.retrain import Retrain
    from ..search.beacons import Beacons

    bounds = numbers(region, "--region", float)
    if len(bounds) != 2:
        raise RindleError(f"--region is {region!r}; write the least and the largest error, as in 19,30")
    if "error" not in evaluate.objectives:
        raise RindleError("beacons lower the error, so it must be an objective; add --objective error")
    folder = output / "beacons"
    folder.mkdir(exist_ok=True)
    return Beacons(evaluate, Retrain(retrain), Region(*bounds), folder)
