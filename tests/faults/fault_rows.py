"""The faults that are tried, a function each, which counts what became of every point."""

from __future__ import annotations

import ctypes
import gc
import itertools
import mmap
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import _lru_cache_wrapper, partial
from pathlib import Path

import fault_calls as calls
from fault_points import (
    CODE,
    WRITING,
    at_line,
    disk_of,
    killed,
    lines_of,
    outcome_of,
    raising,
    spaced,
    system_call,
)
from fault_writers import WRITERS, Writer

import fedmrn_codec as fm
from fedmrn_codec.cli.problems import FileProblem


@dataclass(frozen=True)
class Row:
    """A line of the table: a fault, where it was put, and how many points had which outcome."""

    fault: str
    where: str
    outcomes: Counter[str]


# --- files


def of_writers(fault: str, points: Callable[[Writer, int], Iterator[str]], most: int) -> list[Row]:
    """The outcomes of a fault for everything that is written."""
    rows = []
    for make in WRITERS.values():
        writer = make()
        try:
            rows.append(Row(fault, writer.name, Counter(points(writer, most))))
        finally:
            writer.remove()
    return rows


def failing(writer: Writer, folder: Path) -> str:
    """In a forked process: the change fails with an error of the system, or is made all the same."""
    try:
        writer.change(folder)
    except OSError:
        return "failed"
    except FileProblem as problem:
        return "failed" if isinstance(problem.__cause__, OSError) else repr(problem)
    return "done"


def repeated(writer: Writer, folder: Path, said: str) -> str:
    """The state after that; and once the fault is gone, the change can be made."""
    assert said in ("failed", "done"), said
    state = writer.state(folder, temporary=False)
    assert said == "failed" or state == "new"
    if state == "old":
        writer.change(folder)
        assert writer.state(folder, temporary=False) == "new"
    return state


def full_at_byte(writer: Writer, most: int) -> Iterator[str]:
    for size in spaced(writer.largest + 1, most):
        folder = writer.copy()

        def work(size: int = size, folder: Path = folder) -> str:
            with disk_of(size):
                return failing(writer, folder)

        yield repeated(writer, folder, outcome_of(work))


def failing_calls(writer: Writer, most: int) -> Iterator[str]:
    def count() -> str:
        with system_call(-1) as counter:
            writer.change(writer.copy())
        return str(next(counter))

    for number in spaced(int(outcome_of(count)), most):
        folder = writer.copy()

        def work(number: int = number, folder: Path = folder) -> str:
            with system_call(number):
                return failing(writer, folder)

        yield repeated(writer, folder, outcome_of(work))


def killed_at_byte(writer: Writer, most: int) -> Iterator[str]:
    for size in spaced(writer.largest + 1, most):
        folder = writer.copy()

        def work(size: int = size, folder: Path = folder) -> str:
            with disk_of(size, deadly=True):
                writer.change(folder)
            return "done"

        yield after_kill(writer, folder, outcome_of(work), "SIGXFSZ")


def killed_at_line(writer: Writer, most: int) -> Iterator[str]:
    total = int(outcome_of(lambda: str(lines_of(lambda: writer.change(writer.copy()), WRITING))))
    for number in spaced(total, most):
        folder = writer.copy()

        def work(number: int = number, folder: Path = folder) -> str:
            at_line(lambda: writer.change(folder), number, killed, WRITING)
            return "done"

        yield after_kill(writer, folder, outcome_of(work), "SIGKILL")


def after_kill(writer: Writer, folder: Path, said: str, expected: str) -> str:
    """The state after a kill; the next process goes on from there, and removes what is in its way."""
    assert said in (expected, "done"), said
    state = writer.state(folder, temporary=True)
    assert said == expected or state == "new"
    if state == "old":
        writer.change(folder)
        assert writer.state(folder, temporary=True) == "new"
    return state


def interrupted_writer(writer: Writer, most: int) -> Iterator[str]:
    total = int(outcome_of(lambda: str(lines_of(lambda: writer.change(writer.copy()), WRITING))))
    for number in spaced(total, most):
        folder = writer.copy()

        def work(number: int = number, folder: Path = folder) -> str:
            try:
                at_line(lambda: writer.change(folder), number, raising(KeyboardInterrupt()), WRITING)
            except KeyboardInterrupt:
                return "failed"
            return "done"  # in a clean-up that ignores every error

        said = outcome_of(work)
        assert said in ("failed", "done"), said
        state = writer.state(folder, temporary=False)
        if state == "old":
            writer.change(folder)
            assert writer.state(folder, temporary=False) == "new"
        yield state


# --- calls


CACHES = [
    thing
    for thing in gc.get_objects()
    if type(thing) is _lru_cache_wrapper
    and thing.__module__.startswith(("fedmrn_codec.format", "fedmrn_codec.primitives", "fedmrn_codec.face"))
]


def of_calls(fault: str, points: Callable[[str, int], Iterator[str]], most: int) -> list[Row]:
    """The outcomes of a fault in all public calls together."""
    found = Counter(itertools.chain.from_iterable(points(name, most) for name in calls.CALLS))
    return [Row(fault, f"{len(calls.CALLS)} public calls", found)]


def stopped_by(
    error: type[BaseException], where: tuple[str, ...] = CODE
) -> Callable[[str, int], Iterator[str]]:
    """Points at which an error is raised: before lines of these files."""

    def points(name: str, most: int) -> Iterator[str]:
        known = calls.checked(name)
        call = known[0]

        def fresh() -> object:
            given = call.make()
            for cache in CACHES:
                cache.cache_clear()
            return given

        given = fresh()
        for number in spaced(lines_of(lambda: call.run(given), where), most):
            work_on = fresh()
            with suppress(error):
                at_line(lambda g=work_on: call.run(g), number, raising(error()), where)
            try:
                yield calls.outcome(name, known, work_on)
            except AssertionError as wrong:
                raise AssertionError(f"line {number}: {wrong}") from wrong

    return points


# --- everything else


def in_threads(most: int) -> list[Row]:
    """All calls in many threads at once, each with its own objects."""
    known = {name: calls.checked(name) for name in calls.CALLS}
    jobs = [name for name in known for _ in range(most)]
    random.Random(1).shuffle(jobs)

    def work(name: str) -> str:
        call, _, after, result = known[name]
        given = call.make()
        assert calls.bytes_of(call.run(given)) == result, name
        assert call.see(given) == after, name
        return "right"

    sys.setswitchinterval(1e-5)
    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(work, jobs))
    sys.setswitchinterval(0.005)
    return [Row("8 threads at once", f"{len(known)} public calls", found)]


def after_fork(most: int) -> list[Row]:
    """Forks after a warm-up, and while another thread decodes; the children decode with the same backend."""
    size = 2**21
    schema = fm.Schema([fm.Tensor("w", (size,), masked=True)])
    update = {"w": calls.np.linspace(-0.01, 0.01, size, dtype="f4")}
    data = fm.encode(update, schema, seed=1, noise=fm.Uniform(0.01), private_seed=2)
    rows = []
    for backend in ("numpy", "numba"):
        try:
            right = calls.bytes_of(fm.decode(data, schema, backend=backend))
        except fm.BackendError:
            continue
        busy = threading.Event()

        def decode(backend: str = backend, busy: threading.Event = busy) -> None:
            while not busy.is_set():
                fm.decode(data, schema, backend=backend)

        def child(backend: str = backend, right: object = right) -> str:
            assert calls.bytes_of(fm.decode(data, schema, backend=backend)) == right
            return "right"

        found = Counter(outcome_of(child) for _ in range(most))
        thread = threading.Thread(target=decode)
        thread.start()
        found.update(outcome_of(child) for _ in range(most))
        busy.set()
        thread.join()
        rows.append(Row("a fork after the first call, and during one", f"decode, {backend}", found))
    return rows


def jumping_clock(most: int) -> list[Row]:
    """All clocks jump at random, also backwards: no result depends on one."""
    known = {name: calls.checked(name) for name in calls.CALLS}
    names = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
    real, chance = {name: getattr(time, name) for name in names}, random.Random(2)
    found: Counter[str] = Counter()
    try:
        for name in names:
            kind = int if name.endswith("_ns") else float
            setattr(time, name, lambda kind=kind: kind(chance.uniform(-1e9, 4e9)))
        for name, (call, _, after, result) in known.items():
            for _ in range(most):
                given = call.make()
                assert calls.bytes_of(call.run(given)) == result, name
                assert call.see(given) == after, name
                found["right"] += 1
    finally:
        for name, function in real.items():
            setattr(time, name, function)
    return [Row("clocks that jump, also backwards", f"{len(known)} public calls", found)]


def truncated_mapping(most: int) -> list[Row]:
    """A frame is read from a mapped file that another program cuts off, before the call and during it."""
    schema = fm.Schema([fm.Tensor("w", (2**18,))])
    data = fm.encode({"w": calls.np.zeros(2**18, "f4")}, schema, seed=1, noise=None)
    found: dict[str, Counter[str]] = {"before": Counter(), "during": Counter()}
    with tempfile.TemporaryDirectory(prefix="fedmrn-faults-") as home:
        path = Path(home, "a.fmrn")
        for when, length in itertools.product(found, spaced(len(data), most)):
            path.write_bytes(data)

            def work(when: str = when, length: int = length) -> str:
                if when == "before":
                    os.truncate(path, length)
                with path.open("rb") as file:
                    if not os.fstat(file.fileno()).st_size:
                        return "refused"  # an empty file cannot be mapped
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                        if when == "during":
                            os.truncate(path, length)
                        try:
                            fm.decode(mapped, schema, backend="numpy")
                        except fm.FrameError:
                            return "refused"
                return "accepted"

            found[when][outcome_of(work)] += 1
    assert set(found["before"]) == {"refused"}
    assert set(found["during"]) <= {"refused", "SIGBUS"}, found
    what = "decode of a mapped file"
    return [Row(f"the file is cut off {when} the call", what, counts) for when, counts in found.items()]


def unusable_cache(most: int) -> list[Row]:
    """Compiled code that is damaged, or a folder that cannot be written; in processes of their own."""
    import subprocess

    program = (
        "import sys, logging; logging.disable(); import fedmrn_codec as fm\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "print(fm.verify(data, backend='numba').seed, fm.decode(data, backend='numba')['w'].tobytes().hex())"
    )
    data = fm.encode(
        {"w": calls.np.linspace(-1, 1, 64, dtype="f4")},
        fm.Schema([fm.Tensor("w", (64,), masked=True)]),
        seed=1,
        noise=fm.Uniform(1.0),
        private_seed=2,
        embed_schema=True,
    )
    right = f"1 {fm.decode(data, backend='numpy')['w'].tobytes().hex()}\n"
    rows = {"damaged": Counter[str](), "unwritable": Counter[str]()}
    with tempfile.TemporaryDirectory(prefix="fedmrn-faults-") as home:
        path, cache = Path(home, "a.fmrn"), Path(home, "code")
        path.write_bytes(data)

        def run(folder: Path) -> str:
            environment = os.environ | {"NUMBA_CACHE_DIR": str(folder), "XDG_CACHE_HOME": "/proc/none"}
            command = [sys.executable, "-c", program, str(path)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            return "right" if done.stdout == right else done.stdout + done.stderr

        assert run(cache) == "right"
        files = sorted(file for file in cache.rglob("*") if file.suffix in (".nbc", ".nbi"))
        assert files
        chance = random.Random(3)
        for _ in range(most):
            file = chance.choice(files)
            changed = bytearray(file.read_bytes())
            changed[chance.randrange(len(changed))] ^= chance.randrange(1, 256)
            file.write_bytes(changed[: chance.choice([len(changed), len(changed) // 2])])
            rows["damaged"][run(cache)] += 1
        for folder in (Path("/proc/none"), path / "below a file"):
            rows["unwritable"][run(folder)] += 1
    assert {*rows["damaged"], *rows["unwritable"]} == {"right"}, rows
    return [
        Row("a damaged or truncated file in the cache", "decode, numba", rows["damaged"]),
        Row("a cache that cannot be written", "decode, numba", rows["unwritable"]),
    ]


MMAP_THRESHOLD = -3
"""The parameter of glibc's mallopt: the least size of memory that is asked of the system by itself."""
LEAST_BLOCK = 2**16
"""Bytes: arrays of this size and larger are asked of the system by themselves."""


def memory_of_arrays(most: int) -> list[Row]:
    """The address space ends a little above what is used: arrays cannot be allocated.

    What the process has freed, but not given back, is taken away first: an array would fit there without a
    new page, however low the limit.
    """
    import resource

    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    size = 2**20
    schema = fm.Schema([fm.Tensor("w", (size,), masked=True), fm.Tensor("b", (size,))])
    update = {"w": calls.np.full(size, 0.004, "f4"), "b": calls.np.linspace(-1, 1, size, dtype="f4")}
    settings = {"noise": fm.Uniform(0.01), "backend": "numpy"}
    frames = [fm.encode(update, schema, seed=s, private_seed=9, coding="rans12", **settings) for s in (1, 2)]
    known = fm.Aggregator(schema, **settings)
    known.add(frames[0], 1)
    before = calls.sums(known)
    known.add(frames[1], 2)
    after = calls.sums(known)

    def work(extra: int) -> str:
        libc.mallopt(MMAP_THRESHOLD, LEAST_BLOCK)
        total = fm.Aggregator(schema, **settings)
        total.add(frames[0], 1)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used, limit[1]))
        sizes = (2**22, 2**19, LEAST_BLOCK)
        freed = [block for size in sizes for block in iter(partial(libc.malloc, size), None)]
        resource.setrlimit(resource.RLIMIT_AS, (used + extra, limit[1]))
        try:
            total.add(frames[1], 2)
            total.mean()
        except MemoryError:
            pass
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)
            for block in freed:
                libc.free(block)
        seen = calls.sums(total)
        assert seen in (before, after, calls.REFUSED), "neither before nor after"
        if seen == before:
            total.add(frames[1], 2)
            assert calls.sums(total) == after
        return "refuses" if seen == calls.REFUSED else "before" if seen == before else "after"

    found = Counter(outcome_of(lambda step=step: work(step * 2**17)) for step in spaced(80, most))
    assert {"before", "after"} <= set(found) <= {"before", "after", "refuses"}, found
    return [Row("no memory for arrays", "Aggregator.add and mean of 2^20 elements", found)]


FAULTS: dict[str, tuple[Callable[[int], list[Row]], int, int]] = {
    "disk-full": (lambda most: of_writers("the disk is full at a byte", full_at_byte, most), 120, 4),
    "system": (lambda most: of_writers("a call of the system fails", failing_calls, most), 120, 4),
    "kill-byte": (lambda most: of_writers("killed at a byte that is written", killed_at_byte, most), 120, 4),
    "kill-line": (lambda most: of_writers("killed before a line", killed_at_line, most), 120, 5),
    "interrupt-file": (
        lambda most: of_writers("an interrupt before a line", interrupted_writer, most),
        120,
        5,
    ),
    "interrupt": (
        lambda most: of_calls("an interrupt before a line", stopped_by(KeyboardInterrupt), most),
        60,
        3,
    ),
    "memory-line": (lambda most: of_calls("no memory before a line", stopped_by(MemoryError), most), 60, 3),
    "memory-arrays": (memory_of_arrays, 40, 6),
    "mapping": (truncated_mapping, 100, 6),
    "threads": (in_threads, 20, 1),
    "fork": (after_fork, 20, 1),
    "clock": (jumping_clock, 10, 1),
    "cache": (unusable_cache, 12, 1),
}
"""Name -> the function, the most points of each call or file in full, and in the tests."""
