"""Schemas, their bytes and digests (spec 5)."""

from __future__ import annotations

import hashlib
import math
import struct
from typing import NamedTuple

from .checks import Reader, Refusal, require
from .elements import DTYPES, FLOAT32


class Tensor(NamedTuple):
    """One tensor of a schema; `dtype` is a code of 5.3 (spec 5.2)."""

    name: str
    masked: bool
    dtype: int
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements n (spec 1.5)."""
        return math.prod(self.shape)

    @property
    def payload_length(self) -> int:
        """The bytes of its mask or its elements in coding 0 (spec 6.4)."""
        return (self.elements + 7) // 8 if self.masked else self.elements * DTYPES[self.dtype].size


Schema = tuple[Tensor, ...]


def schema_bytes(schema: Schema) -> bytes:
    """A schema's bytes; `Refusal` if a reader would refuse them (spec 5.1, 5.2)."""
    data = struct.pack("<I", len(schema))
    for tensor in schema:
        name, rank = tensor.name.encode(), len(tensor.shape)
        data += struct.pack("<H", len(name)) + name + bytes([tensor.masked, tensor.dtype, rank])
        data += struct.pack(f"<{rank}Q", *tensor.shape)
    parse_schema(data)
    return data


def parse_schema(data: bytes, max_tensors: int = 2**32) -> Schema:
    """The schema of its bytes, [S-01] to [S-06], [S-09] checked field by field (spec 5.1, 5.2, 7.3)."""
    reader, schema, names = Reader(data), [], set()
    for position in range(reader.uint(4, "S-01", "count")):
        require(position < max_tensors, "S-09", f"tensors: expected at most {max_tensors}")
        at = f"tensor {position}"
        name_length = reader.uint(2, "S-01", f"{at}: name_length")
        require(name_length > 0, "S-02", f"{at}: expected a name, got an empty one")
        raw = reader.take(name_length, "S-01", f"{at}: name")
        try:
            name = raw.decode("utf-8", "strict")
        except UnicodeDecodeError:
            raise Refusal("S-02", f"{at}: name {raw.hex()} is not UTF-8") from None
        require(raw not in names, "S-02", f"{at}: expected each name once, got {name!r} again")
        names.add(raw)
        role = reader.uint(1, "S-01", f"{at}: role")
        require(role in (0, 1), "S-03", f"{at}: role: expected 0 or 1, got {role}")
        dtype = reader.uint(1, "S-01", f"{at}: dtype")
        require(dtype in DTYPES, "S-04", f"{at}: dtype {dtype}")
        require(role == 0 or dtype == FLOAT32, "S-05", f"{at}: dtype {dtype} of a masked tensor")
        rank = reader.uint(1, "S-01", f"{at}: rank")
        require(rank <= 32, "S-06", f"{at}: rank: expected at most 32, got {rank}")
        shape = struct.unpack(f"<{rank}Q", reader.take(8 * rank, "S-01", f"{at}: shape"))
        require(math.prod(d or 1 for d in shape) <= 2**48, "S-06", f"{at}: shape {shape}, at most 2^48")
        schema.append(Tensor(name, role == 1, dtype, shape))
    require(reader.at == len(data), "S-01", f"tensors end at byte {reader.at} of {len(data)}")
    return tuple(schema)


def schema_digest(schema: Schema) -> bytes:
    """The digest of a schema, 16 bytes (spec 5.4)."""
    return hashlib.sha256(schema_bytes(schema)).digest()[:16]
