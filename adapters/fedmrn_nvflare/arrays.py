"""The arrays of a DXO: as a frame, and checked to be NumPy arrays."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import Arrays, restored

KEY = "fedmrn.frame"
"""The one key of a DXO's data that holds a frame."""

MODEL, SCHEMA = "fedmrn.model", "fedmrn.schema"
"""Keys of a DXO's data on the way to a client: a frame, and the schema beside one of the whole model."""

NUMPY = "a NumPy array (server_expected_format=ExchangeFormat.NUMPY)"
NOT_RECEIVED = "a NumPy array (an external training process needs params_transfer_type=TransferType.DIFF)"

_checked_frames: dict[int, fm.CheckedFrame] = {}
"""The checked frames of the arrays that `from_checked` has made, by the id of the array."""


def from_frame(frame: bytes) -> dict[str, np.ndarray]:
    """The data of a DXO that holds a frame: one array of bytes."""
    return {KEY: np.frombuffer(frame, np.uint8)}


def from_checked(frame: fm.CheckedFrame) -> dict[str, np.ndarray]:
    """The data of a DXO that holds a checked frame; `to_frame` returns it as long as the array exists.

    The array is a plain one, since NVFlare cannot serialise a subclass; so the frame is in a table beside it.
    """
    array = np.frombuffer(frame.view, np.uint8)
    _checked_frames[id(array)] = frame
    weakref.finalize(array, _checked_frames.pop, id(array))
    return {KEY: array}


def is_frame(data: Mapping[str, Any]) -> bool:
    """Whether the data of a DXO are one uint8 vector under the key of a frame."""
    array = data.get(KEY)
    return len(data) == 1 and isinstance(array, np.ndarray) and (array.dtype, array.ndim) == (np.uint8, 1)


def to_frame(data: Mapping[str, Any]) -> bytes | fm.CheckedFrame:
    """The frame of data for which `is_frame` is true: the checked frame if there is one, else the bytes."""
    checked_frame = _checked_frames.get(id(data[KEY]))
    return data[KEY].tobytes() if checked_frame is None else checked_frame


def from_model_frame(frame: bytes, schema: bytes | None) -> dict[str, np.ndarray]:
    """The data of a DXO for a client: a frame, and the schema (spec 5.1) if it has the whole model."""
    parts = {MODEL: frame} if schema is None else {MODEL: frame, SCHEMA: schema}
    return {key: np.frombuffer(part, np.uint8) for key, part in parts.items()}


def is_model_frame(data: Mapping[str, Any]) -> bool:
    """Whether the data of a DXO are those of `from_model_frame`."""
    return MODEL in data and all(
        key in (MODEL, SCHEMA)
        and isinstance(array, np.ndarray)
        and (array.dtype, array.ndim) == (np.uint8, 1)
        for key, array in data.items()
    )


def checked(data: Mapping[str, Any], field: str, expected: str = NUMPY) -> Arrays:
    """The data, if all values are NumPy arrays or scalars.

    Raises
    ------
    fedmrn_codec.UpdateError
        A value is something else, such as a framework's tensor or an unresolved reference of NVFlare.
    """
    for name, array in data.items():
        if not isinstance(array, np.ndarray | np.generic):
            found = f"{type(array).__module__}.{type(array).__name__}"
            raise fm.UpdateError(f"{name!r} of the {field}", expected, found)
    return data


def without_bools(schema: fm.Schema) -> fm.Schema:
    """The schema; SchemaError if it has a tensor of bools, which NVFlare cannot average."""
    for tensor in schema:
        if tensor.dtype == "bool":
            expected = "a dtype that NVFlare can average (or name the array in leave_out)"
            raise fm.SchemaError(f"dtype of {tensor.name!r}", expected, "bool")
    return schema


def copied(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """A copy, which training in place does not change."""
    return {name: array.copy() if isinstance(array, np.ndarray) else array for name, array in arrays.items()}


def in_dtypes_of(base: Arrays, mean: Arrays) -> dict[str, np.ndarray]:
    """A mean in the dtypes of the model, which averaging may have changed; integers are rounded."""
    return {
        name: restored(array, base[name].dtype) if name in base else array for name, array in mean.items()
    }
