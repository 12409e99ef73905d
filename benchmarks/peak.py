"""The resident memory of a process, and its peak during a call.

On Linux the peak is reset before the call. Elsewhere it is that of getrusage, which never falls: memory that
the imports had used before is then subtracted from the result.
"""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): sets the peak to the memory that is resident now
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""For glibc: freed arrays are returned to the system at once, so none is resident before the call."""

MIB = 2**20


def growth(call: Callable[[], object], before: int | None = None) -> int:
    """The bytes by which resident memory rises during a call, at the peak.

    Parameters
    ----------
    call : callable
    before : int, optional
        The resident bytes to compare with; by default those right before the call.
    """
    gc.collect()
    if CLEAR.exists():
        CLEAR.write_text(RESET_PEAK)
    if before is None:
        before = resident()
    call()
    return max(_highest() - before, 0)


def _field(name: str) -> int:
    """A value of /proc/self/status, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return 1024 * int(line.split()[1])


def resident() -> int:
    """The resident bytes of this process; without /proc, the peak so far."""
    return _field("VmRSS") if STATUS.exists() else _highest()


def _highest() -> int:
    # After exec, Linux's getrusage still includes the parent's memory; VmHWM is that of this program alone.
    if STATUS.exists():
        return _field("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
