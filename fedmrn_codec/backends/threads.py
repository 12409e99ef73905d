"""Threads over the ranges of an array, for backends whose own threads are off."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def threads() -> int:
    """How many threads a call may use: FEDMRN_THREADS, or the processors at hand."""
    given = int(os.environ.get("FEDMRN_THREADS", 0))
    if given > 0:
        return given
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[int, int], None], count: int, block: int) -> None:
    """Call `work(start, size)` for each block of `count` elements; the blocks share nothing."""
    starts = range(0, count, block)
    workers = min(threads(), len(starts))
    if workers <= 1:
        for at in starts:
            work(at, min(block, count - at))
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda at: work(at, min(block, count - at)), starts))
