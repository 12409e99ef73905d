"""The arrays of a DXO: as a frame, and checked to be NumPy's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import Arrays, restored

KEY = "fedmrn.frame"
"""The one name in a DXO's data that holds a frame."""

NUMPY = "a NumPy array (server_expected_format=ExchangeFormat.NUMPY)"
NOT_KEPT = "a NumPy array (an external training process needs params_transfer_type=TransferType.DIFF)"


def from_frame(frame: bytes) -> dict[str, np.ndarray]:
    """The data of a DXO that holds a frame: one array of bytes."""
    return {KEY: np.frombuffer(frame, np.uint8)}


class FrameArray(np.ndarray):
    """The bytes of a frame that has been checked here: `checked` saves whoever sums it the same work."""

    checked: fm.CheckedFrame


def from_checked(frame: fm.CheckedFrame) -> dict[str, np.ndarray]:
    """The data of a DXO that holds a checked frame, which `to_frame` gives back within this process."""
    array = np.frombuffer(frame.view, np.uint8).view(FrameArray)
    array.checked = frame
    return {KEY: array}


def is_frame(data: Mapping[str, Any]) -> bool:
    """Whether a DXO's data are one array of bytes under the frame's name."""
    array = data.get(KEY)
    return len(data) == 1 and isinstance(array, np.ndarray) and (array.dtype, array.ndim) == (np.uint8, 1)


def to_frame(data: Mapping[str, Any]) -> bytes | fm.CheckedFrame:
    """The frame of data for which `is_frame` is true: as checked in this process, else its bytes."""
    checked: fm.CheckedFrame | None = getattr(data[KEY], "checked", None)
    return np.asarray(data[KEY]).tobytes() if checked is None else checked


def checked(data: Mapping[str, Any], field: str, expected: str = NUMPY) -> Arrays:
    """The data, if all are NumPy arrays (or NumPy's scalars).

    Raises
    ------
    fedmrn_codec.UpdateError
        Something else: a tensor of a framework, or a reference that NVFlare has not yet followed.
    """
    for name, array in data.items():
        if not isinstance(array, np.ndarray | np.generic):
            found = f"{type(array).__module__}.{type(array).__name__}"
            raise fm.UpdateError(f"{name!r} of the {field}", expected, found)
    return data


def without_bools(schema: fm.Schema) -> fm.Schema:
    """The schema, if NVFlare can average all of its tensors.

    Raises
    ------
    fedmrn_codec.SchemaError
        It holds bools.
    """
    for tensor in schema:
        if tensor.dtype == "bool":
            expected = "a dtype that NVFlare can average (or its name in leave_out)"
            raise fm.SchemaError(f"dtype of {tensor.name!r}", expected, "bool")
    return schema


def copied(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that training in place cannot reach."""
    return {name: array.copy() if isinstance(array, np.ndarray) else array for name, array in arrays.items()}


def in_dtypes_of(base: Arrays, mean: Arrays) -> dict[str, np.ndarray]:
    """A mean in the dtypes of the model, where averaging has changed them; integers are rounded."""
    return {
        name: restored(array, base[name].dtype) if name in base else array for name, array in mean.items()
    }
