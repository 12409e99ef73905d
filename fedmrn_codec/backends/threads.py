"""Threads over the ranges of an array, for backends whose own threads are off."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache


def threads() -> int:
    """How many threads a call may use: FEDMRN_THREADS, or the processors at hand."""
    given = int(os.environ.get("FEDMRN_THREADS") or 0)
    if given > 0:
        return given
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[int, int], None], count: int, size: int) -> None:
    """Call `work(begin, end)` over the ranges of `size` that make up `count`, which share nothing.

    The caller's thread works too, and does all of it where the others are slow to wake.
    """
    ranges = deque((begin, min(begin + size, count)) for begin in range(0, count, size))

    def some() -> None:
        try:
            while ranges:
                try:
                    begin, end = ranges.popleft()
                except IndexError:  # another thread was faster
                    return
                work(begin, end)
        finally:
            ranges.clear()  # after an error nobody goes on

    workers = threads() if len(ranges) > 1 else 1
    asked = [_pool(workers, os.getpid()).submit(some) for _ in range(min(workers, len(ranges)) - 1)]
    try:
        some()
    finally:
        for one in asked:
            if not one.cancel():
                one.result()


@cache
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's and gets its own."""
    return ThreadPoolExecutor(workers, "fedmrn")
