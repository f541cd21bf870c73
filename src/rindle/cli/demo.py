from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RindleError, needs
from .app import Json, app, notes, show

CHECKPOINTS = Path("experiments/fsdd")  # in a clone
AFTERWARDS = """\
points lost: int8 to float, delta to int8. θ and the best epoch were chosen on the validation speaker.
{output}/results.json has it all; `python examples/listen.py {output}/{speaker}-delta.rindle FILE.wav` listens.
On one page: rindle report {output}/{speaker}-*.rindle --data {output}/{speaker}-test.npz"""


class Data(StrEnum):
    vowels = "vowels"
    fsdd = "fsdd"


@app.command()
def demo(
    data: Annotated[Data, typer.Option(help="vowels: who said a Japanese vowel. fsdd: spoken digits")] = Data.vowels,
    folds: Annotated[str, typer.Option(help="fsdd: the test speaker, several with commas, or all")] = "yweweler",
    train: Annotated[bool, typer.Option("--train", help="fsdd: train, though there are checkpoints")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="one epoch of a little data, to see that it runs")] = False,
    budget: Annotated[
        float, typer.Option(help="fsdd: of 100 decisions on the validation speaker, how many skipping may change")
    ] = 2.0,
    seed: Annotated[int, typer.Option(help="fsdd: of the training")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="folder for the models and the results; default build/demo, or build/demo/fsdd")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train or load a network, quantize it, let it skip what does not change, and show what that cost, on real recordings.

    fsdd comes from RINDLE_DATA_MIRROR, the cache, or its official address. In a clone its networks are trained already.
    """
    if as_json and data is not Data.fsdd:
        raise RindleError("only --data fsdd has a result to print as JSON; leave out --json")
    output = output or Path("build/demo" if data is Data.vowels else "build/demo/fsdd")
    with needs("the demo", "torch,demo"):
        if data is Data.vowels:
            from ..tasks.demo import vowels

            vowels.run(output, epochs=1 if quick else 60)
        else:
            from ..tasks.demo import digits

            chosen, known = digits.names(folds), None if train or quick else CHECKPOINTS
            results = digits.run(chosen, output, known, budget, seed, quick, notes)
            show(as_json, results, *digits.tables(results), AFTERWARDS.format(output=output, speaker=chosen[0]))
