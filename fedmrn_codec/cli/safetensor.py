"""Safetensors files without a framework; bfloat16 is read and written as its bits in uint16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from ..primitives.dtypes import DTYPES
from .dense import Dense

CODES = {
    "float32": "F32",
    "float64": "F64",
    "float16": "F16",
    "bfloat16": "BF16",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
}
"""Name of spec 5.3 -> code in a safetensors header."""

METADATA = "__metadata__"

NAMES = {code: name for name, code in CODES.items()}


def load(data: bytes) -> tuple[dict[str, Dense], dict[str, str]]:
    """Parse a file's bytes: tensors and metadata, by name. The safetensors library checks the bytes.

    Raises
    ------
    ValueError
        The bytes are not a safetensors file, or hold a dtype that is not in spec 5.3.
    """
    from safetensors import SafetensorError, deserialize

    try:
        content: list[tuple[str, dict[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ValueError(str(error).removeprefix("Error while deserializing: ")) from error
    return {name: _dense(name, **fields) for name, fields in content}, _metadata(data)


def save(file: BinaryIO, tensors: Mapping[str, Dense], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to a binary file, one tensor at a time.

    The library's own writer is not used: it needs the whole file in memory, and its arguments have changed
    between versions. As in the library, tensors with wide elements come first, so that each is aligned.

    Raises
    ------
    ValueError
        A tensor has the name "__metadata__", which the format reserves.
    """
    if METADATA in tensors:
        raise ValueError(f"tensor name: expected any but the reserved {METADATA!r}, got it")
    order = sorted(tensors, key=lambda name: (-tensors[name].array.itemsize, name))
    header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        dtype, array = tensors[name]
        start, end = end, end + array.nbytes
        header[name] = {"dtype": CODES[dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        dtype, array = tensors[name]
        file.write(np.ascontiguousarray(array, DTYPES[dtype].numpy).reshape(-1).view(np.uint8).data)


def _dense(name: str, dtype: str, shape: list[int], data: bytearray) -> Dense:
    if dtype not in NAMES:
        raise ValueError(f"dtype of {name!r}: expected one of {', '.join(NAMES)}, got {dtype}")
    array = np.frombuffer(data, DTYPES[NAMES[dtype]].numpy).reshape(shape)
    return Dense(NAMES[dtype], array)


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata in the header, whose form has been checked."""
    size = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + size]).get(METADATA) or {})
