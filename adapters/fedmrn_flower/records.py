"""ArrayRecords: as frames, as arrays by name, and as the sum of a model and an update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord

from fedmrn_codec import adapter_api

STYPE = "fedmrn/1"
"""Serialisation type of an Array that holds a frame; `Array.numpy()` refuses it."""

KEY = "fedmrn.frame"
"""The one key of an ArrayRecord that holds a frame."""


def from_frame(frame: bytes) -> ArrayRecord:
    """An ArrayRecord of one Array, whose data are the frame."""
    return ArrayRecord({KEY: Array("uint8", (len(frame),), STYPE, frame)})


def is_frame(record: ArrayRecord) -> bool:
    """Whether an ArrayRecord holds a frame and nothing else."""
    return [array.stype for array in record.values()] == [STYPE]


def to_frame(record: ArrayRecord) -> bytes:
    """The unchecked frame of an ArrayRecord for which `is_frame` is true."""
    (array,) = record.values()
    return array.data


class Loaded(Mapping[str, np.ndarray]):
    """The arrays of an ArrayRecord by name; each access deserialises one."""

    def __init__(self, record: ArrayRecord) -> None:
        self._record = record

    def __getitem__(self, name: str) -> np.ndarray:
        return self._record[name].numpy()

    def __contains__(self, name: object) -> bool:
        return name in self._record

    def __iter__(self) -> Iterator[str]:
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)


def added(base: ArrayRecord, update: Mapping[str, np.ndarray]) -> ArrayRecord:
    """A model plus an update; arrays that the update does not name are shared with `base`."""
    return ArrayRecord(
        {
            name: Array(adapter_api.add(array.numpy(), update[name])) if name in update else array
            for name, array in base.items()
        }
    )


def restored(record: ArrayRecord, base: ArrayRecord) -> ArrayRecord:
    """The record in the dtypes of `base`; averaging changes some of them (int64 becomes float64)."""
    return ArrayRecord({name: _restored(array, base.get(name)) for name, array in record.items()})


def _restored(array: Array, base: Array | None) -> Array:
    if base is None or array.dtype == base.dtype or array.shape != base.shape:
        return array
    return Array(adapter_api.restored(array.numpy(), np.dtype(base.dtype)))
