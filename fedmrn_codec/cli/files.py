"""Reading and writing bytes: mapped files, pipes, and files that are written completely or not at all."""

from __future__ import annotations

import mmap
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

import click

from ..primitives.atomic import replacing
from .problems import FileProblem

Bytes = bytes | mmap.mmap

PIPE = "-"
"""The path that means stdin or stdout."""


def check_inputs(*paths: str | None) -> None:
    """Refuse to read stdin twice."""
    if [path for path in paths if path == PIPE][1:]:
        raise click.UsageError("'-': expected for one input, got several")


def check_output(path: str) -> None:
    """Refuse to write binary data to a terminal, before any work is done."""
    if path != PIPE:
        return
    if sys.stdout is None:
        raise FileProblem(path, "stdout is closed")
    if sys.stdout.isatty():
        raise click.UsageError("stdout: expected a pipe or -o FILE for binary data, got a terminal")


def read(path: str) -> Bytes:
    """Read stdin or a file; a regular file is mapped into memory instead."""
    if path == PIPE and sys.stdin is None:
        raise FileProblem(path, "stdin is closed")
    if path == PIPE and sys.stdin.isatty():
        raise click.UsageError("stdin: expected a pipe with binary data, got a terminal")
    with _problems(path):
        if path == PIPE:
            return sys.stdin.buffer.read()
        with open(path, "rb") as file:
            return _map(file) or file.read()


def is_stream(path: str) -> bool:
    """Whether a path can be read only once: stdin, or anything but a regular file."""
    return path == PIPE or not os.path.isfile(path)


def shown(path: str) -> str:
    """A path of an output, for messages."""
    return "stdout" if path == PIPE else path


def _map(file: BinaryIO) -> mmap.mmap | None:
    """The file, mapped; None if it cannot be: an empty file, a pipe, some file systems."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return None
    with suppress(OSError):
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return None


@contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """Open a binary file to write; it appears at `path`, complete, when the block ends without an error.

    After an error, nothing is left behind, and a file that was there is unchanged. Stdout, devices and named
    pipes are written directly.
    """
    with _problems(path):
        if path == PIPE:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
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
