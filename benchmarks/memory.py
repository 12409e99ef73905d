"""Peak memory of one call in a process of its own, without its input and its sums.

`python -m benchmarks.memory NAME SIZE` prints the bytes for encoding and for adding: the peak of resident
memory after the call, minus the resident memory before it.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

from .contenders import COPY, every
from .peak import ALLOCATOR, MIB, growth
from .plan import Plan
from .tables import Section, Table, Target, number

AGGREGATE = "aggregate"


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
