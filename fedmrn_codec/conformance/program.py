"""A program under test, which answers over the line protocol of spec/CONFORMANCE.md."""

from __future__ import annotations

import json
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from .request import HELLO, PROFILES, Request, Result, result_from_wire, to_wire
from .target import Broken, Refused, TimedOut, Unsupported

LONGEST = 2**24
"""The most bytes of an answer; the program is ended if it writes a longer line."""

SHORT = 100
"""The most characters of a code, and of a program's name and version."""

STDERR = 2000
"""The number of bytes of standard error that are shown, from its end."""

HANGS = 3
"""The number of time-outs after which no more requests are sent."""

RESTARTS_IN_A_ROW, RESTARTS = 10, 200
"""The numbers of restarts, with no good answer between them and in all, after which nothing more is sent."""

LAST_BYTES = 2.0
"""Seconds in which a killed program's output must end; a process that has left its group may hold it."""


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
        self.killed = False
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
        with _pipe(self.popen.stdout) as stdout:
            while line := stdout.readline(LONGEST + 1):
                self.answers.put(line)
                if len(line) > LONGEST or self.killed:
                    return  # a line that is too long is malformed, and the program will be killed
        self.answers.put(b"")

    def _read_errors(self) -> None:
        with _pipe(self.popen.stderr) as stderr:
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
        self.killed = True
        try:
            if os.name == "posix":
                os.killpg(self.popen.pid, signal.SIGKILL)
            else:
                self.popen.kill()
        except OSError:
            pass  # it has ended
        self.popen.wait()
        self.requests.put(None)
        until = time.monotonic() + LAST_BYTES
        while self.threads[1].is_alive() and time.monotonic() < until:
            try:
                self.answers.get_nowait()  # the reader may wait until the queue of answers has room
            except queue.Empty:
                self.threads[1].join(0.01)
        self.threads[2].join(max(until - time.monotonic(), 0.01))

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
        self.timeout, self.sent = timeout, 0
        self.hangs = self.restarts = self.restarts_in_a_row = 0
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
        number = self.sent + 1
        return self.exchange_line(json.dumps({"id": number, "op": op, **members}).encode(), number)

    def exchange_line(self, text: bytes, number: int | None) -> dict[str, Any]:
        """Send one line, or several of which one is a request, and read the answer with this id."""
        process = self._running()
        self.sent += 1
        process.requests.put(text + b"\n")
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
            answer = _checked(line, number)
        except ValueError as error:
            said = process.stderr()
            self._restart()
            raise Broken(f"malformed answer: {error}{said}") from None
        self.restarts_in_a_row = 0
        return answer

    def finish(self) -> None:
        """Close the program's input; the program must end with exit code 0."""
        process, self.process = self._started(), None
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

    def _running(self) -> _Process:
        """The program, unless it has failed too often."""
        if self.hangs >= HANGS:
            raise Broken(f"request not sent: the program has timed out {HANGS} times")
        if self.restarts_in_a_row >= RESTARTS_IN_A_ROW or self.restarts >= RESTARTS:
            how = "in a row" if self.restarts_in_a_row >= RESTARTS_IN_A_ROW else "in all"
            count = RESTARTS_IN_A_ROW if how == "in a row" else RESTARTS
            raise Broken(f"request not sent: the program had to be restarted {count} times {how}")
        return self._started()

    def _started(self) -> _Process:
        """The program, started if it is not running."""
        try:
            self.process = self.process or _Process(self.arguments)
        except OSError as error:
            if not self.sent:
                raise
            raise Broken(f"the program cannot be started again: {error}") from None
        return self.process

    def _restart(self) -> None:
        self.restarts, self.restarts_in_a_row = self.restarts + 1, self.restarts_in_a_row + 1
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


def _checked(line: bytes, number: int | None) -> dict[str, Any]:
    shown = repr(line[:80])[1:] + ("..." if len(line) > 80 else "")
    if len(line) > LONGEST:
        raise ValueError(f"expected a line of at most {LONGEST} bytes, got {shown}")
    try:
        answer = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise ValueError(f"expected JSON, got {shown}") from None
    if not isinstance(answer, dict):
        raise ValueError(f"expected a JSON object, got {shown}")
    if "id" not in answer or type(answer["id"]) is not type(number) or answer["id"] != number:
        expected, got = json.dumps(number), repr(answer.get("id")) if "id" in answer else "none"
        raise ValueError(f"`id`: expected {expected}, got {got:.80}")
    outcome = {"result", "error", "unsupported"} & set(answer)
    if len(outcome) != 1:
        raise ValueError(f"expected exactly one of `result`, `error`, `unsupported`, got {shown}")
    if "error" in answer and not (_is_short(answer["error"]) and answer["error"]):
        raise ValueError(f"`error`: expected a code, got {shown}")
    if "unsupported" in answer and answer["unsupported"] is not True:
        raise ValueError(f"`unsupported`: expected true, got {shown}")
    return answer


def _introduction(result: Any) -> tuple[str, str, tuple[str, ...]]:
    if not isinstance(result, dict):
        raise Broken("`hello`: expected a result that is an object, got none")
    name, version, profiles = (result.get(key) for key in ("name", "version", "profiles"))
    if not isinstance(name, str) or not isinstance(version, str) or not isinstance(profiles, list):
        raise Broken(f"`hello`: expected `name`, `version` and `profiles`, got {sorted(result)!s:.80}")
    if not _is_short(name) or not _is_short(version):
        raise Broken(f"`hello`: expected a name and a version of at most {SHORT} characters each")
    if unknown := [p for p in profiles if not isinstance(p, str) or p not in PROFILES]:
        raise Broken(f"profiles of `hello`: expected some of {', '.join(PROFILES)}, got {unknown!s:.80}")
    return name, version, tuple(p for p in PROFILES if p in profiles)


def _is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= SHORT
