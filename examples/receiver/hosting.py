"""How a server runs: with a log that strangers cannot fill, and with bounded headers and connections."""

from __future__ import annotations

import logging
import signal
from collections import Counter

import uvicorn
from fastapi import FastAPI

LINES, MINUTE, GRACE = 100, 60.0, 10
"""Lines of the log in a minute; its seconds; seconds to finish what is running at the end."""


class Bounded(logging.Filter):
    """Passes a bounded number of lines a minute of each logger, whatever strangers send."""

    def __init__(self) -> None:
        super().__init__()
        self._minute, self._passed = 0, Counter[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is written."""
        if (minute := int(record.created // MINUTE)) != self._minute:
            self._minute, self._passed = minute, Counter()
        self._passed[record.name] += 1
        if self._passed[record.name] == LINES:
            record.msg, record.args = "further lines of this minute are left out", ()
        return self._passed[record.name] <= LINES


def begin_log() -> None:
    """Write the log to the standard error stream, with a bounded number of lines."""
    handler = logging.StreamHandler()
    handler.addFilter(Bounded())
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=[handler])


def host(app: FastAPI, address: str, port: int, connections: int) -> None:
    """Run an application until SIGTERM or SIGINT.

    Parameters
    ----------
    app : FastAPI
    address : str
    port : int
    connections : int
        Of clients, at the same time.
    """
    for name in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again at its end: then all is done
        signal.signal(name, lambda *_: None)
    uvicorn.run(
        app,
        host=address,
        port=port,
        http="h11",  # it bounds the length of headers, which httptools does not
        ws="none",
        loop="asyncio",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=GRACE,
    )
