"""What a model in C takes on each machine whose tools are here: instructions per step, flash and RAM, dense and held."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ...engines.golden import with_golden, with_thresholds
from ...engines.reference import run
from ...errors import RindleError
from ...numbers.formats import encode_input
from ...program.products import terms_of, terms_of_node
from .machines import MACHINES, DoesNotFit, version

STEPS = 32  # counted; the first frame after a reset is not
MOST = 4e8  # instructions of one replay: SysTick counts 24 bits, of 31 or 40 instructions each
PER_MAC = 8  # what is reckoned for a multiply-accumulate, to stay below that
REPEATS = (1, 4, 16)


@dataclass(frozen=True)
class Steps:
    """frames: what was fed. density: of the multiply-accumulates on held inputs, the share whose input changed; 1 if none is
    held. instructions: per step, the comparison of its outputs included; None where nothing counts them.
    """

    frames: str
    density: float
    instructions: float | None


@dataclass(frozen=True)
class Form:
    """One of the two ways to compute the same model, "dense" or "held". flash: code and constants -> bytes. state, stack: bytes
    of RAM, the stack measured, None where it was not.
    """

    form: str
    flash: dict[str, int]
    state: int
    stack: int | None
    steps: tuple[Steps, ...]


@dataclass(frozen=True)
class Target:
    """label: machine, compiler and version. missing: tools that are not installed -> their packages; nothing was measured then.
    problem: why the model does not fit. break_even: the density below which the held form takes fewer instructions.
    """

    machine: str
    label: str
    missing: dict[str, str]
    problem: str | None = None
    forms: tuple[Form, ...] = ()
    break_even: float | None = None


@dataclass(frozen=True)
class Report:
    """instructions: what they are. targets: of every machine, also of those that were not measured."""

    instructions: str
    flash: str
    ram: str
    targets: tuple[Target, ...]


def report(
    artifact, data=None, machines: list[str] | None = None, seen: Callable[[str], None] = lambda text: None
) -> Report:
    """Builds and replays a model on every machine of ``MACHINES`` that has what counts, and measures.

    data: a ``rindle.file.dataset.Dataset`` whose first frames are fed, one row after the other as one sequence; without it the
    golden vector's, and for held models also each of them several times and random codes, for other densities. seen: is
    told what begins. Raises RindleError for what the exporter refuses, and if a machine's codes are not the reference's.
    """
    artifact = getattr(artifact, "artifact", artifact)
    held = any(node.layer.thetas for node in artifact.graph.programs)
    forms = {"dense": with_thresholds(artifact, dict.fromkeys(artifact.held_codes()))}
    drives = {"dense": _drives(artifact, data, False)}
    if held:
        forms["held"], drives["held"] = artifact, _drives(artifact, data, True)
    vectors = {form: [_vectors(model, *drive) for drive in drives[form]] for form, model in forms.items()}
    targets = []
    for key in machines or [key for key in MACHINES if key != "wasm"]:
        machine = MACHINES[key]
        if machine.missing:
            targets.append(Target(key, machine.title, machine.missing))
            continue
        seen(machine.label)
        try:
            made = tuple(_form(machine, form, forms[form], vectors[form]) for form in forms)
        except DoesNotFit as error:
            targets.append(Target(key, machine.label, {}, str(error)))
            continue
        even = _break_even(made[0].steps[0].instructions, made[1].steps) if held else None
        targets.append(Target(key, machine.label, {}, None, made, even))
    emulators = {
        machine.tools[-1] for machine in MACHINES.values() if hasattr(machine, "board") and not machine.missing
    }
    counted = ", ".join(sorted({version(tool) for tool in emulators})) or "qemu"
    size = artifact.output_size
    return Report(
        f"instructions, not cycles: counted by {counted} (this computer: by valgrind), -O2, the mean of the steps after the "
        f"first; the comparison of {size} output codes is included",
        "bytes of the model's own object; the compiler's run-time routines come on top where a core lacks an instruction",
        "bytes: the state struct, and the deepest stack that the replay left, where it is bare",
        tuple(targets),
    )


def _drives(artifact, data, held: bool) -> list[tuple[str, np.ndarray]]:
    """(what it is, input codes or ids of one sequence). Only held models depend on them by much."""
    macs = sum(one.macs for one in terms_of(artifact.graph))
    frames = 1 + max(2, min(STEPS, int(MOST / PER_MAC / max(macs, 1))))
    if data is not None:
        data.check_fits(artifact.graph)
        rows = data.x[data.real][:frames]
        if len(rows) < 2:
            raise RindleError(f"{data.name} has {len(rows)} frames; instructions per step need at least 2")
        codes = rows if artifact.graph.vocabulary else encode_input(rows, artifact.input_format)[0]
        return [(f"the first {len(rows)} frames of {data.name}", codes)]
    golden = artifact.golden
    real = golden.inputs[np.arange(golden.inputs.shape[1]) < golden.lengths[:, None]]
    repeated = [
        (
            "golden vector" if times == 1 else f"golden vector, each frame {times} times",
            np.repeat(np.resize(real, (-(-frames // times), *real.shape[1:])), times, 0)[:frames],
        )
        for times in (REPEATS if held else REPEATS[:1])
    ]
    return [*repeated, ("random codes", _random(artifact, frames))] if held else repeated


def _random(artifact, frames: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    if artifact.graph.vocabulary:
        return rng.integers(0, artifact.graph.vocabulary, frames)
    fmt = artifact.input_format
    return rng.integers(fmt.lo, fmt.hi + 1, (frames, artifact.graph.input_size))


def _vectors(artifact, what: str, codes: np.ndarray):
    """(what, density, steps, the model with the first frame as its golden vector, with all)."""
    one, all_of_them = codes[None, :1], codes[None]
    first, whole = (run(artifact, part.astype(np.int32)).changes for part in (one, all_of_them))
    changed = total = 0
    for node in artifact.graph.programs:
        for code in node.layer.thetas:
            if (node.name, code) not in whole or not artifact.graph.is_sequence(node.sources[0]):
                continue  # a layer on a vector has nothing to remember
            readers = (one for one in terms_of_node(node) if one.term.code == code)
            rows = sum(one.product.weight.shape[0] * one.op.pixels for one in readers)
            count, frames = np.subtract(whole[node.name, code], first[node.name, code])
            changed += rows * int(count)
            total += rows * int(frames) * node.layer.program.sizes[code]
    density = changed / total if total else 1.0
    golden = [with_golden(artifact, part, np.array([part.shape[1]])) for part in (one, all_of_them)]
    return what, density, len(codes) - 1, *golden


def _form(machine, form: str, artifact, vectors) -> Form:
    from . import to_c

    steps = []
    with tempfile.TemporaryDirectory(prefix="rindle-report-") as temporary:
        folder = Path(temporary)
        for what, density, count, first, whole in vectors:
            replays = []
            for model in (first, whole):
                to_c(model, folder, "net", force=True)
                if not (folder / "net.o").exists():
                    machine.build(folder, "net")
                replays.append(machine.replay(folder, "net"))
            if any(replay.wrong for replay in replays):
                raise RindleError(
                    f"{machine.label}: the compiled C gives other integers than the reference ({replays[-1].wrong} codes of "
                    f"{what} differ); please report this with the model and the compiler"
                )
            instructions = None
            if all(replay.instructions is not None for replay in replays):
                instructions = (replays[1].instructions - replays[0].instructions) / count
            steps.append(Steps(what, density, instructions))
        flash, state = machine.sections(folder, "net")
    return Form(form, flash, state, replays[-1].stack, tuple(steps))


def _break_even(dense: float | None, held: tuple[Steps, ...]) -> float | None:
    """Where the line between two measured densities crosses the dense form. None if all are on one side of it."""
    points = sorted((one.density, one.instructions) for one in held if one.instructions is not None)
    if dense is None:
        return None
    for (d0, n0), (d1, n1) in pairwise(points):
        if n0 <= dense <= n1 and not math.isclose(n0, n1):
            return d0 + (d1 - d0) * (dense - n0) / (n1 - n0)
    return None
