"""Errors of the shell: their exit codes, and one form for their messages."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from .. import errors
from ..cluster.ray import ClusterError
from .output import document, printable, say

OK, REFUSED, USAGE, FILES, INTERNAL, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 3, 70, 130, 141

CLASSES = (
    (errors.MalformedError, "malformed"),
    (errors.UnsupportedError, "unsupported"),
    (errors.RefusedError, "refused"),
    (errors.AggregateError, "refused"),
    (errors.CodecError, "argument"),
)


SHOWN: Any = typer.BadParameter.__mro__[2]
"""The class of the errors that Typer prints: ClickException of the package Click or of Typer's own copy."""

EXTRAS = {
    "hypothesis": "conformance",
    "jinja2": "reference",
    "matplotlib": "reference",
    "onnx": "onnx",
    "rich": "cli",
    "safetensors": "cli",
    "sklearn": "reference",
    "torch": "reference",
}
"""Packages that verbs import, and the extra of fedmrn-codec that brings each."""


class UsageError(typer.BadParameter):
    """A wrong command line; the message stands alone, after the usage."""

    def format_message(self) -> str:
        """The message, without the words that Typer puts before that of a wrong value."""
        return self.message


class FileProblem(Exception):
    """A file that cannot be read, written or understood."""

    def __init__(self, file: str, message: str) -> None:
        super().__init__(message)
        self.file = file


class InFile(Exception):
    """An error of the codec, and the file that it is about."""

    def __init__(self, file: str, error: errors.CodecError) -> None:
        super().__init__(str(error))
        self.file, self.error = file, error


class Interrupted(Exception):
    """The user pressed Ctrl-C."""


class ClosedPipe(Exception):
    """The reader of the output has closed the pipe."""


@contextmanager
def about(file: str) -> Iterator[None]:
    """Attach the file's name to every codec error in this block."""
    try:
        yield
    except errors.CodecError as error:
        raise InFile(file, error) from error


def describe(error: BaseException) -> tuple[int, dict[str, Any]]:
    """The exit code of an error, and its JSON, which always has the same keys.

    Returns
    -------
    (int, dict)
        Keys: code, class, file, field, offset, expected, got, message; null where one does not apply.
    """
    file = error.file if isinstance(error, (InFile, FileProblem)) else None
    cause = error.error if isinstance(error, InFile) else error
    if isinstance(cause, errors.CodecError):
        refused = isinstance(cause, errors.FrameError | errors.AggregateError)
        return REFUSED if refused else USAGE, _of_codec(cause, file)
    if isinstance(cause, SHOWN):
        problem = plain("usage", "usage", cause.format_message())
        param = getattr(cause, "param", None)
        return USAGE, problem | {"field": param.opts[-1] if param else None}
    if isinstance(cause, FileProblem | OSError):
        name = cause.filename if isinstance(cause, OSError) else file
        text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        return FILES, plain("file", "file", text, None if name is None else str(name))
    if isinstance(cause, ClusterError):
        return FILES, plain("cluster", "cluster", str(cause))
    if isinstance(cause, MemoryError):
        return FILES, plain("memory", "file", "not enough memory", file)
    if isinstance(cause, Interrupted):
        return INTERRUPTED, plain("interrupted", "interrupted", "interrupted")
    if isinstance(cause, ModuleNotFoundError):
        return USAGE, plain("missing_package", "argument", missing(cause))
    text = f"internal error, please report it: {type(cause).__name__}: {cause}"
    return INTERNAL, plain("internal", "internal", text, file)


def missing(error: ModuleNotFoundError) -> str:
    """What is missing, and how it is installed if an extra brings it."""
    package = (error.name or "").partition(".")[0]
    install = f": pip install 'fedmrn-codec[{EXTRAS[package]}]'" if package in EXTRAS else ""
    return f"the package {package} is not installed{install}"


def plain(code: str, group: str, message: str, file: str | None = None) -> dict[str, Any]:
    """The JSON of an error that consists of a message only."""
    return {
        "code": code,
        "class": group,
        "file": file,
        "field": None,
        "offset": None,
        "expected": None,
        "got": None,
        "message": message,
    }


def human(problem: dict[str, Any]) -> str:
    """An error as one line for people."""
    where = "" if problem["file"] is None else f"{problem['file']}: "
    code = f" [{problem['code']}]" if problem["field"] is not None else ""
    return printable(f"{where}{problem['message']}{code}")


def guard(call: Callable[[], object], *, json: bool, tracebacks: bool) -> int:
    """Make a call that returns an exit code; an exception becomes a message and an exit code."""
    try:
        code = call()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except (ClosedPipe, BrokenPipeError):
        _silence_stdout()
        return CLOSED_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt | typer.Abort):
            error = Interrupted()
        if tracebacks and not isinstance(error, Interrupted):
            traceback.print_exc()
        return _report(error, json)


def _report(error: BaseException, json: bool) -> int:
    code, problem = describe(error)
    if json:
        document({"error": problem}, sys.stderr)
    elif isinstance(error, SHOWN):
        error.show()
    else:
        say(f"error: {human(problem)}")
    if isinstance(error, OSError):
        _silence_stdout()
    return code


def _of_codec(error: errors.CodecError, file: str | None) -> dict[str, Any]:
    group = next(name for kind, name in CLASSES if isinstance(error, kind))
    problem = plain(error.code, group, str(error), file)
    return problem | {
        "field": error.field,
        "offset": error.offset,
        "expected": error.expected,
        "got": error.got,
    }


def _silence_stdout() -> None:
    """Let the interpreter's last flush succeed although stdout has no reader, or the disk is full."""
    if sys.stdout is None:
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, io.UnsupportedOperation):
        pass
