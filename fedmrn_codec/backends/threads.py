"""Threads over the ranges of an array, for backends whose own threads are off."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def threads() -> int:
    """How many threads a call may use: FEDMRN_THREADS, or the processors at hand."""
    given = int(os.environ.get("FEDMRN_THREADS") or 0)
    if given > 0:
        return given
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[int, int], None], count: int, block: int, size: int | None = None) -> None:
    """Call `work(begin, end)` over ranges that begin on multiples of `block` and share nothing.

    There is a range for each thread; with a `size`, a multiple of `block`, as many as are needed.
    """
    blocks = -(-count // block)
    workers = max(min(threads(), blocks), 1)
    size = size or max(-(-blocks // workers), 1) * block
    begins = range(0, count, size)
    ends = [min(begin + size, count) for begin in begins]
    if workers == 1:
        list(map(work, begins, ends))
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, begins, ends))
