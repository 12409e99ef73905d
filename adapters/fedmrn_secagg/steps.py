"""A step of the server when some messages are bad (spec/SECAGG.md 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import SecAggError
from .server import Server


def advance(
    server: Server, step: str, messages: dict[int, bytes], refuse: Callable[[int, SecAggError], None]
) -> Any:
    """Call a verb of a server, again without each message that it refuses.

    Parameters
    ----------
    server : Server
    step : {"keys", "shares", "masked", "reveal"}
        The verb.
    messages : dict of int to bytes
        By client; refused ones are removed.
    refuse : callable
        Is called with each client whose message is refused, and the error.

    Returns
    -------
    bytes, dict of int to bytes, or fedmrn_codec.Aggregator
        What the verb returns.

    Raises
    ------
    SecAggError
        The round cannot go on, for instance as TooFewError.
    """
    while True:
        try:
            return getattr(server, step)(messages)
        except SecAggError as error:
            if error.client is None:
                raise
            del messages[error.client]
            refuse(error.client, error)
