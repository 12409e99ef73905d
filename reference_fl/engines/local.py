"""The engine that runs the clients in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from ..data import Dataset
from ..record import LOCAL
from ..settings import Settings
from . import Assignment, Reply
from .clients import Clients


class Local:
    """The default engine."""

    name = LOCAL

    def __init__(self, settings: Settings, data: Dataset) -> None:
        self._clients = Clients(settings, data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def replies(self, broadcast: bytes, assignments: Sequence[Assignment]) -> Iterator[Reply]:
        """Yield the replies in the order of the assignments."""
        return (self._clients.answer(broadcast, assignment) for assignment in assignments)
