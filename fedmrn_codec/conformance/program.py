"""A program under test, which answers over the line protocol of spec/CONFORMANCE.md."""

from __future__ import annotations

import json
import os
import queue
import shlex
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from .request import HELLO, PROFILES, Request, Result, result_from_wire, to_wire
from .target import Broken, Refused, TimedOut, Unsupported

LONGEST = 2**28
"""The most bytes of an answer that are read; a longer line is malformed."""

STDERR = 2000
"""The number of bytes of standard error that are shown, from its end."""

HANGS = 3
"""The number of time-outs after which no more requests are sent."""


class _Process:
    """A running program, and the threads that write its input and read its output and errors."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.popen = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=os.name == "posix",  # so that its child processes can be ended with it
        )
        self.requests: queue.Queue[bytes | None] = queue.Queue()
        self.answers: queue.Queue[bytes] = queue.Queue(maxsize=16)
        self.errors = b""
        self.threads = [
            threading.Thread(target=work, daemon=True) for work in (self._feed, self._read, self._read_errors)
        ]
        for thread in self.threads:
            thread.start()

    def _feed(self) -> None:
        stdin = _pipe(self.popen.stdin)
        try:
            while (line := self.requests.get()) is not None:
                stdin.write(line)
                stdin.flush()
        except OSError:
            pass  # it has ended, or closed its input; reading its answer reports that
        finally:
            with suppress(OSError):
                stdin.close()

    def _read(self) -> None:
        stdout = _pipe(self.popen.stdout)
        while line := stdout.readline(LONGEST):
            self.answers.put(line)
        self.answers.put(b"")

    def _read_errors(self) -> None:
        stderr = _pipe(self.popen.stderr)
        while chunk := os.read(stderr.fileno(), 4096):
            self.errors = (self.errors + chunk)[-STDERR:]

    def end(self, timeout: float) -> int | None:
        """Close its input and wait until it ends; the exit code, or None if it had to be killed."""
        self.requests.put(None)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it and its child processes."""
        try:
            if os.name == "posix":
                os.killpg(self.popen.pid, signal.SIGKILL)
            else:
                self.popen.kill()
        except OSError:
            pass  # it has ended
        self.popen.wait()
        self.requests.put(None)
        while self.threads[1].is_alive():  # the reader may wait until the queue of answers has room
            try:
                self.answers.get_nowait()
            except queue.Empty:
                self.threads[1].join(0.01)
        self.threads[2].join(1)
        for pipe in (self.popen.stdout, self.popen.stderr):
            _pipe(pipe).close()

    def stderr(self) -> str:
        """The end of its standard error, as the end of a message."""
        self.threads[2].join(0.2)
        text = self.errors.decode("utf-8", "replace").strip()
        return f"; its standard error ends: {text}" if text else "; it wrote nothing to standard error"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


class CommandTarget:
    """A program under test.

    Parameters
    ----------
    command : str or sequence of str
        A string is split as a shell would split it; no shell runs it.
    timeout : float
        Seconds that an answer may take.

    Raises
    ------
    OSError
        The program cannot be started.
    Broken
        It does not answer `hello` as it must.
    """

    def __init__(self, command: str | Sequence[str], timeout: float = 30.0) -> None:
        self.arguments = shlex.split(command) if isinstance(command, str) else list(command)
        self.timeout, self.hangs, self.sent = timeout, 0, 0
        self.process: _Process | None = None
        try:
            hello = self.exchange(HELLO, {}).get("result")
            self.name, self.version, self.profiles = _introduction(hello)
        except BaseException:
            self.close()
            raise

    def ask(self, request: Request) -> Result:
        """Send a request to the program, and return its answer."""
        answer = self.exchange(request.op, to_wire(request))
        if "unsupported" in answer:
            raise Unsupported(f"the program answers `unsupported` to `{request.op}`")
        if "error" in answer:
            raise Refused(answer["error"])
        try:
            return result_from_wire(request, answer["result"])
        except ValueError as error:
            raise Broken(f"malformed answer: {error}") from None

    def exchange(self, op: str, members: dict[str, Any]) -> dict[str, Any]:
        """Send one request, and read its answer: an object with one of result, error and unsupported."""
        if self.hangs >= HANGS:
            raise Broken(f"request not sent: the program has timed out {HANGS} times")
        process = self.process = self.process or _Process(self.arguments)
        self.sent += 1
        process.requests.put(json.dumps({"id": self.sent, "op": op, **members}).encode() + b"\n")
        try:
            line = process.answers.get(timeout=self.timeout)
        except queue.Empty:
            self.hangs += 1
            said = process.stderr()
            self._restart()
            raise TimedOut(f"no answer within {self.timeout:g} seconds{said}") from None
        if not line:
            raise Broken(self._ended(process))
        try:
            return _checked(line, self.sent)
        except ValueError as error:
            said = process.stderr()
            self._restart()
            raise Broken(f"malformed answer: {error}{said}") from None

    def finish(self) -> None:
        """Close the program's input; the program must end with exit code 0."""
        process, self.process = self.process or _Process(self.arguments), None
        code = process.end(self.timeout)
        if code is None:
            raise TimedOut(f"still running {self.timeout:g} seconds after its input ended{process.stderr()}")
        if code:
            raise Broken(f"end of input: expected exit code 0, got: {_exit(code)}{process.stderr()}")

    def close(self) -> None:
        """Close the program's input, and kill it if it does not end in a second."""
        process, self.process = self.process, None
        if process is not None:
            process.end(1.0)

    def _restart(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()

    def _ended(self, process: _Process) -> str:
        try:
            how = _exit(process.popen.wait(1.0))
        except subprocess.TimeoutExpired:
            how = "it closed its output and kept running"
        said = process.stderr()
        self._restart()
        return f"no answer: {how}{said}"


def _exit(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def _checked(line: bytes, number: int) -> dict[str, Any]:
    shown = repr(line[:80])[1:] + ("..." if len(line) > 80 else "")
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"expected JSON, got {shown}") from None
    if not isinstance(answer, dict):
        raise ValueError(f"expected a JSON object, got {shown}")
    if answer.get("id") != number or isinstance(answer["id"], bool):
        raise ValueError(f"`id`: expected {number}, got {answer.get('id')!r}")
    outcome = {"result", "error", "unsupported"} & set(answer)
    if len(outcome) != 1:
        raise ValueError(f"expected exactly one of `result`, `error`, `unsupported`, got {shown}")
    if "error" in answer and not (isinstance(answer["error"], str) and answer["error"]):
        raise ValueError(f"`error`: expected a code, got {shown}")
    if "unsupported" in answer and answer["unsupported"] is not True:
        raise ValueError(f"`unsupported`: expected true, got {shown}")
    return answer


def _introduction(result: Any) -> tuple[str, str, tuple[str, ...]]:
    if not isinstance(result, dict):
        raise Broken("`hello`: expected a result that is an object, got none")
    name, version, profiles = (result.get(key) for key in ("name", "version", "profiles"))
    if not isinstance(name, str) or not isinstance(version, str) or not isinstance(profiles, list):
        raise Broken(f"`hello`: expected `name`, `version` and `profiles`, got {sorted(result)}")
    if unknown := [p for p in profiles if p not in PROFILES]:
        raise Broken(f"profiles of `hello`: expected some of {', '.join(PROFILES)}, got {unknown}")
    return name, version, tuple(p for p in PROFILES if p in profiles)
