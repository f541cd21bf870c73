"""Delta-aware fine-tuning: whether states that are trained to move little let thresholds eliminate more at equal error.

    python experiments/rezk-2022/finetune.py small-gru [small-lstm …] [--betas 0.1] [--output finetune.json]

Every model is trained on for `--steps` steps on pieces of training utterances under quantization to 8 bits (`rindle.prepare`), in
these forms, all with the same pieces in the same order:

- "plain": nothing held, no penalty. What more training alone gives.
- "held": the inputs of the recurrent layers are held (`rindle.nn.hold`) with the thresholds that the untuned model's search chose.
- "held, β = …": and β Σ|Δ| is added to the loss (`rindle.nn.activity`; Neil et al. 2017, arXiv 1612.05571, equation 16).

The tuned weights are rounded to float16, and all forms, the untuned one too, are quantized alike: int8, calibrated on the same utterances
(steps are not learned, so that weights are all that differs). Then thresholds are searched for each (`rindle.delta`), on the search part.

Equal error: a form's error is what its frame accuracy lies below that of the *untuned dense* int8 model, in points, with
thresholds and without. The share eliminated at an error is read off the front of all that a search has evaluated, between its points by a straight
line. What is tested is, for each form, the point that eliminates most within `--budget`; it is measured on test once.

A killed run goes on: tuned weights, searches and cells of the table lie in `--folder`.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import models
import numpy as np
import run
import safetensors
import safetensors.torch
import task as tasks
import torch
import train
from log import Log
from speed import eliminated, search_part

import rindle
from rindle.files import write_file
from rindle.measure.evaluate import score
from rindle.nn.conversion.convert import hash_of
from rindle.search.choose_thresholds import choose_thresholds
from rindle.search.thresholds import Point
from rindle.tasks import metrics
from rindle.tasks.data import mboshi

NAMES = [f"{size}-{kind}" for size in ("small", "stream") for kind in models.CONFIGURATIONS[size]]
ERRORS = (0.5, 1.0, 2.0)  # points, at which fronts are compared
REACH = 1.5  # searches go on to so many times the largest: their own budget bounds a statistical limit, which is larger


@dataclass(frozen=True)
class Settings:
    """steps of pieces x frames. calibration: utterances, of every quantization."""

    steps: int = 200
    pieces: int = 16
    frames: int = 100
    rate: float = 3e-4
    calibration: int = 24
    seed: int = 0


def tune(network, task, thetas: dict[str, int], beta: float, settings: Settings, say) -> dict[str, torch.Tensor]:
    """Float parameters by name after the training. thetas: "layer/source" -> θ, of what is held; beta: of the penalty, which is
    of what is held.
    """
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    prepared = rindle.prepare(network, "int8", calibration(task, settings)).train()
    rindle.nn.hold(prepared, thetas)
    steps = {id(value) for name, value in prepared.named_parameters() if name.endswith(".rho")}
    weights = [value for value in prepared.parameters() if id(value) not in steps]
    optimizer = torch.optim.AdamW(weights, settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    start = time.process_time()
    for step in range(settings.steps):
        x, y = draw(task, random, settings)
        scores = prepared(x).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(scores, y.flatten(), ignore_index=mboshi.UNLABELLED)
        seen = rindle.nn.activity(prepared) if thetas else None
        optimizer.zero_grad()
        (loss if seen is None else loss + beta * seen.penalty).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step + 1 == settings.steps:
            about = f"step {step}, loss {loss.item():.3f}"
            if seen is not None:
                about += f", penalty {seen.penalty.item():.3f}, density {np.mean(list(seen.densities.values())):.3f}"
            say(f"{about}, {time.process_time() - start:.0f} s of CPU")
    return rindle.nn.float_state_dict(prepared)


def calibration(task, settings: Settings) -> list[np.ndarray]:
    """Sequences [T, 1, inputs] of training utterances."""
    return [task.features(one)[:, None] for one in tasks.spread(task.parts["calibration"], settings.calibration)]


def draw(task, random, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Pieces of training utterances: x [frames, pieces, inputs], labels [frames, pieces]."""
    rows = [u for u in task.parts["train"] if len(u.labels) >= settings.frames]
    chosen = [rows[k] for k in random.choice(len(rows), settings.pieces)]
    spans = [
        slice(s, s + settings.frames) for s in (random.integers(len(u.labels) - settings.frames + 1) for u in chosen)
    ]
    x = np.stack([task.features(u)[span] for u, span in zip(chosen, spans)], 1)
    y = np.stack([u.labels[span] for u, span in zip(chosen, spans)], 1).astype(np.int64)
    return torch.from_numpy(x), torch.from_numpy(y)


def kept(path: Path, about: dict, make) -> dict[str, torch.Tensor]:
    """The state in a file, in float16; made and written if the file is not there, or about something else."""
    if path.exists():
        with safetensors.safe_open(path, "pt") as file:
            if json.loads(file.metadata()["about"]) == about:
                return {name: file.get_tensor(name) for name in file.keys()}
    state = {name: value.detach().half() for name, value in make().items()}
    write_file(path, safetensors.torch.save(state, metadata={"about": json.dumps(about)}))
    return state


# ------------------------------------------------------------------------------------------------------- equal error


def rebased(points: list[Point], base: float) -> list[tuple[float, float, Point]]:
    """(error in points below the frame accuracy ``base``, eliminated share, point) of those that no other beats in both."""
    found, most = [], -1.0
    for error, less, k in sorted(
        (100 * (base - p.evaluation.more["value"]), -p.evaluation.eliminated, k) for k, p in enumerate(points)
    ):
        if -less > most:
            most = -less
            found.append((round(error, 9), most, points[k]))
    return found


def at(front: list, error: float) -> float | None:
    """The share that a front eliminates at an error; None where even its best point has more."""
    if front[0][0] > error:
        return None
    return float(np.interp(error, *zip(*((e, share) for e, share, _ in front))))


def within(front: list, error: float) -> Point | None:
    """The point that eliminates most with no larger error."""
    inside = [point for e, _, point in front if e <= error]
    return inside[-1] if inside else None


# ------------------------------------------------------------------------------------------------------------ a model


class Comparison:
    """The forms of one model. name: "small-gru". network: deployed, trained. options: of the command."""

    def __init__(self, name: str, network, task, options):
        self.name, self.network, self.task, self.options = name, network, task, options
        self.settings: Settings = options.settings
        self.log = Log(options.folder / "cells.jsonl")
        self.data = search_part(task, None)
        self.before = self._quantized(network.state_dict())
        self.base = self._accuracy(self.before)
        self.made = {"untuned": self.before}

    def _say(self, line: str) -> None:
        print(f"{self.name}: {line}", file=sys.stderr, flush=True)

    def _quantized(self, state: dict) -> rindle.Model:
        network = copy.deepcopy(self.network)
        network.load_state_dict({name: value.float() for name, value in state.items()})
        return rindle.quantize(network.eval(), "int8", calibration(self.task, self.settings))

    def _accuracy(self, model: rindle.Model) -> float:
        return score(model.run(self.data.x, self.data.lengths), self.data).value

    def _front(self, form: str) -> list:
        model = self.made[form]
        gain = 100 * (self._accuracy(model) - self.base)
        reach = max(0.0, REACH * max(ERRORS) + gain)
        log = self.options.folder / f"{self.name}-{_plain(form)}.search.jsonl"
        found = choose_thresholds(model, self.data, reach, per_octave=self.options.per_octave, log=log).found
        return rebased(list(found.points), self.base)

    def held(self, front: list) -> dict[str, int]:
        """θ of training: what the untuned model's search chose within the budget, of the layers with states."""
        chosen, nodes = within(front, self.options.budget), {node.name for node in self.before.artifact.graph.recurrent}
        return {name: theta for name, theta in chosen.thetas.items() if name.rpartition("/")[0] in nodes}

    def run(self) -> dict:
        fronts = {"untuned": self._front("untuned")}
        thetas = self.held(fronts["untuned"])
        forms = {"plain": ({}, 0.0), "held": (thetas, 0.0)}
        forms |= {f"held, β = {beta:g}": (thetas, beta) for beta in self.options.betas}
        for form, (own, beta) in forms.items():
            about = {"of": hash_of(self.network.state_dict()), "thetas": own, "beta": beta}
            about |= asdict(self.settings)
            path = self.options.folder / f"{self.name}-{_plain(form)}.safetensors"

            def make(own=own, beta=beta, form=form):
                self._say(f"{form}: training")
                return tune(
                    self.network, self.task, own, beta, self.settings, lambda line: self._say(f"{form}: {line}")
                )

            self.made[form] = self._quantized(kept(path, about, make))
            fronts[form] = self._front(form)
        return {"held": thetas, "forms": {form: self._row(form, front) for form, front in fronts.items()}}

    def _row(self, form: str, front: list) -> dict:
        row = {
            "dense, points below untuned": round(100 * (self.base - self._accuracy(self.made[form])), 3),
            "eliminated at": {f"{error:g}": at(front, error) for error in ERRORS},
            "front": [[round(error, 4), round(share, 5)] for error, share, _ in front],
            **self.task.score(self.made[form]),
            "test dense": self._tested(form, None),
        }
        chosen = within(front, self.options.budget)
        row["chosen"] = chosen and {"thetas": chosen.thetas, "test": self._tested(form, chosen.thetas)}
        self._say(f"{form}: eliminated at {row['eliminated at']}")
        return row

    @cached_property
    def tested_before(self) -> np.ndarray:
        """Of every test utterance: phone errors and phones of the untuned dense model."""
        return np.stack(self.task.edits(self.before, "test"), 1)

    def _tested(self, form: str, thetas: dict | None) -> dict:
        model = self.made[form]
        model = model if thetas is None else model.with_thresholds(thetas)

        def make():
            before, after = self.tested_before, np.stack(self.task.edits(model, "test"), 1)
            change = metrics.paired_bootstrap(before, after, metrics.rate_of, draws=2000)
            found = {
                "phone errors": metrics.rate_of(after),
                "increase over untuned dense": [change.mean, change.low, change.high],
            }
            return found | ({"eliminated": eliminated(model, self.task)} if thetas else {})

        return self.log.cell({"model": self.name, "id": model.id, "utterances": len(self.task.parts["test"])}, make)


def _plain(form: str) -> str:
    """A form as part of a file's name."""
    return form.replace(", β = ", "-").replace(" ", "-")


def markdown(found: dict) -> str:
    shares = " | ".join(f"eliminated at +{error:g}" for error in ERRORS)
    lines = [
        f"| model | form | dense, points below untuned | {shares} | test: phone errors dense | with thresholds | above untuned dense (95 %) "
        f"| eliminated |",
        "|---" * (7 + len(ERRORS)) + "|",
    ]

    def percent(value) -> str:
        return "none" if value is None else f"{100 * value:.1f} %"

    for name, one in found.items():
        for form, row in one["forms"].items():
            cells = [
                name,
                form,
                f"{row['dense, points below untuned']:+.2f}",
                *map(percent, row["eliminated at"].values()),
            ]
            cells.append(percent(row["test dense"]["phone errors"]))
            if row["chosen"] is None:
                cells += ["none within the budget", "", ""]
            else:
                test = row["chosen"]["test"]
                mean, low, high = (100 * value for value in test["increase over untuned dense"])
                cells += [
                    percent(test["phone errors"]),
                    f"{mean:+.2f} ({low:+.2f} … {high:+.2f})",
                    percent(test["eliminated"]),
                ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=NAMES, default=NAMES, help="default: all")
    parser.add_argument("--betas", type=float, nargs="+", default=[0.1], help="of the penalty, a form each")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument(
        "--rate", type=float, default=Settings.rate, help="of AdamW at first; it falls to 0 by a cosine"
    )
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument(
        "--budget", type=float, default=1.0, help="points, of what is held in training and of what is tested"
    )
    parser.add_argument("--per-octave", type=int, default=1, help="thresholds per doubling that the search tries")
    parser.add_argument("--folder", type=Path, default=Path("build/rezk-2022/finetune"), help="of an unfinished run")
    parser.add_argument("--output", type=Path, help="results as JSON")
    parser.add_argument(
        "--quick", action="store_true", help="tiny untrained models on noise, a few steps: to see that it runs"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.settings = Settings(options.steps, rate=options.rate, seed=options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        if options.quick:
            options.folder, options.settings, task = Path(scratch), Settings(3, 4, 12, calibration=2), stand_in()
        else:
            task = tasks.Mboshi()
        options.folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for name in options.models:
            size, kind = name.split("-")
            network = tiny(kind, size) if options.quick else train.load(kind, size)
            found[name] = Comparison(name, models.deploy(network), task, options).run()
            if options.output:
                about = {"settings": asdict(options.settings), "betas": options.betas, "budget": options.budget}
                text = json.dumps(about | {"models": found}, indent=1, ensure_ascii=False) + "\n"
                write_file(options.output, text.encode())
    print(markdown(found))
    return found


def stand_in():
    """Noise, whose parts are all there."""
    task = run.StandIn()
    task.parts |= {"train": task.parts["calibration"], "valid": task.parts["search"]}
    return task


def tiny(kind: str, size: str):
    return run.tiny(kind) if size == "small" else models.network(kind, size, units=8).eval()


if __name__ == "__main__":
    main()
