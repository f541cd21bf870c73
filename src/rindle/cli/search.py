from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import RindleError
from ..search.objectives import Evaluation, Mixed, Region
from ..search.precision import BITS, GRAINS, overrides_of, shares_of, space_of, uniform
from .app import app, progress
from .studies import LIMIT, Options, limits_of, numbers, takes_options

ALL = ",".join(map(str, BITS))


@app.command()
@takes_options
def search(
    options: Options,
    budget: Annotated[int, typer.Option(help="candidates in all, those of earlier runs included")],
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
    limits, found = limits_of(limit), options.subject()
    space = space_of(found.paths, bits, codes, grain, tied, shares, found.recurrent)
    key = found.key | {"scheme": scheme, "limits": limits, "retrain": retrain, "region": region}
    study = options.study("search", space, key)
    evaluate = Evaluation(Mixed(found.candidates, scheme), found.data, found.judge, tuple(options.goals), limits)
    if retrain:
        evaluate = _with_beacons(evaluate, retrain, region, options.output)
    elif region:
        raise RindleError("--region says where beacons are worth their training; give --retrain with it")
    with progress() as bar:
        how = options.how(bar, min(budget, study.size))
        study.explore(evaluate, budget, sampling, options.seed, uniform(space), **how)
    options.conclude("search", study, found, lambda one: (scheme, overrides_of(one), shares_of(one)))


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
