"""Threads over the ranges of an array, for backends that do not use threads of their own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from .. import errors


def threads() -> int:
    """The number of threads of a call: the variable FEDMRN_THREADS, or else the available processors.

    Raises
    ------
    ArgumentError
        The variable is not an integer; 0 and below, like an empty one, stand for the available processors.
    """
    given = os.environ.get("FEDMRN_THREADS") or "0"
    try:
        number = int(given)
    except ValueError:
        raise errors.ArgumentError("variable FEDMRN_THREADS", "an integer", repr(given)) from None
    return number if number > 0 else processors()


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[int, int], None], count: int, size: int) -> None:
    """Call `work(begin, end)` in threads, for ranges of `size` that together are 0 to `count` - 1.

    The calling thread works too, and does everything if the others do not start in time. After an error in
    one thread no further range is begun, and the error is raised.
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
            ranges.clear()  # after an error, the other threads stop too

    workers = threads() if len(ranges) > 1 else 1
    futures = [_pool(workers, os.getpid()).submit(some) for _ in range(min(workers, len(ranges)) - 1)]
    try:
        some()
    finally:
        for future in futures:
            if not future.cancel():
                future.result()


@cache
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    """The pool of a process: a forked process does not have its parent's threads and needs its own."""
    return ThreadPoolExecutor(workers, "fedmrn")
