"""Where candidates are evaluated: in this process, in processes of their own, or as tasks of a Ray cluster.

All give ``concurrent.futures`` futures. Several processes are spawned, not forked: threads of BLAS and torch do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field

from ..errors import RindleError, needs

OBJECT_STORE = 100 * 2**20  # bytes, of a local Ray: it only carries the model and the data


Candidate = dict[str, object]  # parameter -> its choice, as plain data
Space = dict[str, tuple]  # parameter -> its choices, in their order


@dataclass(frozen=True)
class Outcome:
    """What the callable says of a candidate. values: objective -> number. constraints: name -> number, above 0 where violated.
    more: plain data worth keeping.
    """

    values: dict[str, float]
    constraints: dict[str, float] = field(default_factory=dict)
    more: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """The candidate has no evaluation."""

    reason: str


@dataclass(frozen=True)
class Died:
    """The process that evaluated it has ended: killed, or out of memory."""

    reason: str


class Workers:
    """evaluate: a callable; picklable unless there is one worker and no Ray. count: how many at a time. ray: None, "local",
    or a cluster's address ("auto", "ray://host:10001"), whose machines must have this package. A context manager.
    """

    def __init__(self, evaluate: Callable, count: int = 1, ray: str | None = None):
        self.evaluate, self.count = evaluate, count
        self.ray = _Ray(evaluate, ray, count) if ray else None
        self.pool: Executor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind, *_) -> None:
        if self.ray:
            self.ray.close()
        if self.pool:
            self.pool.shutdown(wait=kind is None, cancel_futures=True)
            if kind is not None and isinstance(self.pool, ProcessPoolExecutor):
                for process in list((self.pool._processes or {}).values()):
                    process.terminate()

    def submit(self, candidate: Candidate) -> Future:
        if self.ray:
            return self.ray.submit(candidate)
        if self.pool is None:
            self.pool = self._begun()
        try:
            return self._submitted(candidate)
        except BrokenExecutor:  # a worker died after the last answer came
            self.pool = self._begun()
            return self._submitted(candidate)

    def outcome(self, future: Future):
        """An Outcome, Refused or Died. Anything else that the callable raised is raised."""
        try:
            return future.result()
        except BrokenExecutor:
            self.pool = None
            return Died("it was killed, or its machine ran out of memory")
        except Exception as error:
            if self.ray and (reason := self.ray.death(error)):
                return Died(reason)
            raise

    def _begun(self) -> Executor:
        if self.count == 1:
            return ThreadPoolExecutor(1)
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, mp_context=context, initializer=_begin, initargs=(self.evaluate,))

    def _submitted(self, candidate: Candidate) -> Future:
        if self.count == 1:
            return self.pool.submit(_call, self.evaluate, candidate)
        return self.pool.submit(_call_begun, candidate)


class _Ray:
    """Trials as Ray tasks; Ray starts one anew elsewhere when its machine goes."""

    def __init__(self, evaluate: Callable, address: str, count: int):
        with needs("--ray", "ray"):
            import ray
        self.ray = ray
        self.started = not ray.is_initialized()
        if self.started:
            local = {"num_cpus": count, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
            try:
                ray.init(address, log_to_driver=False, logging_level="ERROR", **(local if address == "local" else {}))
            except Exception as error:  # Ray raises a bare one where its processes do not come up within half a minute
                ray.shutdown()
                first = str(error).strip().split("\n")[0]
                raise RindleError(f"there is no Ray at {address!r}, or it did not start: {first}") from error
        self.task = ray.remote(max_retries=1)(_call)
        self.evaluate = ray.put(evaluate)

    def submit(self, candidate: Candidate) -> Future:
        return self.task.remote(self.evaluate, candidate).future()

    def death(self, error: Exception) -> str | None:
        errors = self.ray.exceptions
        gone = (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError, errors.ObjectLostError)
        return str(error).split("\n")[0] if isinstance(error, gone) else None

    def close(self) -> None:
        if self.started:
            self.ray.shutdown()


_evaluate: Callable | None = None  # of this process, where it is a worker


def _begin(evaluate: Callable) -> None:
    global _evaluate
    _evaluate = evaluate


def _call_begun(candidate: Candidate):
    return _call(_evaluate, candidate)


def _call(evaluate: Callable[[Candidate], Outcome], candidate: Candidate):
    try:
        return evaluate(candidate)
    except RindleError as error:
        return Refused(str(error))
