"""A Ray cluster: connecting to one, and running calls on it. No other module of this package imports Ray."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import errors

LOCAL, PATIENCE = "local", 10.0  # seconds
RETRIES = 3
"""How often a call is repeated after its process or machine has died."""

AHEAD = 2
"""Calls for each processor that are submitted before their results are used."""

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
QUIET = {"RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
"""Skips every message of Ray about workers: it would print them on stdout, where our data goes."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes Ray listen on 127.0.0.1 only, on every system. Ray reads these variables when it is imported."""


class ClusterError(Exception):
    """Ray cannot be reached or started, or its workers keep dying."""


class Cluster:
    """A Ray cluster that this process is connected to.

    `ray` is the module, or an object with the same functions.
    """

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    @property
    def processors(self) -> int:
        """The number of processors, at least 1."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def map(self, call: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Call a function once for each tuple of arguments, on the cluster; yield the results in order.

        A call whose process or machine dies is repeated up to `RETRIES` times, so it must have no effects.

        Raises
        ------
        CodecError
            A call raised it.
        ClusterError
            A call raised something else, or its workers keep dying.
        """
        remote = self.ray.remote(max_retries=RETRIES)(call)
        most = AHEAD * self.processors
        pending: deque[Any] = deque()
        for each in arguments:
            pending.append(remote.remote(*each))
            if len(pending) > most:
                yield self._result(pending.popleft())
        while pending:
            yield self._result(pending.popleft())

    def _result(self, reference: Any) -> Any:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, errors.CodecError):
                raise error.cause from error
            reason = f"{type(error.cause).__name__}: {_first_line(error.cause) or 'no reason given'}"
            raise ClusterError(f"a worker failed: {reason}") from error
        except self.ray.exceptions.RayError as error:
            raise ClusterError(f"{type(error).__name__}, after up to {RETRIES} retries") from error


@contextmanager
def connected(address: str | None, purpose: str) -> Iterator[Cluster]:
    """Connect to a Ray cluster until the block ends.

    Parameters
    ----------
    address : str or None
        "HOST:PORT" of the cluster's head node. None starts Ray on this machine, on the loopback interface,
        and stops it when the block ends.
    purpose : str
        What needs Ray, for the error message if Ray is not installed.

    Raises
    ------
    BackendError
        Ray is not installed.
    ArgumentError
        The address is not of the form HOST:PORT.
    ClusterError
        The cluster cannot be reached, or Ray does not start.
    """
    place = None if address is None else _parsed(address)
    for name, value in (ENVIRONMENT | (LOOPBACK if address is None else {})).items():
        os.environ.setdefault(name, value)
    os.environ.update(QUIET)
    try:
        import ray
    except ModuleNotFoundError:
        raise errors.BackendError(
            purpose, "the package ray, as installed by fedmrn-codec[ray]", "no Ray"
        ) from None
    with _own_sigterm():
        try:
            if place is not None:  # Ray itself takes minutes to notice that nothing listens there
                socket.create_connection(place, timeout=PATIENCE).close()
            ray.init(
                address=address or LOCAL,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError) as error:
            reason = _first_line(error) or type(error).__name__
            raise ClusterError(f"no Ray cluster at {address or LOCAL}: {reason}") from error
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 2**16) or "/" in host:
        raise errors.ArgumentError("--ray-address", "HOST:PORT of the cluster's head", repr(address))
    return host.strip("[]"), int(port)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Restore this process's handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
