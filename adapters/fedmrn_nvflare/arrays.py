"""A model's arrays by name: as the difference of two, as the sum of one and an update, and as a frame."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

import fedmrn_codec as fm

Arrays = Mapping[str, np.ndarray]

KEY = "fedmrn.frame"
"""The one name in a DXO's data that holds a frame."""


def from_frame(frame: bytes) -> dict[str, np.ndarray]:
    """The data of a DXO that holds a frame: one array of bytes."""
    return {KEY: np.frombuffer(frame, np.uint8)}


def is_frame(data: Mapping[str, Any]) -> bool:
    """Whether a DXO's data are one array of bytes under the frame's name."""
    array = data.get(KEY)
    return len(data) == 1 and isinstance(array, np.ndarray) and (array.dtype, array.ndim) == (np.uint8, 1)


NUMPY = "required: a NumPy array (server_expected_format=ExchangeFormat.NUMPY)"
NOT_KEPT = (
    "required: a NumPy array; an external training process needs params_transfer_type=TransferType.DIFF"
)


def checked(data: Mapping[str, Any], field: str, required: str = NUMPY) -> Arrays:
    """The data, if all are NumPy arrays (or NumPy's scalars).

    Raises
    ------
    fedmrn_codec.UpdateError
        Something else: a tensor of a framework, or a reference that NVFlare has not yet followed.
    """
    for name, array in data.items():
        if not isinstance(array, np.ndarray | np.generic):
            raise fm.UpdateError(
                f"{name!r} of the {field}",
                f"{type(array).__module__}.{type(array).__name__}",
                required,
            )
    return data


def schema_of(arrays: Arrays, masked: Collection[str] | None, leave_out: Collection[str]) -> fm.Schema:
    """The schema of a model: `masked` are masked, or by default all floats of two or more dimensions.

    Raises
    ------
    fedmrn_codec.SchemaError
        A name that the model does not have, or an array that cannot be masked or sent.
    """
    for name in (*(masked or ()), *leave_out):
        if name not in arrays:
            raise fm.SchemaError("masked and leave_out", repr(name), "required: names of the model's arrays")
    return fm.Schema(_tensor(name, array, masked) for name, array in arrays.items() if name not in leave_out)


def model_id(arrays: Arrays) -> int:
    """A 64-bit name of a model, not 0: a digest of its names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return int.from_bytes(digest.digest()[:8], "little") or 1


def difference(trained: Arrays, received: Arrays, schema: fm.Schema) -> dict[str, np.ndarray]:
    """The update, trained minus received, as `fedmrn_codec.encode` takes it; integers wrap around.

    Raises
    ------
    fedmrn_codec.UpdateError
        A tensor of the schema is missing, or has another shape or dtype than the one received.
    """
    out = {}
    for tensor in schema:
        now, start = _named(trained, tensor, "result"), _named(received, tensor, "task")
        if now.shape != start.shape or now.dtype != start.dtype:
            found, required = f"{now.dtype}{list(now.shape)}", f"{start.dtype}{list(start.shape)}"
            raise fm.UpdateError(f"{tensor.name!r} of the result", found, f"received: {required}")
        with np.errstate(over="ignore", invalid="ignore"):
            out[tensor.name] = _masked(np.asarray(_widened(now, tensor) - _widened(start, tensor)), tensor)
    return out


def as_update(diff: Arrays, schema: fm.Schema) -> dict[str, np.ndarray]:
    """A difference that the client has worked out, as `fedmrn_codec.encode` takes it.

    Raises
    ------
    fedmrn_codec.UpdateError
        A tensor of the schema is missing. `encode` checks shapes and dtypes.
    """
    return {tensor.name: _masked(_named(diff, tensor, "result"), tensor) for tensor in schema}


def add(base: np.ndarray, update: np.ndarray) -> np.ndarray:
    """A model's array plus its part of an update, in the array's dtype; integers wrap around."""
    with np.errstate(over="ignore"):
        return np.asarray(base + update).astype(base.dtype)


def restored(mean: Arrays, base: Arrays) -> dict[str, np.ndarray]:
    """The mean in the dtypes of `base`, where averaging has changed them; integers are rounded."""
    return {name: _restored(np.asarray(array), base.get(name)) for name, array in mean.items()}


def copied(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that training in place cannot reach."""
    return {name: array.copy() if isinstance(array, np.ndarray) else array for name, array in arrays.items()}


def _restored(array: np.ndarray, base: np.ndarray | None) -> np.ndarray:
    if base is None or array.dtype == base.dtype:
        return array
    return (np.rint(array) if base.dtype.kind in "iu" else array).astype(base.dtype)


def _tensor(name: str, array: np.ndarray, masked: Collection[str] | None) -> fm.Tensor:
    is_float = array.dtype.kind == "f"
    mask = is_float and array.ndim >= 2 if masked is None else name in masked
    if mask and not is_float:
        raise fm.SchemaError(f"dtype of masked {name!r}", array.dtype, "required: a float")
    if array.dtype.kind == "b":
        raise fm.SchemaError(
            f"dtype of {name!r}", "bool", "which NVFlare cannot average: name it in leave_out"
        )
    return fm.Tensor(name, array.shape, mask, "float32" if mask else array.dtype.name)


def _named(arrays: Arrays, tensor: fm.Tensor, field: str) -> np.ndarray:
    if tensor.name not in arrays:
        raise fm.UpdateError(field, f"nothing for {tensor.name!r}", "the schema has it")
    return np.asarray(arrays[tensor.name])


def _widened(array: np.ndarray, tensor: fm.Tensor) -> np.ndarray:
    return array.astype(np.float32) if tensor.masked and array.dtype == np.float16 else array


def _masked(update: np.ndarray, tensor: fm.Tensor) -> np.ndarray:
    is_float = tensor.masked and update.dtype.kind == "f"
    with np.errstate(over="ignore"):
        return update.astype(np.float32) if is_float else update
