"""What Prometheus collects; its labels have few values, whatever strangers send."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from bounds import Message
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

METHODS = ("GET", "POST", "PUT")
"""Of the routes; a stranger may send any word."""

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"namespace": "receiver", "registry": self.registry}
        self.accepted = Counter("frames_accepted", "Frames that were stored.", **made)
        self.repeated = Counter("frames_repeated", "Frames that had been stored before.", **made)
        self.refused = Counter("requests_refused", "Requests refused, by reason.", ["reason"], **made)
        self.bytes_in = Counter("bytes_in", "Bytes of the bodies of requests.", **made)
        self.bytes_out = Counter("bytes_out", "Bytes of the bodies of answers.", **made)
        self.round = Gauge("round", "Number of the present round.", **made)
        self.frames = Gauge("round_frames", "Frames stored in the present round.", **made)
        self.uploads = Gauge("uploads", "Frames that are being received, checked or stored.", **made)
        names = ["method", "path"]
        self.seconds = Histogram("seconds", "Seconds to answer.", names, buckets=SECONDS, **made)

    def text(self) -> bytes:
        """All values in Prometheus' format."""
        return generate_latest(self.registry)


class Measured:
    """A layer around the application that measures each request; it holds no body in memory."""

    def __init__(self, app: Callable[..., Awaitable[None]], metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Handle one request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()

        async def received() -> Message:
            message: Message = await receive()
            self._metrics.bytes_in.inc(len(message.get("body", b"")))
            return message

        async def sent(message: Message) -> None:
            self._metrics.bytes_out.inc(len(message.get("body", b"")))
            await send(message)

        try:
            await self._app(scope, received, sent)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # a template, not what was asked for
            known = route != "other" and scope["method"] in METHODS  # a wrong method has a route, too
            method = scope["method"] if known else "any"
            self._metrics.seconds.labels(method, route).observe(time.perf_counter() - begin)
