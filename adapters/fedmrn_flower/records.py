"""ArrayRecords: as frames, as the difference of two, and as the sum of one and an update."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord

import fedmrn_codec as fm

STYPE = "fedmrn/1"
"""How Flower names the serialisation of an Array that is a frame; Array.numpy() refuses it."""

KEY = "fedmrn.frame"
"""The one name in an ArrayRecord that holds a frame."""


def from_frame(frame: bytes) -> ArrayRecord:
    """An ArrayRecord of one Array, whose data are the frame."""
    return ArrayRecord({KEY: Array("uint8", (len(frame),), STYPE, frame)})


def is_frame(record: ArrayRecord) -> bool:
    """Whether an ArrayRecord holds a frame and nothing else."""
    return [array.stype for array in record.values()] == [STYPE]


def to_frame(record: ArrayRecord) -> bytes:
    """The frame of an ArrayRecord for which `is_frame` is true, unchecked."""
    (array,) = record.values()
    return array.data


def schema_of(record: ArrayRecord, leave_out: Collection[str] = ()) -> fm.Schema:
    """The schema of a model's arrays: floats of two or more dimensions are masked, all else is dense.

    Raises
    ------
    fedmrn_codec.SchemaError
        An array that the format cannot express.
    """
    return fm.Schema(_tensor(name, array) for name, array in record.items() if name not in leave_out)


def model_id(record: ArrayRecord) -> int:
    """A 64-bit name of a model's arrays, not 0: a digest of their names and bytes."""
    digest = hashlib.sha256()
    for name, array in record.items():
        digest.update(f"{len(name)} {name} {len(array.data)} ".encode())
        digest.update(array.data)
    return int.from_bytes(digest.digest()[:8], "little") or 1


def difference(trained: ArrayRecord, received: ArrayRecord, schema: fm.Schema) -> dict[str, np.ndarray]:
    """The update, trained minus received, as `fedmrn_codec.encode` takes it.

    Integers wrap around and bools are exclusive-or. A NaN or an infinity stays one: `encode` refuses it.

    Raises
    ------
    fedmrn_codec.UpdateError
        A tensor of the schema is missing, or has another shape or dtype than the one received.
    """
    return {tensor.name: _subtract(tensor, trained, received) for tensor in schema}


def add(base: Array, update: np.ndarray) -> np.ndarray:
    """A model's array plus its part of an update, in the array's dtype.

    Floats are added in the wider of the two dtypes and rounded once, integers wrap around, bools are
    exclusive-or.
    """
    array = base.numpy()
    if array.dtype == np.bool_:
        return np.asarray(np.bitwise_xor(array, update))
    with np.errstate(over="ignore"):
        return np.asarray(array + update).astype(array.dtype)


def added(base: ArrayRecord, update: Mapping[str, np.ndarray]) -> ArrayRecord:
    """A model plus an update; what the update does not name stays as it is, and is shared."""
    return ArrayRecord(
        {name: Array(add(array, update[name])) if name in update else array for name, array in base.items()}
    )


def restored(record: ArrayRecord, base: ArrayRecord) -> ArrayRecord:
    """The record with the dtypes of `base`, where averaging has changed them (int64 becomes float64)."""
    return ArrayRecord({name: _restored(array, base.get(name)) for name, array in record.items()})


def _restored(array: Array, base: Array | None) -> Array:
    if base is None or array.dtype == base.dtype or array.shape != base.shape:
        return array
    values, dtype = array.numpy(), np.dtype(base.dtype)
    return Array(np.asarray(np.rint(values) if dtype.kind in "iu" else values).astype(dtype))


def _tensor(name: str, array: Array) -> fm.Tensor:
    dtype = np.dtype(array.dtype)
    masked = dtype.kind == "f" and len(array.shape) >= 2
    return fm.Tensor(name, tuple(array.shape), masked, "float32" if masked else dtype.name)


def _subtract(tensor: fm.Tensor, trained: ArrayRecord, received: ArrayRecord) -> np.ndarray:
    name = tensor.name
    for record, field in ((received, "received arrays"), (trained, "arrays of the reply")):
        if name not in record:
            raise fm.UpdateError(field, f"nothing for {name!r}", "the schema has it")
    now, start = trained[name].numpy(), received[name].numpy()
    if now.shape != start.shape or now.dtype != start.dtype:
        found, required = f"{now.dtype}{list(now.shape)}", f"{start.dtype}{list(start.shape)}"
        raise fm.UpdateError(f"array {name!r} of the reply", found, f"received: {required}")
    if now.dtype == np.bool_:
        return np.asarray(np.bitwise_xor(now, start))
    with np.errstate(over="ignore", invalid="ignore"):
        if tensor.masked and now.dtype == np.float16:
            now, start = now.astype(np.float32), start.astype(np.float32)
        update = np.asarray(now - start)
        return update.astype(np.float32) if tensor.masked else update
