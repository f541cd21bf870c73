"""One training loop for every task: seeds, schedules, early stopping, checkpoints, one process or many.

The loop knows no task. A task says which global batches make an epoch, what a process's share of one costs, and how
good the model is on validation data. Because the plan of an epoch is the same on every process and follows from seed
and epoch alone, a run that was killed goes on exactly where its last checkpoint was, and N processes under `torchrun`
take the same steps as one process with the same global batch (within float noise, and where nothing is drawn at
random inside the model).
"""

import math
import os
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric


class Task(Protocol):
    """What the loop asks of a task."""

    def plan(self, epoch: int) -> Sequence[Any]:
        """The global batches of an epoch, in order, the same on every process: indices, not data."""

    def loss(self, model: torch.nn.Module, batch: Any, share: "Share", carry: Any) -> tuple[torch.Tensor, int, Any]:
        """Of this process's share of a batch: the sum of the losses, how many there are, and what to carry over to
        the next batch (the state of a language model; detached tensors or None). `carry` is None at an epoch's start.
        """

    def score(self, model: torch.nn.Module) -> dict[str, float]:
        """Validation, on every process alike. The first value decides what is best: lower is better."""

    # Batches are made on the CPU and the model may be elsewhere: both bring them there with `beside`.


@dataclass(frozen=True)
class Share:
    """Which rows of a global batch are this process's: every `world`-th, from `rank` on."""

    rank: int = 0
    world: int = 1

    def __call__(self, rows):
        if len(rows) < self.world:
            raise ValueError(
                f"a batch of {len(rows)} cannot be shared by {self.world} processes: change the batch size"
            )
        return rows[self.rank :: self.world]


def beside(model: torch.nn.Module, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """The tensors on the model's device."""
    device = next(model.parameters()).device
    return [tensor.to(device) for tensor in tensors]


@dataclass(frozen=True)
class Settings:
    epochs: int
    lr: float
    optimizer: str = "adamw"  # a key of OPTIMIZERS
    weight_decay: float = 0.0
    schedule: str = "cosine"  # a key of SCHEDULES
    halving: float | None = None  # halve the rate after an epoch that improves the score by less than this share of it
    warmup: float = 0.0  # the share of all steps in which the learning rate rises from 0
    clip: float | None = 1.0  # the largest norm of the gradient
    patience: int | None = None  # stop after so many epochs without a better score
    seed: int = 0
    precision: str = "32-true"  # of Lightning Fabric: "bf16-mixed" is faster where the machine has it
    save_every: float = 120.0  # seconds between checkpoints inside an epoch; one is written after every epoch


OPTIMIZERS = {
    "adamw": lambda p, s: torch.optim.AdamW(p, lr=s.lr, weight_decay=s.weight_decay, fused=True),
    "adam": lambda p, s: torch.optim.Adam(p, lr=s.lr, weight_decay=s.weight_decay, fused=True),
    "rmsprop": lambda p, s: torch.optim.RMSprop(p, lr=s.lr, alpha=0.95, eps=1e-8, weight_decay=s.weight_decay),
    "sgd": lambda p, s: torch.optim.SGD(p, lr=s.lr, weight_decay=s.weight_decay),
}

# How large the learning rate is, as a factor, when a share t of all steps is done.
SCHEDULES = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    # Slowly at first, then straight to 0: between the two others.
    "bent": lambda t: min(1.0 - 0.773 * t, 1.3 * (1.0 - t)),
    "cosine": lambda t: 0.5 * (1.0 + math.cos(math.pi * t)),
}


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def processes(precision: str = "32-true", accelerator: str = "auto") -> Fabric:
    """Fabric over the processes that `torchrun` started, or over this one alone."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    nodes = int(os.environ.get("WORLD_SIZE", 1)) // local
    fabric = Fabric(accelerator=accelerator, devices=local, num_nodes=nodes, precision=precision)
    fabric.launch()
    return fabric


def train(
    model: torch.nn.Module,
    task: Task,
    settings: Settings,
    folder: str | Path,
    fabric: Fabric | None = None,
) -> list[dict[str, float]]:
    """Train, and leave the best weights in the model. Returns a line per epoch: the learning curve.

    `folder` holds `state.pt`, from which a run with the same settings goes on, whether it was killed or finished.
    """
    fabric = fabric or processes(settings.precision)
    return Run(model, task, settings, Path(folder), fabric).go()


class Run:
    def __init__(self, model, task, settings, folder, fabric):
        self.task, self.settings, self.folder, self.fabric = task, settings, folder, fabric
        self.share = Share(fabric.global_rank, fabric.world_size)
        self.bare = model
        optimizer = OPTIMIZERS[settings.optimizer](model.parameters(), settings)
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.curve: list[dict[str, float]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.carry = None
        self.total = torch.zeros(2, dtype=torch.float64)  # of this epoch: the sum of the losses, their number

    def go(self) -> list[dict[str, float]]:
        seed_everything(self.settings.seed + self.share.rank)  # what is drawn inside the model differs per process
        self.load()
        while self.epoch < self.settings.epochs and not self.exhausted():
            self.one_epoch()
        if self.best:
            self.bare.load_state_dict(self.best)
        self.bare.eval()
        return self.curve

    def exhausted(self) -> bool:
        patience = self.settings.patience
        return patience is not None and len(self.curve) - self.best_epoch() >= patience

    def best_epoch(self) -> int:
        """Counted from 1; 0 before the first."""
        scores = [line["score"] for line in self.curve]
        return 1 + scores.index(min(scores)) if scores else 0

    def one_epoch(self) -> None:
        plan = self.task.plan(self.epoch)
        started = saved = shown = time.monotonic()
        paced = self.step
        for position in range(self.step, len(plan)):
            self.one_step(plan, position)
            now = time.monotonic()
            if self.together(now - saved > self.settings.save_every):
                self.seconds += now - started
                started = saved = now
                self.save()
            if now - shown > 20:
                self.show(self.step, len(plan), (now - shown) / (self.step - paced))
                shown, paced = now, self.step
        self.model.eval()
        with torch.no_grad():
            scores = self.task.score(self.model)
        mean = self.total / self.total[1].clamp(min=1)
        self.seconds += time.monotonic() - started
        line = {"epoch": self.epoch + 1, "loss": mean[0].item(), "score": next(iter(scores.values())), **scores}
        line["minutes"] = round(self.seconds / 60, 2)
        if math.isnan(line["score"]):
            raise FloatingPointError(f"the score of epoch {self.epoch + 1} is not a number: lower the learning rate")
        self.curve.append(line)
        if self.best_epoch() == len(self.curve):
            self.best = {name: value.detach().cpu().clone() for name, value in self.bare.state_dict().items()}
        self.fabric.print("  ".join(f"{key} {value:.5g}" for key, value in line.items() if key != "score"), flush=True)
        self.epoch, self.step, self.carry = self.epoch + 1, 0, None
        self.total = torch.zeros(2, dtype=torch.float64)
        self.save()

    def one_step(self, plan: Sequence, position: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr((self.epoch + position / len(plan)) / self.settings.epochs)
        self.model.train()
        loss, count, self.carry = self.task.loss(self.model, plan[position], self.share, self.carry)
        # Processes average their gradients. The mean over the global batch is wanted, whatever share each one had.
        counts = self.sum(torch.tensor(float(count), device=loss.device))
        self.fabric.backward(loss * (self.share.world / counts))
        if self.settings.clip is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.total += torch.tensor([self.sum(loss.detach()).item(), counts.item()], dtype=torch.float64)
        self.step = position + 1

    def lr(self, done: float) -> float:
        """At a share `done` of all steps, after the epochs of the curve."""
        rise, full = self.settings.warmup, self.settings.lr * 0.5 ** self.halvings()
        if done < rise:
            return full * done / rise
        return full * SCHEDULES[self.settings.schedule]((done - rise) / (1 - rise))

    def halvings(self) -> int:
        """How often the rate has been halved: it follows from the curve, so nothing has to be saved for it."""
        scores = [line["score"] for line in self.curve]
        if self.settings.halving is None:
            return 0
        return sum(before - after < self.settings.halving * abs(before) for before, after in pairwise(scores))

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        return self.fabric.all_reduce(value, reduce_op="sum") if self.share.world > 1 else value

    def together(self, wish: bool) -> bool:
        """What the first process wishes: a checkpoint is written by all or by none."""
        return self.fabric.broadcast(wish) if self.share.world > 1 else wish

    def show(self, step: int, length: int, pace: float) -> None:
        mean = (self.total[0] / self.total[1]).item()
        left = pace * (length - step)
        self.fabric.print(
            f"  epoch {self.epoch + 1}  step {step}/{length}  loss {mean:.4f}  {left:.0f} s left in the epoch",
            flush=True,
        )

    # Checkpoints. One file, written beside and renamed: a kill leaves either the old one or the new one.

    def save(self) -> None:
        own = {"carry": self.carry, "torch": torch.get_rng_state(), "numpy": np.random.get_state()}
        everyone = [own]
        if self.share.world > 1:
            everyone = [None] * self.share.world
            torch.distributed.all_gather_object(everyone, own)
        if self.share.rank == 0:
            state = {
                "settings": asdict(self.settings),
                "model": self.bare.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "position": (self.epoch, self.step, self.seconds),
                "curve": self.curve,
                "best": self.best,
                "total": self.total,
                "processes": everyone,
            }
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / "state.pt.part"
            with open(part, "wb") as out:
                torch.save(state, out)
                out.flush()
                os.fsync(out.fileno())
            os.replace(part, self.folder / "state.pt")
        self.fabric.barrier()

    def load(self) -> None:
        file = self.folder / "state.pt"
        if not file.exists():
            return
        # Our own file, with NumPy's generator state in it.
        state = torch.load(file, map_location=self.fabric.device, weights_only=False)
        for what, was, now in (
            ("settings", state["settings"], asdict(self.settings)),
            ("number of processes", len(state["processes"]), self.share.world),
        ):
            if was != now:
                raise ValueError(f"{file} is of a run with another {what}: {was}, now {now}; name another folder")
        self.bare.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.seconds = state["position"]
        self.curve, self.best, self.total = state["curve"], state["best"], state["total"].cpu()
        own = state["processes"][self.share.rank]
        self.carry = own["carry"]
        torch.set_rng_state(own["torch"].cpu())
        np.random.set_state(own["numpy"])
        self.fabric.print(f"going on from {file}: epoch {self.epoch + 1}, step {self.step}", flush=True)


def shuffled(rows: int, batch: int, seed: int, epoch: int, lengths: Iterable[int] | None = None) -> list[np.ndarray]:
    """The batches of an epoch, as row numbers, in an order that follows from seed and epoch.

    With lengths, rows of similar length share a batch: the rows are sorted inside pools of 50 batches, so that
    padding is small and the composition of the batches still changes.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(rows)
    if lengths is not None:
        lengths = np.asarray(lengths)
        pools = [order[i : i + 50 * batch] for i in range(0, rows, 50 * batch)]
        order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    batches = [order[i : i + batch] for i in range(0, rows, batch)]
    if lengths is not None:
        batches = [batches[i] for i in draw.permutation(len(batches))]
    return batches
