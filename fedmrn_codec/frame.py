"""The frame (spec 6) and the checks of its header, table and length, in the order of spec 7."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import backends, codings, errors, rans
from .codings import RAW
from .dtypes import BY_CODE, Dtype, is_finite
from .limits import DEFAULT_LIMITS, Limits
from .mask import KIND_NAMES, padding_is_zero
from .noise import DISTRIBUTIONS, Noise
from .schema import Schema, Tensor, first_difference, parse_schema

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC, MAJOR, MINOR = b"FMRN", 1, 1  # the highest minor version that is known
HEADER = struct.Struct("<4sBBHQQII16s")
ENTRY = struct.Struct("<BBBBQ")
SCALE = struct.Struct("<f")
CHECKSUM = struct.Struct("<I")
SCHEMA_FLAG = 1
DENSE = 0


class Header(NamedTuple):
    """The fields of spec 6.2, in their order."""

    magic: bytes
    major: int
    minor: int
    flags: int
    seed: int
    base_model: int
    round: int
    tensor_count: int
    digest: bytes


@dataclass(frozen=True)
class Entry:
    """One tensor of a frame (spec 6.4).

    Attributes
    ----------
    kind : str
        "dense", "binary" or "signed".
    noise : Noise or None
        Distribution and scale of a masked tensor.
    dtype : str
        Of the decoded tensor; "float32" for a masked one.
    offset, length : int
        Where the payload lies in the frame, in bytes.
    coding : str
        How it is spelled: "raw"; "rans" of a mask; "float16" or "bfloat16" of a dense float32 tensor.
    """

    kind: str
    noise: Noise | None
    dtype: str
    offset: int
    length: int
    coding: str = "raw"


@dataclass(frozen=True)
class Info:
    """What a frame says of itself before its payloads (spec 6.2 to 6.4).

    Attributes
    ----------
    version : (int, int)
    seed, base_model, round : int
        0 for the latter two means "not given".
    digest : bytes
        Of the schema: 16 bytes.
    schema : Schema or None
        The caller's, or else the one embedded in the frame.
    embedded : bool
        Whether the frame carries its schema.
    tensors : tuple of Entry
        In schema order.
    frame_bytes, mask_bytes, dense_bytes, header_bytes : int
        The frame's length, and its parts: masked payloads, dense payloads, everything else.
    """

    version: tuple[int, int]
    seed: int
    base_model: int
    round: int
    digest: bytes
    schema: Schema | None
    embedded: bool
    tensors: tuple[Entry, ...]
    frame_bytes: int
    mask_bytes: int = field(init=False)
    dense_bytes: int = field(init=False)
    header_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        masked = sum(e.length for e in self.tensors if e.noise)
        dense = sum(e.length for e in self.tensors if not e.noise)
        object.__setattr__(self, "mask_bytes", masked)
        object.__setattr__(self, "dense_bytes", dense)
        object.__setattr__(self, "header_bytes", self.frame_bytes - masked - dense)


@dataclass(frozen=True)
class Expected:
    """What the caller asks of a frame; None asks nothing.

    Attributes
    ----------
    schema : Schema or None
    round, base_model, seed : int or None
    """

    schema: Schema | None = None
    round: int | None = None
    base_model: int | None = None
    seed: int | None = None


def as_view(data: Buffer) -> memoryview:
    """A flat view of the bytes of bytes, bytearray, memoryview, mmap or array; no copy.

    Raises
    ------
    ArgumentError
        If `data` has no contiguous bytes.
    """
    try:
        return memoryview(data).cast("B")
    except (TypeError, ValueError) as error:
        raise errors.ArgumentError(
            "frame", f"{type(data).__name__} ({error})", "required: contiguous bytes"
        ) from None


def build(
    schema: Schema,
    entries: Sequence[bytes],
    payloads: Sequence[np.ndarray],
    *,
    seed: int,
    base_model: int,
    round: int,
    embed_schema: bool,
) -> bytes:
    """Put a frame together from its table entries and payloads (spec 6.1), of the lowest version, [E-01]."""
    minor = int(any(ENTRY.unpack_from(entry)[2] != RAW for entry in entries))
    header = HEADER.pack(
        MAGIC, MAJOR, minor, SCHEMA_FLAG * embed_schema, seed, base_model, round, len(schema), schema.digest
    )
    embedded = struct.pack("<I", len(schema.data)) + schema.data if embed_schema else b""
    parts: list[Any] = [header, embedded, *entries, *payloads]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join([*parts, CHECKSUM.pack(checksum)])


def masked_entry(kind: int, noise: Noise, coding: int, length: int) -> bytes:
    """A masked tensor's table entry (spec 6.4)."""
    return ENTRY.pack(kind, noise.code, coding, 0, length) + SCALE.pack(noise.scale)


def dense_entry(dtype: Dtype, coding: int, length: int) -> bytes:
    """A dense tensor's table entry (spec 6.4)."""
    return ENTRY.pack(DENSE, dtype.code, coding, 0, length)


def parse(
    view: memoryview, expected: Expected, limits: Limits = DEFAULT_LIMITS, *, need_schema: bool = True
) -> Info:
    """Check a frame up to and including its length, [F-01] to [F-26], and say what it holds.

    With `need_schema` false and no schema at hand, the checks that need one are left out: [F-09], [F-11],
    [F-17], [F-19], [F-23].
    """
    header = _parse_header(view, limits)
    body, at = view[: -CHECKSUM.size], HEADER.size
    embedded = None
    if header.flags & SCHEMA_FLAG:
        embedded, at = _parse_embedded(body, at, header.digest, limits)
    schema = embedded if expected.schema is None else expected.schema
    if schema is None and need_schema:
        raise errors.NoSchemaError("schema", "none embedded", "the caller gave none either", 6)
    _check_agreement(header, embedded, expected)
    entries, end = _parse_table(body, at, header, schema, keep=expected.schema is not None)
    if len(body) < end:
        required = f"its parts need {end + CHECKSUM.size}"
        raise errors.TruncatedError("frame", f"{len(view)} bytes", required, len(view))
    if len(body) > end:
        required = f"its parts end after {end + CHECKSUM.size}"
        raise errors.TrailingError("frame", f"{len(view)} bytes", required, end)
    return Info(
        version=(header.major, header.minor),
        seed=header.seed,
        base_model=header.base_model,
        round=header.round,
        digest=header.digest,
        schema=schema,
        embedded=embedded is not None,
        tensors=entries,
        frame_bytes=len(view),
    )


def _parse_header(view: memoryview, limits: Limits) -> Header:
    """[F-01] to [F-05]."""
    least = HEADER.size + CHECKSUM.size
    if len(view) < least:
        raise errors.TruncatedError("frame", f"{len(view)} bytes", f"required: at least {least}", 0)
    header = Header(*HEADER.unpack_from(view))
    if header.magic != MAGIC:
        raise errors.MagicError("magic", header.magic, f"required: {MAGIC!r}", 0)
    if header.major != MAJOR or header.minor > MINOR:
        known = f"known: {MAJOR}.0 to {MAJOR}.{MINOR}"
        raise errors.VersionError("version", f"{header.major}.{header.minor}", known, 4)
    if header.flags & ~SCHEMA_FLAG:
        raise errors.ReservedError("flags", f"{header.flags:#06x}", "bits 1 to 15 must be 0", 6)
    if header.tensor_count > limits.max_tensors:
        raise errors.LimitError("tensor count", header.tensor_count, f"the limit is {limits.max_tensors}", 28)
    return header


def _parse_embedded(body: memoryview, at: int, digest: bytes, limits: Limits) -> tuple[Schema, int]:
    """The embedded schema and where the table begins: [F-06] to [F-08], [S-01] to [S-08]."""
    if len(body) < at + 4:
        raise errors.TruncatedError("schema length", f"{len(body) - at} bytes left", "it needs 4", at)
    length = int.from_bytes(body[at : at + 4], "little")
    if length > limits.max_schema_bytes:
        raise errors.LimitError("schema length", length, f"the limit is {limits.max_schema_bytes}", at)
    at += 4
    if len(body) < at + length:
        raise errors.TruncatedError("schema", f"{len(body) - at} bytes left", f"it needs {length}", at)
    schema = parse_schema(body[at : at + length], at, limits)
    if schema.digest != digest:
        raise errors.SchemaDigestError(
            "digest of the embedded schema", schema.digest.hex(), f"the header says {digest.hex()}", 32
        )
    return schema, at + length


def _check_agreement(header: Header, embedded: Schema | None, expected: Expected) -> None:
    """[F-10] to [F-14]."""
    schema = embedded if expected.schema is None else expected.schema
    if expected.schema is not None and header.digest != expected.schema.digest:
        why = f" ({first_difference(embedded, expected.schema)})" if embedded else ""
        raise errors.SchemaMismatchError(
            "schema digest", header.digest.hex() + why, f"the caller's is {expected.schema.digest.hex()}", 32
        )
    if schema is not None and header.tensor_count != len(schema):
        raise errors.TensorCountError(
            "tensor count", header.tensor_count, f"the schema has {len(schema)}", 28
        )
    if expected.round not in (None, header.round):
        raise errors.RoundError("round", header.round, f"required: {expected.round}", 24)
    if expected.base_model not in (None, header.base_model):
        raise errors.BaseModelError("base_model", header.base_model, f"required: {expected.base_model}", 16)
    if expected.seed not in (None, header.seed):
        raise errors.SeedError("seed", header.seed, f"required: {expected.seed}", 8)


def _parse_table(
    body: memoryview, at: int, header: Header, schema: Schema | None, keep: bool
) -> tuple[tuple[Entry, ...], int]:
    """The entries and where the payloads end: [F-15] to [F-24], [F-31].

    `keep` what was parsed only of the caller's own schema: a frame's may be large, and hostile.
    """
    if keep and schema is not None:
        table = bytes(body[at : at + _table_bytes(schema)])
        try:
            return _usual_table(table, at, header.minor, schema)
        except errors.FrameError:
            pass  # told of the whole frame below: a bad table may be longer, and offsets count from its begin
    return _parse_entries(body, at, header.minor, header.tensor_count, schema)


@lru_cache(maxsize=16)
def _table_bytes(schema: Schema) -> int:
    """The length of a table whose entries are of the schema's kinds."""
    return sum(ENTRY.size + SCALE.size * tensor.masked for tensor in schema)


@lru_cache(maxsize=16)
def _usual_table(table: bytes, begin: int, minor: int, schema: Schema) -> tuple[tuple[Entry, ...], int]:
    """As `_parse_table`, kept: the frames of a round have one table, unless their masks are coded."""
    return _parse_entries(memoryview(table), 0, minor, len(schema), schema, begin)


def _parse_entries(
    body: memoryview, at: int, minor: int, count: int, schema: Schema | None, begin: int = 0
) -> tuple[tuple[Entry, ...], int]:
    """As `_parse_table`; `begin` is where in the frame `body` begins, which errors leave out."""
    parsed: list[tuple[str, Noise | None, str, int, str]] = []
    for i in range(count):
        tensor = schema.tensors[i] if schema is not None else None
        name = f"tensor {i}" if tensor is None else repr(tensor.name)
        facts, at = _parse_entry(body, at, name, tensor, minor)
        parsed.append(facts)
    if minor and all(coding == "raw" for *_, coding in parsed):
        raise errors.MinorError("minor version", minor, "the frame needs 0", 5)
    entries, at = [], begin + at
    for kind, noise, dtype, length, coding in parsed:
        entries.append(Entry(kind, noise, dtype, at, length, coding))
        at += length
    return tuple(entries), at


def _parse_entry(
    body: memoryview, at: int, name: str, tensor: Tensor | None, minor: int
) -> tuple[tuple[str, Noise | None, str, int, str], int]:
    """The fields of an `Entry` but its offset, and where the next begins."""
    left = len(body) - at
    size = ENTRY.size + (SCALE.size if left and body[at] in KIND_NAMES else 0)
    if left < size:
        raise errors.TruncatedError(f"entry of {name}", f"{left} bytes left", f"it needs {size}", at)
    kind, type_code, coding, reserved, length = ENTRY.unpack_from(body, at)
    masked = kind in KIND_NAMES
    if not masked and kind != DENSE:
        raise errors.UnknownKindError(f"kind of {name}", kind, "known: 0 dense, 1 binary, 2 signed", at)
    if tensor is not None and masked != tensor.masked:
        role = "masked" if tensor.masked else "dense"
        raise errors.KindMismatchError(f"kind of {name}", kind, f"the schema says {role}", at)
    if not masked:
        _check_dtype(type_code, name, tensor, at + 1)
    elif type_code not in DISTRIBUTIONS:
        raise errors.UnknownDistributionError(
            f"distribution of {name}", type_code, f"known: 1 to {max(DISTRIBUTIONS)}", at + 1
        )
    known = codings.allowed(None if masked else BY_CODE[type_code].name, minor)
    if coding not in known:
        allowed = f"known here: {', '.join(map(str, known))}"
        raise errors.UnknownCodingError(f"coding of {name}", coding, allowed, at + 2)
    if reserved:
        raise errors.ReservedError(f"reserved byte of {name}", reserved, "required: 0", at + 3)
    if tensor is not None:
        least, most = codings.lengths(tensor, coding)
        if not least <= length <= most:
            required = f"{tensor.size} elements need {least}" + (f" to {most}" if most > least else "")
            raise errors.PayloadLengthError(f"payload length of {name}", length, required, at + 4)
    coded = codings.NAMES[coding]
    if not masked:
        return ("dense", None, BY_CODE[type_code].name, length, coded), at + size
    (scale,) = SCALE.unpack_from(body, at + ENTRY.size)
    distribution = DISTRIBUTIONS[type_code]
    if not distribution.allows(scale):
        raise errors.FrameScaleError(
            f"scale of {name}", scale, f"required: {distribution.bounds()}", at + ENTRY.size
        )
    return (KIND_NAMES[kind], distribution(scale), "float32", length, coded), at + size


def _check_dtype(code: int, name: str, tensor: Tensor | None, at: int) -> None:
    """[F-18] and [F-19]."""
    if code not in BY_CODE:
        raise errors.UnknownDtypeError(f"dtype of {name}", code, f"known: 1 to {max(BY_CODE)}", at)
    if tensor is not None and BY_CODE[code].name != tensor.dtype:
        raise errors.DtypeMismatchError(
            f"dtype of {name}", BY_CODE[code].name, f"the schema says {tensor.dtype}", at
        )


def check_checksum(view: memoryview) -> None:
    """[F-27]; also the check of a partial sum, [P-14]."""
    at = len(view) - CHECKSUM.size
    (found,) = CHECKSUM.unpack_from(view, at)
    computed = zlib.crc32(view[:at])
    if found != computed:
        raise errors.ChecksumError("checksum", f"{found:#010x}", f"the bytes have {computed:#010x}", at)


def payload(view: memoryview, info: Info, stream: int, backend: str | None) -> np.ndarray:
    """A tensor's content, flat: packed bytes if masked, else elements; a view where the coding is raw.

    The checks are [F-28] to [F-30] and [C-01] to [C-04].
    """
    assert info.schema is not None
    tensor, entry = info.schema.tensors[stream], info.tensors[stream]
    raw = np.frombuffer(view, np.uint8, entry.length, entry.offset)
    if entry.noise is not None:
        name = repr(tensor.name)
        if entry.coding == "rans":
            coder = backends.coder(backend)  # loaded only where a frame needs it
            return rans.expand(coder, entry.noise, info.seed, stream, raw, tensor.size, name, entry.offset)
        if not padding_is_zero(raw, tensor.size):
            raise errors.PaddingError(
                f"padding of {name}",
                f"{raw[-1]:#04x} in its last byte",
                f"bits beyond element {tensor.size - 1} must be 0",
                entry.offset + entry.length - 1,
            )
        return raw
    if tensor.dtype == "bool" and raw.size and raw.max() > 1:
        first = int(np.argmax(raw > 1))
        raise errors.BoolError(
            f"bool of {tensor.name!r}", raw[first], "required: 0 or 1", entry.offset + first
        )
    elements = codings.widen(raw, tensor, entry.coding)
    if not is_finite(elements, tensor.type):
        raise errors.NonFiniteError(
            f"payload of {tensor.name!r}", "a NaN or an infinity", "required: finite", entry.offset
        )
    return elements
