"""Faults at chosen points of a call: it is stopped, the disk is full, a system call or a line fails."""

from __future__ import annotations

import errno
import itertools
import linecache
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import fedmrn_codec
import reference_fl

CODE = tuple(str(Path(module.__file__).parent) + os.sep for module in (fedmrn_codec, reference_fl))
"""The folders of the code whose lines are counted."""

WRITING = (
    CODE[1] + "record.py",
    *(
        os.path.join(CODE[0], *name.split("/"))
        for name in ("primitives/atomic.py", "face/journal_files.py", "face/journal.py", "cli/files.py")
    ),
)
"""The files in which everything that is written is opened, written and renamed."""

SYSTEM_CALLS = ("open", "fsync", "replace", "unlink")
SECONDS = 60
"""After which a process that is stuck is stopped, so that its point fails."""


def spaced(total: int, most: int) -> list[int]:
    """At most so many of the numbers 0 to `total` - 1, evenly spaced, the last one included."""
    if total <= most:
        return list(range(total))
    return sorted({round(i * (total - 1) / (most - 1)) for i in range(most)})


def outcome_of(work: Callable[[], str]) -> str:
    """What a forked process returns, or the name of the signal that has ended it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = "nothing"
        try:
            os.close(reader)
            signal.alarm(SECONDS)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            text = work()
        except BaseException:
            text = traceback.format_exc()
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said


@contextmanager
def disk_of(size: int, *, deadly: bool = False) -> Iterator[None]:
    """No file can grow beyond `size` bytes: the system writes less than it was given, and then fails.

    If `deadly`, the system stops the process in place of the failure, with what was written up to there.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def system_call(number: int, code: int = errno.ENOSPC) -> Iterator[Iterator[int]]:
    """The call of this number that opens, syncs, renames or removes a file fails; yields the counter."""
    real = {name: getattr(os, name) for name in SYSTEM_CALLS}
    count = itertools.count()

    def failing(name: str) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(count) == number:
                raise OSError(code, os.strerror(code))
            return real[name](*arguments, **options)

        return call

    for name in real:
        setattr(os, name, failing(name))
    try:
        yield count
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def at_line(
    call: Callable[[], object], number: int, act: Callable[[], object], where: tuple[str, ...] = CODE
) -> int:
    """Call, and `act` before line `number` of the files whose paths begin with `where`; the lines so far.

    Python runs no handler of a signal between the body of a `with` statement and its end, for which it comes
    back to the statement's line: that is no point, or a lock would stay locked.
    """
    done, entered = 0, set[tuple[object, int]]()

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal done
        if not frame.f_code.co_filename.startswith(where):
            return None
        if event == "line":
            place = frame, frame.f_lineno
            if linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
                if place in entered:
                    return trace
                entered.add(place)
            if done == number:
                sys.settrace(None)
                act()
            done += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return done


def lines_of(call: Callable[[], object], where: tuple[str, ...] = CODE) -> int:
    """The number of lines that a call runs."""
    return at_line(call, -1, lambda: None, where)


def raising(error: BaseException) -> Callable[[], object]:
    """A function that raises an error."""

    def act() -> object:
        raise error

    return act


def killed() -> None:
    """Stop this process at once, as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
