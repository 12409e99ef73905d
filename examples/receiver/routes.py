"""The HTTP interface of a shard."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from bounds import RETRY, EndUnread, Limits, Refused, Uploads, add_refusals, known_model, sender_of
from clients import Clients, shard_of
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from metrics import Measured, Metrics
from prometheus_client import CONTENT_TYPE_LATEST
from shard import Shard

Around = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Place:
    """Which shard this is, and where all of them are, as clients see them."""

    number: int = 0
    addresses: tuple[str, ...] = ("http://127.0.0.1:8000",)


@dataclass(frozen=True)
class Receiver:
    """What the routes of one process work with."""

    shard: Shard
    clients: Clients
    token: str
    """Of the merger."""

    most: int
    """The length of the longest frame."""

    limits: Limits = field(default_factory=Limits)
    place: Place = field(default_factory=Place)
    metrics: Metrics = field(default_factory=Metrics)

    def sender(self, request: Request) -> str:
        """The client that sent a request, as its token says, if it belongs to this shard."""
        name = sender_of(request, self.clients)
        number = shard_of(name, len(self.place.addresses))
        if number != self.place.number:
            path = request.url.path + f"?{request.url.query}".rstrip("?")
            raise Elsewhere(self.place.addresses[number] + path)
        return name

    def check_merger(self, request: Request) -> None:
        """Refuse requests that are not the merger's."""
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            raise Refused(
                401, "token", "Authorization: expected the token of the merger, got another or none"
            )


class Elsewhere(Exception):
    """The client belongs to another shard, which has this address."""


def make_app(receiver: Receiver, around: Around = nullcontext) -> FastAPI:
    """The application; the context of `around` is entered at its start and left at its end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with around():
                yield
        finally:
            await receiver.shard.close()

    app = FastAPI(title="receiver", openapi_url=None, lifespan=lifespan)
    app.add_middleware(EndUnread)
    app.add_middleware(Measured, metrics=receiver.metrics)
    _add_client_routes(app, receiver)
    _add_other_routes(app, receiver)

    add_refusals(app, lambda code: receiver.metrics.refused.labels(code).inc())

    @app.exception_handler(Elsewhere)
    async def elsewhere(_: Request, error: Elsewhere) -> Response:
        return RedirectResponse(str(error), 307)

    return app


def _add_client_routes(app: FastAPI, receiver: Receiver) -> None:
    shard, metrics, uploads = receiver.shard, receiver.metrics, Uploads(receiver.limits)
    metrics.uploads.set_function(lambda: uploads.number)

    @app.get("/round")
    async def get_round(request: Request) -> Response:
        """The request for this client as JSON, or 204 if it has nothing to do at present."""
        wanted = shard.request(receiver.sender(request))
        if wanted is None:
            return Response(status_code=204, headers=RETRY)
        return Response(wanted, media_type="application/json")

    @app.get("/model")
    async def get_model(request: Request) -> Response:
        """The frame from the model whose id is `have` to that of the round; without it, the whole model."""
        receiver.sender(request)
        return Response(await shard.model(known_model(request)), media_type="application/octet-stream")

    @app.post("/frames/{client}")
    async def post_frame(client: str, request: Request) -> Response:
        """A frame of a client: 202 when it is on the disk, also if it is the same one again."""
        if receiver.sender(request) != client:
            raise Refused(403, "client", "path: expected the client whose token was sent, got another")
        with uploads.one(client):
            data = await uploads.body(request, receiver.most)
            new = await shard.accept(client, receiver.clients.weight_of(client), data)
        (metrics.accepted if new else metrics.repeated).inc()
        return Response(status_code=202)


def _add_other_routes(app: FastAPI, receiver: Receiver) -> None:
    shard, metrics = receiver.shard, receiver.metrics

    @app.get("/health")
    async def get_health() -> Response:
        """200 when frames can be received, 503 before the first round is open."""
        present = shard.present
        about = {"round": present.round.number, "frames": len(present.accepted), "over": present.round.over}
        return JSONResponse(about)

    @app.get("/metrics")
    async def get_metrics() -> Response:
        """For Prometheus. Let only your own network ask for it, and for /health."""
        if shard.ready:
            metrics.round.set(shard.present.round.number)
            metrics.frames.set(len(shard.present.accepted))
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/shard/frames")
    async def get_frames(request: Request) -> Response:
        """For the merger: the number of frames stored in the present round, and whether that is sealed."""
        receiver.check_merger(request)
        return JSONResponse({"frames": len(shard.present.accepted), "sealed": shard.present.sealed})

    @app.post("/shard/seal/{number}")
    async def seal(number: int, request: Request) -> Response:
        """For the merger: end a round; the partial sum."""
        receiver.check_merger(request)
        return Response(await shard.seal(number) or b"", media_type="application/octet-stream")

    @app.put("/shard/round")
    async def put_round(request: Request) -> Response:
        """For the merger: begin a round."""
        receiver.check_merger(request)
        await shard.open(await request.body())
        return Response(status_code=204)
