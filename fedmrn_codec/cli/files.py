"""Reading and writing bytes: files, pipes, and files that are written completely or not at all.

Files are read, not mapped into memory: the system ends a process that reads a mapped file which another
program has truncated.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO, TextIO

from ..primitives.atomic import replacing
from .problems import FileProblem, UsageError

PIPE = "-"
"""The path that means stdin or stdout."""


def check_inputs(*paths: str | None) -> None:
    """Refuse to read stdin twice."""
    if [path for path in paths if path == PIPE][1:]:
        raise UsageError("'-': expected for one input, got several")


def check_output(path: str, *inputs: str | None) -> None:
    """Refuse to write binary data to a terminal, or in place of an input, before any work is done."""
    if path == PIPE and _stdout().isatty():
        raise UsageError("stdout: expected a pipe or -o FILE for binary data, got a terminal")
    check_distinct(path, *inputs)


def check_distinct(path: str, *inputs: str | None) -> None:
    """Refuse to write an output in place of an input."""
    for name in inputs:
        if name in (None, PIPE) or path == PIPE or not (os.path.isfile(path) and os.path.isfile(name)):
            continue
        if os.path.samefile(path, name):
            raise UsageError(f"{path}: expected an output other than the input {name}, which it replaces")


def read(path: str, size: int = -1) -> bytes:
    """Read stdin or a file, or at most its first `size` bytes."""
    if path == PIPE and sys.stdin is None:
        raise FileProblem(path, "stdin is closed")
    if path == PIPE and sys.stdin.isatty():
        raise UsageError("stdin: expected a pipe with binary data, got a terminal")
    with _problems(path):
        if path == PIPE:
            return sys.stdin.buffer.read(size)
        with open(path, "rb") as file:
            return file.read(size)


def is_stream(path: str) -> bool:
    """Whether a path can be read only once: stdin, or anything but a regular file."""
    return path == PIPE or not os.path.isfile(path)


def shown(path: str) -> str:
    """A path of an output, for messages."""
    return "stdout" if path == PIPE else path


@contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """Open a binary file to write; it appears at `path`, complete, when the block ends without an error.

    After an error, nothing is left behind, and a file that was there is unchanged. Stdout, devices and named
    pipes are written directly.
    """
    with _problems(path):
        if path == PIPE or _is_stdout(path):
            yield _stdout().buffer
            sys.stdout.flush()
        elif os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as special:
                yield special
        else:
            target = os.path.realpath(path)  # a link stays a link
            if os.path.exists(target) and not os.access(target, os.W_OK):
                raise FileProblem(path, "it is not writable")
            with replacing(target) as file:
                yield file


def write(path: str, parts: Sequence[bytes]) -> None:
    """Write these bytes, one part after the other."""
    with writing(path) as file:
        for part in parts:
            file.write(part)


def _is_stdout(path: str) -> bool:
    """Whether a path such as /dev/stdout is the file that stdout has been redirected to."""
    with suppress(OSError, ValueError, AttributeError):  # stdout may be closed, or no file
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    return False


def _stdout() -> TextIO:
    if sys.stdout is None:
        raise FileProblem(PIPE, "stdout is closed")
    return sys.stdout


@contextmanager
def _problems(path: str) -> Iterator[None]:
    """Turn every error of the system in this block, but a closed pipe, into a problem of `path`."""
    if "\0" in path:
        raise FileProblem(path, "a file name cannot hold a NUL")
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileProblem(path, error.strerror or str(error)) from error
