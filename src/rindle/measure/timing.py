"""Timing without self-deception: contenders in turns, in one process, on one core; median and best of many slices."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Contender:
    """Something to be timed. loop(n): does it n times. around: a context in which its slices run, outside the clock.

    kind: what it is compared as, "rindle", "torch float", …; name: which form of it.
    """

    kind: str
    name: str
    loop: Callable[[int], None]
    around: Callable[[], AbstractContextManager] = nullcontext


@dataclass(frozen=True)
class Timing:
    """Microseconds per call over the slices."""

    median: float
    best: float


def in_turns(contenders: list[Contender], slices: int = 41, seconds: float = 5e-4) -> list[Timing]:
    """Times every contender in every slice, so that the machine's drift meets all of them.

    seconds: least length of a slice; it holds as many calls as that takes, at least one. The first slice only warms
    up and finds out how many. Returns a Timing per contender, in their order.
    """
    calls = [_calls(one, seconds) for one in contenders]
    times = np.empty((slices, len(contenders)))
    collecting = gc.isenabled()
    gc.disable()  # a collection is nobody's fault, but someone's slice
    try:
        for row in times:
            for k, one in enumerate(contenders):
                with one.around():
                    start = time.perf_counter()
                    one.loop(calls[k])
                    row[k] = (time.perf_counter() - start) / calls[k] * 1e6
    finally:
        if collecting:
            gc.enable()
    return [Timing(float(np.median(column)), float(column.min())) for column in times.T]


def _calls(one: Contender, seconds: float) -> int:
    """Calls that fill a slice, by doubling: a first call is slow, and must not decide."""
    calls = 1
    with one.around():
        one.loop(2)
        while True:
            start = time.perf_counter()
            one.loop(calls)
            spent = time.perf_counter() - start
            if spent >= seconds / 2:
                return max(1, round(calls * seconds / spent))
            calls *= 2


@contextmanager
def one_core() -> Iterator[int | None]:
    """Pins this thread to one core while it lasts; gives the core's number, or None where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def read_loops(size: int) -> list[Contender]:
    """Loops that read a buffer of ``size`` bytes once and do little else: the fastest tells how fast it can be read.

    An estimate from above the metal: the C library's byte search, and NumPy's reductions.
    """
    # Written once: pages that were never written are all one page of zeros, which stays in the nearest cache.
    text = bytearray(b"\2") * max(size, 1)  # in which a one is looked for in vain
    words = np.ones(max(size // 8, 1), np.int64)
    singles = np.ones(max(size // 4, 1), np.float32)

    def search(n: int) -> None:
        find = text.find
        for _ in range(n):
            find(1)

    def reducing(reduce, array) -> Callable[[int], None]:
        def loop(n: int) -> None:
            for _ in range(n):
                reduce(array)

        return loop

    return [
        Contender("read", "byte search", search),
        Contender("read", "sum of int64", reducing(np.add.reduce, words)),
        Contender("read", "maximum of float32", reducing(np.maximum.reduce, singles)),
    ]
