"""ArrayRecords: as frames, as arrays by name, and as the sum of a model and an update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord

from fedmrn_codec import adapter_api

STYPE = "fedmrn/1"
"""Serialisation type of an Array that holds a frame; `Array.numpy()` refuses it."""

KEY = "fedmrn.frame"
"""The key of the frame in an ArrayRecord that holds one."""

MODEL_STYPE = (
    "fedmrn/1, a frame of the model, which ClientApp(mods=[fedmrn_flower.mod]) decodes (or let the server "
    "send arrays: FedMRN(..., downlink='raw'))"
)
"""Serialisation type of the Arrays in a message of a server; the error of `Array.numpy()` quotes it, which a
client app without the mod runs into."""

SCHEMA = "fedmrn.schema"
"""The key of the schema beside a frame of the whole model."""


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


def from_model_frame(frame: bytes, schema: bytes | None) -> ArrayRecord:
    """An ArrayRecord for clients: a frame, and the schema (spec 5.1) if the frame has the whole model."""
    parts = {KEY: frame} if schema is None else {KEY: frame, SCHEMA: schema}
    return ArrayRecord({key: Array("uint8", (len(data),), MODEL_STYPE, data) for key, data in parts.items()})


def is_model_frame(record: ArrayRecord) -> bool:
    """Whether an ArrayRecord is one of `from_model_frame`."""
    return KEY in record and record[KEY].stype.startswith(f"{STYPE}, ")


def to_model_frame(record: ArrayRecord) -> tuple[bytes, bytes | None]:
    """The unchecked frame, and the schema or None, of an ArrayRecord for which `is_model_frame` is true."""
    return record[KEY].data, record[SCHEMA].data if SCHEMA in record else None


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
