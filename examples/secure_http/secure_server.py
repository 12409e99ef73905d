"""The server: `python secure_server.py FOLDER`. It learns the sum of the updates of a round alone."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import shared  # noqa: F401 - for the next imports
from agreed import Agreed
from bounds import RETRY, EndUnread, Limits, Refused, Uploads, add_refusals, known_model, sender_of
from clients import Clients
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from federation import Federation, Plan
from hosting import begin_log, host

log = logging.getLogger("secure_http")

HOLD = 5.0
"""Seconds after which a client that waits for the end of a step is told to ask again."""

Step = Literal["keys", "shares", "masked", "reveal"]
BYTES = "application/octet-stream"


def make_app(federation: Federation, clients: Clients, limits: Limits) -> FastAPI:
    """The application; its rounds begin when it starts."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        rounds = asyncio.create_task(_played(federation))
        yield
        rounds.cancel()

    app, uploads = FastAPI(title="secure_http", openapi_url=None, lifespan=lifespan), Uploads(limits)
    add_refusals(app)
    app.add_middleware(EndUnread)

    @app.get("/round")
    async def get_round(request: Request) -> Response:
        """The request of the present round as JSON, if the client can join it; 204: not yet; 410: over."""
        name = sender_of(request, clients)
        if federation.over:
            last = federation.number - 1
            raise Refused(410, "over", f"round: expected none after {last}, the last one")
        if not federation.exchange.is_open_to(name):
            return Response(status_code=204, headers=RETRY)
        return JSONResponse(federation.exchange.request.to_json())

    @app.get("/model")
    async def get_model(request: Request) -> Response:
        """The frame from the model whose id is `have` to that of the round; without it, the whole model."""
        sender_of(request, clients)
        return Response(await federation.frame(known_model(request)), media_type=BYTES)

    @app.post("/rounds/{number}/{step}")
    async def post_message(number: int, step: Step, request: Request) -> Response:
        """The message of a client in a step: 202 when it is accepted, also if it is the same one again."""
        name, exchange = sender_of(request, clients), federation.exchange_of(number)
        with uploads.one(name):
            message = await uploads.body(request, exchange.longest(name, step))
            exchange.give(name, step, message)
        return Response(status_code=202)

    @app.get("/rounds/{number}/{step}")
    async def get_answer(number: int, step: Step, request: Request) -> Response:
        """What the server answers to a step, after its end; 204: not yet, ask again."""
        name, exchange = sender_of(request, clients), federation.exchange_of(number)
        answer = await exchange.answer(name, step, HOLD)
        return Response(status_code=204) if answer is None else Response(answer, media_type=BYTES)

    @app.get("/health")
    async def get_health() -> Response:
        """Where the federation is. Let only your own network ask for it."""
        about = {"round": federation.number, "step": federation.exchange.step, "over": federation.over}
        return JSONResponse(about)

    return app


async def _played(federation: Federation) -> None:
    """All rounds; a fault ends the process, which can be started again."""
    try:
        await federation.run()
    except Exception:
        log.critical("round %d failed", federation.number, exc_info=True)
        os._exit(1)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="with start.npz, agreed.json and clients.json")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000, help="default 8000")
    add("--rounds", type=int, default=20, help="after which the federation ends, lost ones too (default 20)")
    add("--wanted", type=int, help="clients with keys that are enough to go on (default: all)")
    add("--seconds", type=float, default=30.0, help="for each step without training (default 30)")
    add("--training", type=float, default=120.0, help="seconds for the step with training (default 120)")
    add("--uploads", type=int, default=64, help="messages in memory that are being received (default 64)")
    add("--upload-seconds", type=float, default=30.0, help="for the body of a message (default 30)")
    add("--connections", type=int, default=1000, help="of clients at once (default 1000)")
    return parser.parse_args()


def main() -> None:
    """Serve the federation of a folder until SIGTERM or SIGINT."""
    os.umask(0o077)  # the database has models
    given = options()
    begin_log()
    agreed = Agreed.read(given.folder / "agreed.json")
    plan = Plan(given.rounds, given.wanted, given.seconds, given.training)
    federation = Federation(given.folder, agreed, plan)
    clients = Clients(given.folder / "clients.json")
    app = make_app(federation, clients, Limits(given.uploads, given.upload_seconds))
    host(app, given.host, given.port, given.connections)


if __name__ == "__main__":
    main()
