"""Frames with their weights and seeds, as `Aggregator.add_many` takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

from .. import errors
from ..format.checked import CheckedFrame
from ..format.frame import Buffer

_END = object()


def together(
    frames: Iterable[Buffer | CheckedFrame], weights: Iterable[int], seeds: Iterable[int] | None
) -> Iterator[tuple[Buffer | CheckedFrame, int, int | None]]:
    """Each frame with its weight and its seed or None; their numbers must be equal."""
    given: dict[str, Iterable[Any]] = {"frames": frames, "weights": weights}
    if seeds is not None:
        given["seeds"] = seeds
    for name, items in given.items():
        if not isinstance(items, Iterable):
            raise errors.AggregateError(name, "an iterable", type(items).__name__)
    for index, row in enumerate(zip_longest(*given.values(), fillvalue=_END)):
        for name, item in zip(given, row, strict=True):
            if item is _END:
                others = " and ".join(other for other in given if other != name)
                raise errors.AggregateError(name, f"as many as {others}", index)
        yield row if seeds is not None else (*row, None)
