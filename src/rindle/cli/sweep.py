from __future__ import annotations

from typing import Annotated

import typer

from ..search.grid import FAMILIES, grid_space, scheme_of
from ..search.objectives import Evaluation, Swept
from .app import app, progress
from .studies import Options, numbers, takes_options


@app.command()
@takes_options
def sweep(
    options: Options,
    weight_bits: Annotated[str, typer.Option(metavar="BITS", help="of the weights, 2..16")] = "2,3,4,6,8",
    activation_bits: Annotated[
        str, typer.Option(metavar="BITS", help="of the codes that weights multiply, 2..16")
    ] = "3,4,6,8",
    table_size: Annotated[
        str,
        typer.Option(
            metavar="SEGMENTS", help="of the functions' tables; default: as schemes have them", show_default=False
        ),
    ] = "",
    family: Annotated[
        list[str] | None,
        typer.Option(help=f"kind of formats: {', '.join(FAMILIES)}; may be repeated. Default: int", show_default=False),
    ] = None,
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="a scheme by name, in place of bits and family; may be repeated", show_default=False
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="candidates, chosen by NSGA-II; default: all of them", show_default=False)
    ] = None,
) -> None:
    """The trade-off of weight bits, activation bits and table size against error and bytes: every candidate is quantized and run in
    the C++ runtime.

    The folder gets sweep.json (every candidate, enough to make it again), sweep.html (heat maps and front, opens without a network), the
    figures as .svg, and front/N.json: overrides for `rindle quantize`. A sweep that was killed goes on where it was; the same command
    started twice shares the work. Needs torch.

    Example: rindle sweep nets:speaker --weights speaker.safetensors --calibration train.npz --data validation.npz -o sweep --workers 2
    """
    bits, codes = numbers(weight_bits, "--weight-bits"), numbers(activation_bits, "--activation-bits")
    space = grid_space(bits, codes, numbers(table_size, "--table-size"), tuple(family or ("int",)), tuple(scheme or ()))
    found = options.subject()
    study = options.study("sweep", space, found.key)
    evaluate = Evaluation(Swept(found.candidates), found.data, found.judge, tuple(options.goals))
    total = study.size if budget is None else min(budget, study.size)
    with progress() as bar:
        if budget is None:
            study.grid(evaluate, **options.how(bar, total))
        else:
            study.explore(evaluate, budget, seed=options.seed, **options.how(bar, total))
    options.conclude("sweep", study, found, lambda candidate: (*scheme_of(candidate), {}))
