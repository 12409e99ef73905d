"""What a server lets strangers use: bodies of bounded length, in bounded time, not too many at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from clients import Clients
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

Message = MutableMapping[str, Any]

U64_DIGITS = 20
DISCARDED, PATIENCE = 2**20, 1.0
"""Bytes and seconds of a body that is read after its request is refused, before the connection is closed."""

RETRY = {"Retry-After": "1"}


class Refused(Exception):
    """A request is refused, with this HTTP status, and a code for programs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Limits:
    """What one process lets clients use; how long a body may be is said for each one.

    Parameters
    ----------
    uploads : int
        Bodies in memory at the same time: being received, checked or stored.
    seconds : float
        For one body.
    """

    uploads: int = 64
    seconds: float = 30.0


PER_CLIENT = 2
"""Bodies of one client at the same time: one, and another after a connection that has broken."""


class Uploads:
    """The bodies that are in memory at present.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._of = limits, Counter[str]()

    @property
    def number(self) -> int:
        """Of all clients together."""
        return self._of.total()

    @contextmanager
    def one(self, client: str) -> Iterator[None]:
        """Make room for one more body of a client until the end of the block; Refused if there is none."""
        if self.number >= self._limits.uploads:
            expected = f"uploads: expected at most {self._limits.uploads} at the same time"
            raise Refused(503, "busy", expected)
        if self._of[client] >= PER_CLIENT:  # else one client could keep all others out
            expected = f"uploads: expected at most {PER_CLIENT} of one client at the same time"
            raise Refused(503, "busy", expected)
        self._of[client] += 1
        try:
            yield
        finally:
            self._of[client] -= 1

    async def body(self, request: Request, most: int) -> bytes:
        """The body of a request, if it is short enough and comes in time; no more than that is held.

        Parameters
        ----------
        request : Request
        most : int
            Bytes.

        Raises
        ------
        Refused
        """
        expected = f"body: expected at most {most} bytes"
        length = request.headers.get("content-length", "0")
        if not (length.isdecimal() and len(length) <= U64_DIGITS and int(length) <= most):
            raise Refused(413, "frame_length", f"{expected}, got {length[:U64_DIGITS]}")
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise Refused(413, "frame_length", f"{expected}, got {len(body)} or more")
        except TimeoutError:
            raise Refused(408, "slow", f"body: expected within {self._limits.seconds} s") from None
        except ClientDisconnect:
            raise Refused(400, "disconnected", "body: expected to its end, got a closed connection") from None
        return bytes(body)


def add_refusals(app: FastAPI, count: Callable[[str], object] = str) -> None:
    """Answer refused requests with status, code and message; `count` is called with the code of each."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        count(error.code)
        headers = RETRY if error.status == 503 else {}
        return JSONResponse({"code": error.code, "message": str(error)}, error.status, headers)


class EndUnread:
    """A layer around an application that ends the connection after an answer to a body that does not end.

    An application answers many requests without reading their bodies, which the server would then read and
    discard, however long they are. This layer discards a little, so that a client which sends no more than
    that gets the answer, and has the server close the connection of others.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Handle one request, as ASGI defines it."""
        headers = dict(scope.get("headers", ()))
        length = headers.get(b"content-length", b"0")
        unread = b"transfer-encoding" in headers or length != b"0"
        # Not read are bodies that are known to be too long, and those for which reading asks the client.
        is_discarded = len(length) <= len(str(DISCARDED)) and b"expect" not in headers

        async def received() -> Message:
            nonlocal unread
            message: Message = await receive()
            unread = unread and (message["type"] != "http.request" or message.get("more_body", False))
            return message

        async def discard() -> None:
            left = DISCARDED
            while unread and left > 0:
                message = await received()
                if message["type"] != "http.request":  # the client has gone
                    return
                left -= len(message.get("body", b""))

        async def sent(message: Message) -> None:
            if unread and message["type"] == "http.response.start":
                if is_discarded:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(discard(), PATIENCE)
                if unread:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, received, sent)


def sender_of(request: Request, clients: Clients) -> str:
    """The client that sent a request, as its token says; Refused if it has none."""
    name = clients.name_of(request.headers.get("authorization"))
    if name is None:
        raise Refused(401, "token", "Authorization: expected the token of a client, got another or none")
    return name


def known_model(request: Request) -> int:
    """The id of the model that a client has, as `?have=ID` says; 0 if it has none."""
    have = request.query_params.get("have", "0")
    return int(have) if have.isascii() and have.isdecimal() and len(have) <= U64_DIGITS else 0
