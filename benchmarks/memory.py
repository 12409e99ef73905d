"""Peak memory of one call in a process of its own, without its input and its sums.

`python -m benchmarks.memory NAME SIZE` prints the bytes for encoding and for adding: the peak of resident
memory after the call, minus the resident memory before it. On Linux the peak is reset before the call.
Elsewhere it is that of getrusage, which never falls: memory that the imports had used before is then
subtracted from the result.
"""

from __future__ import annotations

import gc
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .contenders import COPY, every
from .plan import Plan
from .tables import Section, Table, Target, number

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): sets the peak to the memory that is resident now
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""For glibc: freed arrays are returned to the system at once, so none is resident before the call."""

AGGREGATE = "aggregate"
MIB = 2**20


def run(plan: Plan) -> Section:
    """A table of contenders, and the acceptance target for many frames."""
    names = [name for name in every(64) if name != COPY]
    peaks = {name: peaks_of(name, str(plan.size)) for name in names}
    rows = [[name, *(number(value / MIB) for value in pair)] for name, pair in peaks.items()]
    title = (
        f"Peak memory in MiB without input and sums; {plan.size:,} elements are {4 * plan.size / MIB:.0f} MiB"
    )
    count = plan.clients[-1]
    (measured,) = peaks_of(AGGREGATE, plan.model, str(count))
    name = f"{count} {plan.model.upper()} frames: peak MiB beyond the output"
    table = Table(title, ("contender", "encode", "decode and add"), rows)
    return Section([table], [Target(name, measured / MIB, 64, at_least=False)])


def peaks_of(*arguments: str, module: str = "benchmarks.memory") -> list[int]:
    """The bytes that a new process measures."""
    command = [sys.executable, "-m", module, *arguments]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ALLOCATOR},
        cwd=Path(__file__).parents[1],
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return [int(line) for line in result.stdout.split()]


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


def aggregate(model: str, count: int) -> int:
    """The bytes that summing many frames takes in addition to its output; frames are made one at a time."""
    from .clients import endless_frames, sum_exactly, weights_of
    from .frames import schema_of

    schema = schema_of(model)
    frames = endless_frames(schema)

    def total(size: int) -> object:
        return sum_exactly(schema, itertools.islice(frames, size), weights_of(size))

    total(1)
    output = sum(4 * tensor.size for tensor in schema)
    return max(growth(lambda: total(count)) - output, 0)


def main() -> None:
    """Run the measurement that the command line names."""
    name, size = sys.argv[1], int(sys.argv[-1])
    if name == AGGREGATE:
        print(aggregate(sys.argv[2], size))
        return
    contender = every(size)[name]
    for call in (contender.encode, contender.add):
        call()  # compiles the kernels, and allocates the sums
        print(growth(call))


if __name__ == "__main__":
    main()
