"""Objects whose sums several threads may change: they take turns, and nothing half-changed is ever read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from .. import errors


class Changing:
    """A base class: a lock, and changes after which the object is sound only if they came to their end.

    A subclass checks everything and allocates what it can before `_changing`, so that a refusal or a lack of
    memory there changes nothing.
    """

    _name = "aggregator"
    """The field of the error."""

    def __init__(self) -> None:
        self._lock, self._sound = RLock(), True

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A change of the sums; if it does not come to its end, the object is of no more use."""
        self._check_sound()
        self._sound = False
        yield
        self._sound = True

    def _check_sound(self) -> None:
        if not self._sound:
            raise errors.AggregateError(self._name, "whole sums", "a change that was stopped half-way")

    @contextmanager
    def _locked_with(self, other: Changing) -> Iterator[None]:
        """Hold both locks, which every thread takes in the same order."""
        first, second = sorted((self, other), key=id)
        with first._lock, second._lock:
            other._check_sound()
            yield
