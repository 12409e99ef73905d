"""What a round of secure aggregation costs each of its roles, where one process plays all of them."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

STAGES = ("shares", "vectors", "end")
"""What a client may be too late for: its shares, its vector, and what the server asks for after it."""


class Ledger:
    """CPU seconds of the clients and of the server, and the bytes between them.

    Attributes
    ----------
    seconds, up, down : collections.Counter of int
        By client: CPU seconds of all threads, bytes sent, bytes received.
    server : float
        CPU seconds.
    """

    def __init__(self, clients: Iterable[int]) -> None:
        self.clients = tuple(clients)
        self.seconds: Counter[int] = Counter()
        self.up: Counter[int] = Counter()
        self.down: Counter[int] = Counter()
        self.server = 0.0

    @contextmanager
    def of_client(self, id: int) -> Iterator[None]:
        """Count the time of the block for a client."""
        begin = time.process_time()
        try:
            yield
        finally:
            self.seconds[id] += time.process_time() - begin

    @contextmanager
    def of_server(self) -> Iterator[None]:
        """Count the time of the block for the server, but for what its clients do within."""
        begin = time.process_time() - self._of_clients()
        try:
            yield
        finally:
            self.server += time.process_time() - self._of_clients() - begin

    def _of_clients(self) -> float:
        return sum(self.seconds.values())

    def median(self, counts: Counter[int]) -> float:
        """The median over the clients."""
        return statistics.median(counts[id] for id in self.clients)
