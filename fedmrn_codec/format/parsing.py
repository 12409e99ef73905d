"""The checks of a frame's header, table and length, in the order of spec 7: [F-01] to [F-26], [F-31]."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from .. import errors
from ..primitives.codes import Coding, MaskKind
from ..primitives.dtypes import BY_CODE
from ..primitives.grid import BOUNDS
from ..primitives.noise import DISTRIBUTIONS, Noise
from . import codings
from .frame import (
    CHECKSUM,
    DENSE,
    ENTRY,
    GRID,
    GRID_MINOR,
    HEADER,
    MAGIC,
    MAJOR,
    MINOR,
    SCALE,
    SCHEMA_FLAG,
    Entry,
    Header,
    Info,
    minor_of,
)
from .limits import DEFAULT_LIMITS, Limits, checked_limits
from .schema import Schema, Tensor, first_difference, parse_schema

KINDS = frozenset(MaskKind)

Fields = tuple[str, Noise | None, str, int, Coding, float | None]
"""Kind, noise, dtype, length, coding and step of an `Entry`."""


@dataclass(frozen=True)
class Expected:
    """Values that the fields of a frame must equal, [F-10] and [F-12] to [F-14]; None allows any value.

    Attributes
    ----------
    schema : Schema or None
    round, base_model, seed : int or None
    embedded : bool
        Whether frames may carry their schema.
    """

    schema: Schema | None = None
    round: int | None = None
    base_model: int | None = None
    seed: int | None = None
    embedded: bool = True


def parse(
    view: memoryview, expected: Expected, limits: Limits = DEFAULT_LIMITS, *, need_schema: bool = True
) -> Info:
    """Parse and check a frame's header, table and length: [F-01] to [F-26], [F-31]; FrameError if one fails.

    If `need_schema` is false, and neither `expected` nor the frame contains a schema, the checks that need
    one are left out: [F-09], [F-11], [F-17], [F-19] and [F-23].
    """
    header = _parse_header(view, checked_limits(limits))
    body, at = view[: -CHECKSUM.size], HEADER.size
    embedded = None
    if header.flags & SCHEMA_FLAG:
        _check_embedded(expected)
        embedded, at = _parse_embedded(body, at, header.digest, expected.schema, limits)
    schema = embedded if expected.schema is None else expected.schema
    if schema is None and need_schema:
        raise errors.NoSchemaError("schema", "a schema in the frame or from the caller", "neither", 6)
    _check_agreement(header, embedded, expected)
    # Not cached with a schema from the frame, which is untrusted and may be large.
    entries, end = _parse_table(body, at, header, schema, keep=expected.schema is not None)
    needed = f"{end + CHECKSUM.size} bytes for its parts"
    if len(body) < end:
        raise errors.TruncatedError("frame", needed, len(view), len(view))
    if len(body) > end:
        raise errors.TrailingError("frame", needed, len(view), end)
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
    """Parse the header: [F-01] to [F-05]."""
    least = HEADER.size + CHECKSUM.size
    if len(view) < least:
        raise errors.TruncatedError("frame", f"at least {least} bytes", len(view), 0)
    header = Header(*HEADER.unpack_from(view))
    if header.magic != MAGIC:
        raise errors.MagicError("magic", repr(MAGIC), header.magic, 0)
    if header.major != MAJOR or header.minor > MINOR:
        known = f"{MAJOR}.0 to {MAJOR}.{MINOR}"
        raise errors.VersionError("version", known, f"{header.major}.{header.minor}", 4)
    if header.flags & ~SCHEMA_FLAG:
        raise errors.ReservedError("flags", "bits 1 to 15 to be 0", f"{header.flags:#06x}", 6)
    if header.tensor_count > limits.max_tensors:
        raise errors.LimitError("tensor count", f"at most {limits.max_tensors}", header.tensor_count, 28)
    return header


def _parse_embedded(
    body: memoryview, at: int, digest: bytes, known: Schema | None, limits: Limits
) -> tuple[Schema, int]:
    """The embedded schema and the offset of the table: [F-06] to [F-08], [S-01] to [S-09].

    It is not parsed if its bytes are those of `known`, the caller's schema.
    """
    if len(body) < at + 4:
        raise errors.TruncatedError("schema length", "4 bytes", f"{len(body) - at} bytes left", at)
    length = int.from_bytes(body[at : at + 4], "little")
    if length > limits.max_schema_bytes:
        raise errors.LimitError("schema length", f"at most {limits.max_schema_bytes}", length, at)
    at += 4
    if len(body) < at + length:
        raise errors.TruncatedError("schema", f"{length} bytes", f"{len(body) - at} bytes left", at)
    data = body[at : at + length]
    schema = known if known is not None and _is_within(known, limits) and data == known.data else None
    if schema is None:
        schema = parse_schema(data, at, limits)
    if schema.digest != digest:
        raise errors.SchemaDigestError(
            "digest of the embedded schema", f"{digest.hex()}, as in the header", schema.digest.hex(), 32
        )
    return schema, at + length


def _is_within(schema: Schema, limits: Limits) -> bool:
    """Whether an embedded schema that is equal to `schema` passes [S-07] and [S-09]."""
    return len(schema) <= limits.max_tensors and schema.elements <= limits.max_elements


def check_expected(info: Info, expected: Expected) -> None:
    """Compare a parsed frame with the expected values: [F-10] and [F-12] to [F-14]."""
    if info.embedded:
        _check_embedded(expected)
    if expected.schema is not None:
        check_digest(info.digest, expected.schema, info.schema)
    check_values(info, expected)


def _check_embedded(expected: Expected) -> None:
    """Refuse a frame that carries its schema, unless that is allowed."""
    if not expected.embedded:
        raise errors.EmbeddedSchemaError("flags", "bit 0 to be 0: no schema in the frame", "1", 6)


def _check_agreement(header: Header, embedded: Schema | None, expected: Expected) -> None:
    """Compare the header with the schema and the expected values: [F-10] to [F-14]."""
    if expected.schema is not None:
        check_digest(header.digest, expected.schema, embedded)
    schema = embedded if expected.schema is None else expected.schema
    if schema is not None:
        check_tensor_count(header.tensor_count, schema)
    check_values(header, expected)


def check_digest(digest: bytes, expected: Schema, own: Schema | None = None) -> None:
    """[F-10], [P-07]: compare schema digests; the error tells how `own`, the frame's schema, differs."""
    if digest != expected.digest:
        why = f" ({first_difference(own, expected)})" if own else ""
        raise errors.SchemaMismatchError(
            "schema digest", f"{expected.digest.hex()}, the caller's", digest.hex() + why, 32
        )


def check_tensor_count(count: int, schema: Schema) -> None:
    """Compare a header's number of tensors with the schema: [F-11] and [P-08]."""
    if count != len(schema):
        raise errors.TensorCountError("tensor count", f"{len(schema)}, as in the schema", count, 28)


def check_values(header: Header | Info | Expected, expected: Expected) -> None:
    """Compare round, base_model (an id) and seed: [F-12] to [F-14]; a partial sum has the first two."""
    if expected.round not in (None, header.round):
        raise errors.RoundError("round", expected.round, header.round, 24)
    if expected.base_model not in (None, header.base_model):
        raise errors.BaseModelError("base_model", expected.base_model, header.base_model, 16)
    if expected.seed not in (None, header.seed):
        raise errors.SeedError("seed", expected.seed, header.seed, 8)


def _parse_table(
    body: memoryview, at: int, header: Header, schema: Schema | None, keep: bool
) -> tuple[tuple[Entry, ...], int]:
    """The entries, and the offset at which the payloads end: [F-15] to [F-24], [F-31]; `keep` caches them."""
    if keep and schema is not None and header.minor < GRID_MINOR:
        table = bytes(body[at : at + _table_bytes(schema)])
        if len(table) == _table_bytes(schema):
            with suppress(errors.TruncatedError):  # bad entries may be longer: read them below
                return _usual_table(table, at, header.minor, schema)
    return _parse_entries(body, at, header.minor, header.tensor_count, schema)


@lru_cache(maxsize=16)
def _table_bytes(schema: Schema) -> int:
    """The length in bytes of a table with the masked and dense tensors of the schema."""
    return sum(ENTRY.size + SCALE.size * tensor.masked for tensor in schema)


@lru_cache(maxsize=16)
def _usual_table(table: bytes, begin: int, minor: int, schema: Schema) -> tuple[tuple[Entry, ...], int]:
    """Parse entries, with a cache: tables of one round are equal unless masks are entropy-coded."""
    return _parse_entries(memoryview(table), 0, minor, len(schema), schema, begin)


def _parse_entries(
    body: memoryview, at: int, minor: int, count: int, schema: Schema | None, begin: int = 0
) -> tuple[tuple[Entry, ...], int]:
    """Parse the entries at `body[at]`; `body[0]` is byte `begin` of the frame."""
    parsed: list[Fields] = []
    for i in range(count):
        tensor = schema.tensors[i] if schema is not None else None
        name = f"tensor {i}" if tensor is None else repr(tensor.name)
        fields, at = _parse_entry(body, at, name, tensor, minor, begin)
        parsed.append(fields)
    needed = max((minor_of(GRID * (kind == "grid"), coding) for kind, *_, coding, _ in parsed), default=0)
    if minor != needed:
        expected = f"{needed}, the first that has the kinds and codings"
        raise errors.MinorError("minor version", expected, minor, 5)
    entries, at = [], begin + at
    for kind, noise, dtype, length, coding, step in parsed:
        entries.append(Entry(kind, noise, dtype, at, length, coding.label, step))
        at += length
    return tuple(entries), at


def _parse_entry(
    body: memoryview, at: int, name: str, tensor: Tensor | None, minor: int, begin: int
) -> tuple[Fields, int]:
    """The fields of an `Entry` except `offset`, and the offset of the next entry in `body`."""
    left = len(body) - at
    scaled = KINDS | {GRID} if minor >= GRID_MINOR else KINDS
    size = ENTRY.size + (SCALE.size if left and body[at] in scaled else 0)
    if left < size:
        raise errors.TruncatedError(f"entry of {name}", f"{size} bytes", f"{left} bytes left", begin + at)
    kind, type_code, coding, reserved, length = ENTRY.unpack_from(body, at)
    masked = kind in KINDS
    if kind != DENSE and kind not in scaled:
        known_kinds = "0 (dense), 1 (binary), 2 (signed)" + ", 3 (grid)" * (minor >= GRID_MINOR)
        raise errors.UnknownKindError(f"kind of {name}", f"one of {known_kinds}", kind, begin + at)
    if tensor is not None and not (tensor.type.is_float if kind == GRID else masked == tensor.masked):
        role = "masked" if tensor.masked else f"dense {tensor.dtype}" if kind == GRID else "dense"
        raise errors.KindMismatchError(
            f"kind of {name}", f"a {role} kind, as in the schema", kind, begin + at
        )
    if not masked:
        _check_dtype(type_code, name, tensor, begin + at + 1, kind == GRID)
    elif type_code not in DISTRIBUTIONS:
        raise errors.UnknownDistributionError(
            f"distribution of {name}", f"1 to {max(DISTRIBUTIONS)}", type_code, begin + at + 1
        )
    known = codings.allowed(kind, None if masked else BY_CODE[type_code].name, minor)
    if coding not in known:
        allowed = f"one of {', '.join(str(int(code)) for code in known)}"
        raise errors.UnknownCodingError(f"coding of {name}", allowed, coding, begin + at + 2)
    if reserved:
        raise errors.ReservedError(f"reserved byte of {name}", "0", reserved, begin + at + 3)
    if tensor is not None:
        least, most = codings.lengths(tensor, coding, kind == GRID)
        if not least <= length <= most:
            most_too = f" to {most}" if most > least else ""
            expected = f"{least}{most_too} for {tensor.size} elements"
            raise errors.PayloadLengthError(f"payload length of {name}", expected, length, begin + at + 4)
    coded = Coding(coding)
    if kind == DENSE:
        return ("dense", None, BY_CODE[type_code].name, length, coded, None), at + size
    (scale,) = SCALE.unpack_from(body, at + ENTRY.size)
    if kind == GRID:
        dtype = BY_CODE[type_code].name
        if not BOUNDS[dtype].allows(scale):
            expected = f"{BOUNDS[dtype]} for {dtype}"
            raise errors.FrameScaleError(f"step of {name}", expected, scale, begin + at + ENTRY.size)
        return ("grid", None, dtype, length, coded, scale), at + size
    distribution = DISTRIBUTIONS[type_code]
    if not distribution.allows(scale):
        raise errors.FrameScaleError(
            f"scale of {name}", distribution.bounds(), scale, begin + at + ENTRY.size
        )
    return (MaskKind(kind).label, distribution(scale), "float32", length, coded, None), at + size


def _check_dtype(code: int, name: str, tensor: Tensor | None, at: int, grid: bool) -> None:
    """Check the dtype of elements or of a grid: [F-18] and [F-19]."""
    known = [c for c, dtype in BY_CODE.items() if dtype.is_float or not grid]
    if code not in known:
        raise errors.UnknownDtypeError(f"dtype of {name}", f"1 to {max(known)}", code, at)
    if tensor is not None and BY_CODE[code].name != tensor.dtype:
        raise errors.DtypeMismatchError(
            f"dtype of {name}", f"{tensor.dtype}, as in the schema", BY_CODE[code].name, at
        )
