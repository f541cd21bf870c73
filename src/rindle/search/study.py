"""Candidates out of a space, each evaluated once, in an Optuna study that survives its processes.

A candidate is one choice for every parameter, as plain data; a callable evaluates it. The study is Optuna's, in a database:
one SQLite file, or any database that several machines reach. What is ours is only what a search with dear evaluations asks for:

- *Nothing is evaluated twice.* A sampler that asks for what the study has already is asked again. A grid is queued whole
  when the study begins, so that any number of processes take from it.
- *Nothing is lost.* What is finished stands in the database. Every process that searches keeps its candidates alive there
  (Optuna's heartbeat); those of a process that was killed are queued again after ``GRACE`` seconds, by whoever sees it first. A
  worker that dies takes nothing with it: its candidate is evaluated anew, alone, and set aside when it kills again.
- *A search that was killed ends where it would have ended.* The sampler is seeded anew for every candidate, by how many
  there are; so with one worker the candidates do not depend on where the search was interrupted.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover
from optuna.samplers.nsgaii._elite_population_selection_strategy import NSGAIIElitePopulationSelectionStrategy
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import make_url

from ..errors import RindleError
from .workers import Candidate, Died, Outcome, Refused, Space, Workers

HEARTBEAT, GRACE = 5, 30  # seconds
ATTEMPTS = 200  # draws of a sampler that all gave what the study has already: the space is as good as exhausted
DEATHS = 2  # workers that a candidate may take with it


optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Record:
    """A candidate of a study. refused: why it could not be evaluated, and then values is empty. seconds: what it took."""

    number: int
    candidate: Candidate
    values: dict[str, float]
    constraints: dict[str, float]
    more: dict
    seconds: float
    refused: str | None = None

    @property
    def feasible(self) -> bool:
        return self.refused is None and all(one <= 0 for one in self.constraints.values())


@dataclass(frozen=True)
class Sampling:
    """How NSGA-II (Deb et al. 2002) draws: ``population`` at random; then ``offspring`` from those that survive, as many again,
    and so on. The default is for searches of a hundred evaluations or so: of eight variables and 60 evaluations it covered 4 % more
    hypervolume than chance, in the mean of four seeds, where populations of 24 and 40 covered no more than chance.

    mohaq: integer crossover and mutation as in MOHAQ (arXiv 2108.01192): simulated binary and polynomial, both with η = 3.
    """

    population: int = 12
    offspring: int = 6
    mohaq: bool = False

    def sampler(self, seed: int) -> NSGAIISampler:
        # the number of a generation's members is Optuna's population_size; who survives is up to the strategy
        survivors = NSGAIIElitePopulationSelectionStrategy(population_size=self.population)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            operators = {}
            if self.mohaq:
                operators = {
                    "crossover": SBXCrossover(eta=3.0),
                    "crossover_prob": 1.0,
                    "mutation": PolynomialMutation(eta=3.0),
                }
            return NSGAIISampler(
                population_size=self.offspring, seed=seed, elite_population_selection_strategy=survivors, **operators
            )


SAMPLINGS = {"default": Sampling(), "mohaq": Sampling(40, 10, mohaq=True)}


class Study:
    """A study in a database. ``grid`` or ``explore`` fill it, ``records`` reads it.

    storage: a database URL, or the path of a SQLite file. name: of the study in it. space: parameter -> choices. objectives:
    name -> "minimize" or "maximize". key: plain data that evaluations depend on besides the candidate (model, data, how errors
    are counted); a study of another key is refused. Raises RindleError for that, and for a database that cannot be opened.
    """

    def __init__(
        self,
        storage: str | Path,
        name: str,
        space: Space,
        objectives: dict[str, str],
        key: dict | None = None,
        *,
        heartbeat: int = HEARTBEAT,
        grace: int = GRACE,
    ):
        if not space or not all(space.values()):
            raise RindleError(f"the space {space} has nothing to choose; give every parameter at least one choice")
        self.space, self.objectives, self.heartbeat = space, objectives, heartbeat
        self.dimensions = {name: IntDistribution(0, len(choices) - 1) for name, choices in space.items()}
        self.backend = _open(storage, heartbeat, grace)
        self.study = optuna.create_study(
            storage=self.backend, study_name=name, directions=list(objectives.values()), load_if_exists=True
        )
        wanted = _plain({"space": space, "objectives": objectives, "key": key or {}})
        found = self.study.user_attrs.get("made of")
        if found is None:
            self.study.set_user_attr("made of", wanted)
        elif found != wanted:
            differs = [f"{one}: {found.get(one)}, now {wanted[one]}" for one in wanted if found.get(one) != wanted[one]]
            raise RindleError(
                f"the study {name!r} in {storage} was made of something else ({'; '.join(differs)}); give another folder or storage"
            )
        self.foreign: set[int] = set()

    @property
    def size(self) -> int:
        """Candidates that the space has."""
        return math.prod(len(choices) for choices in self.space.values())

    def records(self) -> list[Record]:
        """All that was evaluated, in order; each candidate once."""
        found: dict[tuple, Record] = {}
        for trial in self._trials():
            if trial.state.is_finished() and not _failed(trial):
                found.setdefault(self._name(trial), self._record(trial))
        return list(found.values())

    def front(self) -> list[Record]:
        """Feasible records that no other beats in all objectives, by their first objective."""
        best = pareto([one for one in self.records() if one.feasible], self.objectives)
        return sorted(best, key=lambda one: tuple(one.values.values()))

    def grid(self, evaluate: Callable[[Candidate], Outcome], **how) -> None:
        """Evaluates the whole space. how: as of :meth:`explore`."""
        self.queue([dict(zip(self.space, choices)) for choices in product(*self.space.values())])
        self._run(evaluate, None, None, **how)

    def explore(
        self,
        evaluate: Callable[[Candidate], Outcome],
        budget: int,
        sampling: Sampling | str = "default",
        seed: int = 0,
        first: Sequence[Candidate] = (),
        **how,
    ) -> None:
        """Evaluates ``budget`` candidates in all, those of earlier runs included: ``first``, then NSGA-II's.

        how: workers: how many at a time, each a process of its own where there are several; ray: the address of a Ray
        cluster, or "local", which then runs them; seen(record, evaluated): called for every evaluation of this run. Raises RindleError for
        an unknown sampling or budget; what else ``evaluate`` raises ends the search, and its candidate stays queued.
        RindleError from ``evaluate`` refuses the candidate: it stays in the study with the reason.
        """
        if isinstance(sampling, str):
            if sampling not in SAMPLINGS:
                raise RindleError(f"unknown sampling {sampling!r}; there are {', '.join(SAMPLINGS)}")
            sampling = SAMPLINGS[sampling]
        if budget < 1:
            raise RindleError(f"the budget is {budget} evaluations; it must be at least 1")
        self.queue(list(first)[:budget])
        drawn = np.random.default_rng(seed).integers
        some = [{k: c[drawn(len(c))] for k, c in self.space.items()} for _ in range(sampling.population - len(first))]
        self.queue(some[: max(0, budget - len(first))])  # the first population, several generations large
        self._run(evaluate, budget, lambda number: sampling.sampler(number), seed, **how)

    def queue(self, candidates: Sequence[Candidate]) -> None:
        """Puts candidates into the queue that the study has not had."""
        had = {self._name(trial) for trial in self._trials() if not _failed(trial)}
        new = {}
        for one in candidates:
            indices = self._indices(one)
            if tuple(indices.values()) not in had:
                new[tuple(indices.values())] = indices
        self.study.add_trials(
            create_trial(state=TrialState.WAITING, params=one, distributions=self.dimensions) for one in new.values()
        )

    def _run(
        self,
        evaluate,
        budget: int | None,
        sampler: Callable[[int], BaseSampler] | None,
        seed: int = 0,
        *,
        workers: int = 1,
        ray: str | None = None,
        seen: Callable[[Record, int], None] | None = None,
    ) -> None:
        if workers < 1:
            raise RindleError(f"the number of workers is {workers}; it must be at least 1")
        self.foreign.clear()
        with Workers(evaluate, workers, ray) as pool:
            hands = _Hands(self, pool, workers, lambda trials: self._next(trials, budget, sampler, seed), seen)
            try:
                while hands.fill():
                    hands.collect()
            except BaseException:  # an interruption, too: what was begun is left for the next
                hands.give_back()
                raise

    def _next(self, trials: list[FrozenTrial], budget: int | None, sampler, seed: int) -> optuna.Trial | None:
        """A candidate that nobody has had: from the queue, else drawn. None when there is no more to do."""
        for attempt in range(ATTEMPTS):
            names = {self._name(trial) for trial in trials if not _failed(trial)}
            if not _waiting(trials) and (budget is None or len(names) >= min(budget, self.size)):
                return None
            number = int(np.random.SeedSequence((seed, len(names), attempt)).generate_state(1)[0])
            self.study.sampler = sampler(number) if sampler else RandomSampler(number)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # heartbeats without Study.optimize: we send them
                trial = self.study.ask(self.dimensions)
            self._alive(trial)
            if not self._had_before(trial):
                return trial
            trial.set_user_attr("discarded", "the study has this candidate")
            self.study.tell(trial, state=TrialState.FAIL)
            trials = self._trials()
        return None

    def _had_before(self, trial: optuna.Trial) -> bool:
        """Whether an earlier one is the same. One that another process is just drawing is waited for."""
        for _ in range(50):
            earlier = [one for one in self._trials() if one.number < trial.number and not _failed(one)]
            if any(self._name(one) == self._name(trial) for one in earlier):
                return True
            if all(len(one.params) == len(self.space) for one in earlier):
                return False
            time.sleep(0.05)
        return False

    def _requeue_the_dead(self, own: set[int]) -> list[FrozenTrial]:
        """The study's trials, after those of processes that gave no sign of life for too long were queued again."""
        trials = self._trials()
        others = [one for one in trials if one.state == TrialState.RUNNING and one.number not in own]
        for one in others:
            if (
                one.number not in self.foreign
            ):  # or one that was killed before its first sign of life would stay for ever
                self._alive(one)
        self.foreign = {one.number for one in others}
        if not others:
            return trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(self.study)
        return self._trials()

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _alive(self, trial: optuna.Trial | FrozenTrial) -> None:
        self.backend.record_heartbeat(trial._trial_id)

    def _give_back(self, trial: optuna.Trial) -> None:
        frozen = next(one for one in self.study.get_trials() if one.number == trial.number)
        self.study.tell(trial, state=TrialState.FAIL)
        _retry()(self.study, frozen)

    def _finish(self, trial: optuna.Trial, outcome: Outcome | Refused, seconds: float) -> Record:
        if isinstance(outcome, Outcome):
            wrong = [name for name in self.objectives if not math.isfinite(outcome.values.get(name, math.nan))]
            if wrong:
                outcome = Refused(f"{', '.join(wrong)} is {outcome.values.get(wrong[0])}, not a number")
        if isinstance(outcome, Refused):
            trial.set_user_attr("result", {"refused": outcome.reason, "seconds": round(seconds, 3)})
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_user_attr("result", {"more": _plain(outcome.more), "seconds": round(seconds, 3)})
            for name, value in outcome.constraints.items():
                trial.set_constraint(name, value)
            self.study.tell(trial, [float(outcome.values[name]) for name in self.objectives])
        return self._record(self._trials()[trial.number])

    def _record(self, trial: FrozenTrial) -> Record:
        values = dict(zip(self.objectives, trial.values)) if trial.state == TrialState.COMPLETE else {}
        found = trial.user_attrs["result"]
        more, refused = found.get("more", {}), found.get("refused")
        candidate = self._candidate(trial.params)
        return Record(trial.number, candidate, values, dict(trial.constraints), more, found["seconds"], refused)

    def _candidate(self, indices: dict[str, int]) -> Candidate:
        return {name: choices[indices[name]] for name, choices in self.space.items()}

    def _indices(self, candidate: Candidate) -> dict[str, int]:
        try:
            return {name: choices.index(candidate[name]) for name, choices in self.space.items()}
        except (KeyError, ValueError):
            raise RindleError(f"the candidate {candidate} is not in the space {self.space}") from None

    def _name(self, trial: optuna.Trial | FrozenTrial) -> tuple:
        return tuple(trial.params.get(name) for name in self.space)


class _Hands:
    """The candidates that one process has in hand. draw: the study's trials -> the next one, or None. seen: as of ``Study.explore``."""

    def __init__(self, study: Study, pool: Workers, workers: int, draw: Callable, seen: Callable | None):
        self.study, self.pool, self.workers, self.draw, self.seen = study, pool, workers, draw, seen
        self.running: dict[Future, optuna.Trial] = {}
        self.again: list[optuna.Trial] = []  # whose worker died
        self.deaths: dict[int, int] = {}
        self.begun: dict[int, float] = {}
        self.evaluated = len(study.records())

    def fill(self) -> bool:
        """Gives candidates to workers that have none. False when all is done, here and in other processes."""
        trials = self.study._requeue_the_dead({one.number for one in (*self.running.values(), *self.again)})
        suspect = bool(self.again) or any(trial.number in self.deaths for trial in self.running.values())
        while len(self.running) < (1 if suspect else self.workers):
            trial = self.again.pop(0) if self.again else self.draw(trials)
            if trial is None:
                break
            self.begun.setdefault(trial.number, time.monotonic())
            self.running[self.pool.submit(self.study._candidate(trial.params))] = trial
            trials = self.study._trials()
        return bool(self.running or self.study.foreign) or _waiting(trials)

    def collect(self) -> None:
        """Waits for outcomes, at most for a heartbeat, and tells the study."""
        if not self.running:
            time.sleep(self.study.heartbeat / 5)  # others are at work on the last ones
            return
        done, _ = wait(self.running, timeout=self.study.heartbeat, return_when=FIRST_COMPLETED)
        for trial in self.running.values():
            self.study._alive(trial)
        for future in done:
            trial = self.running.pop(future)
            try:
                outcome = self.pool.outcome(future)
            except BaseException:
                self.again.append(trial)
                raise
            self.tell(trial, outcome)

    def tell(self, trial: optuna.Trial, outcome: Outcome | Refused | Died) -> None:
        if isinstance(outcome, Died):
            # the first death took all that ran; who dies alone is to blame
            self.deaths[trial.number] = self.deaths.get(trial.number, -1) + 1
            if self.deaths[trial.number] < DEATHS:
                self.again.append(trial)
                return
            outcome = Refused(f"its worker died {DEATHS + 1} times: {outcome.reason}")
        self.deaths.pop(trial.number, None)
        record = self.study._finish(trial, outcome, time.monotonic() - self.begun[trial.number])
        self.evaluated += 1
        if self.seen:
            self.seen(record, self.evaluated)

    def give_back(self) -> None:
        for trial in (*self.running.values(), *self.again):
            self.study._give_back(trial)


def pareto(records: Sequence[Record], objectives: dict[str, str]) -> list[Record]:
    """Those that no other beats: as good in every objective, and better in one."""
    losses = np.array([_losses(one, objectives) for one in records])
    return [one for one, mine in zip(records, losses) if not ((losses <= mine).all(1) & (losses < mine).any(1)).any()]


def hypervolume(records: Sequence[Record], objectives: dict[str, str], reference: dict[str, float]) -> float:
    """What the records dominate, up to the reference point, a value per objective that is worse than all that count.

    Exact: Optuna's WFG algorithm (While, Bradstreet & Barone 2012). The larger, the better the front.
    """
    from optuna._hypervolume import compute_hypervolume  # the pinned version's; it has no public name

    signs = _signs(objectives)
    worst = signs * [reference[name] for name in objectives]
    losses = np.array([_losses(one, objectives) for one in records]).reshape(-1, len(objectives))
    inside = losses[(losses < worst).all(1)]
    return float(compute_hypervolume(inside, worst)) if len(inside) else 0.0


def _losses(record: Record, objectives: dict[str, str]) -> np.ndarray:
    return _signs(objectives) * [record.values[name] for name in objectives]


def _signs(objectives: dict[str, str]) -> np.ndarray:
    return np.array([1.0 if direction == "minimize" else -1.0 for direction in objectives.values()])


def _failed(trial: FrozenTrial) -> bool:
    """Of no account: discarded, or given back. A refused candidate was evaluated."""
    return trial.state == TrialState.FAIL and "refused" not in trial.user_attrs.get("result", {})


def _waiting(trials: list[FrozenTrial]) -> bool:
    return any(trial.state == TrialState.WAITING for trial in trials)


def _retry() -> RetryHeartbeatStaleTrialCallback:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback()


def _open(storage: str | Path, heartbeat: int, grace: int) -> RDBStorage:
    url = str(storage) if "://" in str(storage) else f"sqlite:///{Path(storage).absolute()}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return RDBStorage(
                url,
                engine_kwargs={"creator": partial(_sqlite, make_url(url).database)} if url.startswith("sqlite") else {},
                heartbeat_interval=heartbeat,
                grace_period=grace,
                heartbeat_stale_trial_callback=_retry(),
            )
    except Exception as error:  # SQLAlchemy has a type for every driver's every fault
        first = str(error).strip().split("\n")[0]
        raise RindleError(f"the storage {storage} cannot be opened: {first}") from error


def _sqlite(path: str) -> sqlite3.Connection:
    """Writers wait in line for a minute. What is written outlives its process at once, and the machine's power a moment later:
    to wait for the disk a dozen times per candidate would take longer than many evaluations.
    """
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _plain(value) -> object:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))
