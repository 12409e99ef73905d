"""The connection to a Ray cluster: the only module of this package that imports Ray, once it is asked to."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import errors

LOCAL, PATIENCE = "local", 10.0  # seconds
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Has Ray listen on 127.0.0.1 alone, on any system; read when Ray is imported."""


class ClusterError(Exception):
    """Ray cannot be reached or started, or its workers keep dying."""


@contextmanager
def connected(address: str | None, purpose: str) -> Iterator[Any]:
    """Ray, connected for the length of the block.

    Parameters
    ----------
    address : str or None
        "HOST:PORT" of the cluster's head. None starts Ray here, on the loopback interface, and stops it at
        the end.
    purpose : str
        What needs Ray, for the message if it is not there.

    Yields
    ------
    module
        `ray`.

    Raises
    ------
    BackendError
        Ray is not installed.
    ArgumentError
        The address has another form.
    ClusterError
        The cluster cannot be reached, or Ray does not start.
    """
    place = None if address is None else _parsed(address)
    for name, value in (ENVIRONMENT | (LOOPBACK if address is None else {})).items():
        os.environ.setdefault(name, value)
    try:
        import ray
        from ray._private import worker as internals
    except ModuleNotFoundError:
        raise errors.BackendError(
            purpose, "the package ray, as installed by fedmrn-codec[simulation]", "no Ray"
        ) from None
    internals._worker_logs_enabled = False  # Ray tells of dead workers on stdout, where our data goes
    with _own_sigterm():
        try:
            if place is not None:  # Ray itself takes minutes to see that nobody is there
                socket.create_connection(place, timeout=PATIENCE).close()
            ray.init(
                address=address or LOCAL,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ClusterError(f"no Ray cluster at {address or LOCAL}: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 2**16) or "/" in host:
        raise errors.ArgumentError("--ray-address", "HOST:PORT of the cluster's head", repr(address))
    return host.strip("[]"), int(port)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    answer = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, answer)
