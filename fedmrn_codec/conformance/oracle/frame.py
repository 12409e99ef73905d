"""Frames: writing, and reading with every check (spec 6, 7)."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from .checks import Reader, require
from .codings import (
    CODERS,
    HALF_DTYPE,
    IN_BFLOAT16,
    IN_FLOAT16,
    MINOR,
    RANS,
    RANS12,
    RANS14,
    RAW,
    rans12_length,
    rans_length,
    widen,
)
from .elements import (
    DTYPES,
    F32,
    FLOAT32,
    check_elements,
    exact_value,
    f32_bits,
    f32_from_bits,
    round_float,
    words_of,
)
from .grids import (
    GRIDS,
    check_integers,
    grid_values,
    rans14_decode,
    rans14_encode,
    rans14_length,
    step_allowed,
)
from .masks import BINARY, DENSE, GRID, SIGNED, sign_of_bit, unpack
from .noise import SCALES, noise, scale_allowed
from .schema import Schema, Tensor, parse_schema, schema_bytes, schema_digest


class Content(NamedTuple):
    """The content of one tensor in a frame: its payload in raw form, and its encoding (spec 6.4, 6.5).

    The scale is that of the noise, or the step of a grid; only a mask has a distribution.
    """

    payload: bytes
    kind: int = DENSE
    distribution: int = 0
    scale: float = 0.0
    coding: int = RAW


class Options(NamedTuple):
    """The expected values and the limits of a reader; the defaults are the reference's (spec 7.3, 9.2)."""

    round: int | None = None
    base_model: int | None = None
    seed: int | None = None
    max_tensors: int = 65536
    max_schema_bytes: int = 2**24
    max_elements: int = 2**34


class Frame(NamedTuple):
    """The content of a frame (spec 6.1)."""

    seed: int
    base_model: int
    round: int
    schema: Schema
    contents: tuple[Content, ...]


def encode(frame: Frame, embed_schema: bool = False) -> bytes:
    """A frame's bytes; `Refusal` if the contents do not fit the schema or are not finite (spec 6)."""
    raw, digest = schema_bytes(frame.schema), schema_digest(frame.schema)
    numbers = (frame.seed, frame.base_model, frame.round, len(frame.contents))
    frame, payloads = with_codings(frame)
    minor = needed_minor(frame.contents)  # [E-01]
    data = struct.pack("<4sBBHQQII16s", b"FMRN", 1, minor, embed_schema, *numbers, digest)  # spec 6.2
    data += struct.pack("<I", len(raw)) + raw if embed_schema else b""  # spec 6.3
    for tensor, content, wire in zip(frame.schema, frame.contents, payloads, strict=True):  # spec 6.4
        kind_type = tensor.dtype if content.kind in (DENSE, GRID) else content.distribution
        data += struct.pack("<BBBxQ", content.kind, kind_type, content.coding, len(wire))
        data += b"" if content.kind == DENSE else struct.pack("<I", f32_bits(content.scale))
    data += b"".join(payloads)  # spec 6.5
    data += struct.pack("<I", zlib.crc32(data))  # spec 6.6
    no_limits = Options(max_tensors=2**32, max_schema_bytes=2**32, max_elements=2**80)
    if parse(data, frame.schema, no_limits) != frame:  # [E-01], [E-02]: no refused frame is written
        raise ValueError("the frame's bytes decode to another frame")
    return data


def parse(data: bytes, schema: Schema | None = None, options: Options = Options()) -> Frame:  # noqa: B008
    """The content of a frame, with all checks of 7.3 in their order; `Refusal` at the first that fails."""
    reader, size = Reader(data[:-4], 48), len(data)  # without the checksum
    require(size >= 52, "F-01", f"frame, byte 0: expected at least 52 bytes, got {size}")
    magic, major, minor, flags, *numbers, digest = struct.unpack("<4sBBHQQII16s", data[:48])
    seed, base_model, round_number, count = numbers
    require(magic == b"FMRN", "F-02", f"magic, byte 0: got {magic.hex()}")
    require(major == 1 and minor < 4, "F-03", f"version, byte 4: expected 1.0 to 1.3, got {major}.{minor}")
    require(flags < 2, "F-04", f"flags, byte 6: got {flags:#06x}")
    most = options.max_tensors
    require(count <= most, "F-05", f"tensor_count: expected at most {most}, got {count}")
    if flags & 1:
        length = reader.uint(4, "F-06", "schema length")
        require(length <= options.max_schema_bytes, "F-07", f"schema: {length} bytes at byte 48")
        raw = reader.take(length, "F-08", "schema")
        embedded = parse_schema(raw, most)  # [S-01] to [S-06], [S-09]
        total = sum(tensor.elements for tensor in embedded)
        most = options.max_elements
        require(total <= most, "S-07", f"elements: expected at most {most}, got {total}")
        require(hashlib.sha256(raw).digest()[:16] == digest, "S-08", "digest of the embedded schema")
    require(bool(flags & 1) or schema is not None, "F-09", "neither the frame nor the caller has a schema")
    require(schema is None or schema_digest(schema) == digest, "F-10", f"digest, byte 32: got {digest.hex()}")
    known = embedded if schema is None else schema
    require(count == len(known), "F-11", f"tensor_count: expected {len(known)}, got {count}")
    require(options.round in (None, round_number), "F-12", f"expected {options.round}, got {round_number}")
    require(options.base_model in (None, base_model), "F-13", f"expected another, got {base_model}")
    require(options.seed in (None, seed), "F-14", f"expected {options.seed}, got {seed}")
    entries = [_entry(reader, tensor, minor) for tensor in known]
    needed = needed_minor([entry for entry, _ in entries])
    require(minor == needed, "F-31", f"minor {minor}, of kinds and codings that need {needed}")
    end = reader.at + sum(length for _, length in entries) + 4
    require(size >= end, "F-25", f"frame: expected {end} bytes, got {size}")
    require(size <= end, "F-26", f"frame: expected {end} bytes, got {size}")
    crc = struct.pack("<I", zlib.crc32(data[:-4]))
    require(crc == data[-4:], "F-27", f"checksum: expected {crc.hex()}, got {data[-4:].hex()}")
    contents = []
    for stream, (tensor, (entry, length)) in enumerate(zip(known, entries, strict=True)):
        wire = reader.take(length, "F-25", "payload")
        if entry.coding in CODERS:
            # [C-01] to [C-04], [C-05] to [C-09]
            payload = CODERS[entry.coding][1](wire, entry.distribution, seed, stream, tensor.elements)
        elif entry.kind == GRID:
            coded = entry.coding == RANS14  # [C-10] to [C-14]
            payload = rans14_decode(wire, tensor.elements) if coded else wire
            check_integers(payload, tensor.dtype)  # [F-32]
        elif entry.kind != DENSE:
            payload = wire
            unpack(payload, tensor.elements)  # [F-28]
        else:
            payload = widen(wire, entry.coding)
            check_elements(payload, tensor.dtype)
        contents.append(entry._replace(payload=payload))
    return Frame(seed, base_model, round_number, known, tuple(contents))


def needed_minor(contents: Sequence[Content]) -> int:
    """The minor version of a frame with these kinds and codings (spec 6.2)."""
    return max((3 if content.kind == GRID else MINOR[content.coding] for content in contents), default=0)


def raw_length(tensor: Tensor, kind: int) -> int:
    """The bytes of a payload in coding 0 (spec 6.4)."""
    return 4 * tensor.elements if kind == GRID else tensor.payload_length


# The least length of an entropy-coded payload (spec 6.4)
LEAST = {RANS: rans_length, RANS12: rans12_length, RANS14: rans14_length}


def _entry(reader: Reader, tensor: Tensor, minor: int) -> tuple[Content, int]:
    """A table entry, [F-15] to [F-24] checked, and the length of its payload (spec 6.4)."""
    at = f"table entry at byte {reader.at} ({tensor.name!r})"
    kind, kind_type, coding, reserved, length = struct.unpack("<BBBBQ", reader.take(12, "F-15", "entry"))
    kinds = {DENSE, BINARY, SIGNED, GRID} if minor >= 3 else {DENSE, BINARY, SIGNED}
    scale = reader.uint(4, "F-15", "scale") if kind in kinds - {DENSE} else 0
    require(kind in kinds, "F-16", f"{at}: kind {kind}")
    fitting = {BINARY, SIGNED} if tensor.masked else {DENSE}
    fitting |= {GRID} if tensor.dtype in GRIDS else set()
    require(kind in fitting, "F-17", f"{at}: kind {kind}")
    mask = kind in (BINARY, SIGNED)
    dtypes = set(GRIDS) if kind == GRID else set(DTYPES)
    require(mask or kind_type in dtypes, "F-18", f"{at}: type {kind_type}")
    require(mask or kind_type == tensor.dtype, "F-19", f"{at}: type {kind_type}")
    require(not mask or kind_type in SCALES, "F-20", f"{at}: type {kind_type}")
    known = {RAW} | ({RANS, RANS12} if mask else {RANS14} if kind == GRID else {IN_FLOAT16, IN_BFLOAT16})
    known = {coding for coding in known if MINOR[coding] <= minor}
    of_dtype = coding == RAW or kind != DENSE or tensor.dtype == FLOAT32
    require(coding in known and of_dtype, "F-21", f"{at}: coding {coding}")
    require(reserved == 0, "F-22", f"{at}: reserved {reserved}")
    raw = raw_length(tensor, kind)
    if coding in LEAST:
        fits = LEAST[coding](tensor.elements) <= length < raw
    else:
        fits = length == raw // (1 if coding == RAW else 2)
    require(fits, "F-23", f"{at}: {length}, raw {raw}")
    allowed = step_allowed if kind == GRID else scale_allowed
    require(kind == DENSE or allowed(kind_type, scale), "F-24", f"{at}: scale bits {scale:#010x}")
    distribution = kind_type if mask else 0
    return Content(b"", kind, distribution, f32_from_bits(scale), coding), length


def with_codings(frame: Frame) -> tuple[Frame, list[bytes]]:
    """The frame as a reader decodes it (rounded by 6.9, raw if that is not longer), and its payloads."""
    contents, payloads = [], []
    for stream, (tensor, content) in enumerate(zip(frame.schema, frame.contents, strict=True)):
        wire = content.payload
        if len(wire) != raw_length(tensor, content.kind):
            pass  # a reader refuses it, and `encode` lets one check it
        elif content.coding in LEAST:
            if content.coding == RANS14:
                check_integers(wire, FLOAT32)
                wire = rans14_encode(wire) if wire else wire
            else:
                encoder = CODERS[content.coding][0]
                wire = encoder(content.payload, content.distribution, frame.seed, stream, tensor.elements)
            if len(wire) >= len(content.payload):
                content, wire = content._replace(coding=RAW), content.payload
        elif content.coding != RAW:
            check_elements(wire, FLOAT32)
            content, wire = narrow(content)
        contents.append(content)
        payloads.append(wire)
    return frame._replace(contents=tuple(contents)), payloads


def narrow(content: Content) -> tuple[Content, bytes]:
    """Float32 elements rounded to 16 bits: the content as a reader decodes it, and the payload (spec 6.9)."""
    half = DTYPES[HALF_DTYPE[content.coding]]
    values = [exact_value(word, F32) for word in words_of(content.payload, FLOAT32)]
    signs = [word & 2**31 for word in words_of(content.payload, FLOAT32)]  # a fraction cannot be -0
    words = [round_float(x, half) | sign >> 16 for x, sign in zip(values, signs, strict=True)]
    wire = struct.pack(f"<{len(words)}H", *words)
    return content._replace(payload=widen(wire, content.coding)), wire


def decode_content(content: Content, tensor: Tensor, seed: int, stream: int) -> bytes:
    """A tensor's update, little-endian: f32 if masked, else in its dtype (spec 4.2, 6.5, 6.12)."""
    if content.kind == GRID:
        return grid_values(content.payload, content.scale, tensor.dtype)
    return decode_mask(content, seed, stream, tensor.elements) if tensor.masked else content.payload


def decode_mask(content: Content, seed: int, stream: int, n: int) -> bytes:
    """A masked tensor's update, n little-endian f32 (spec 4.2)."""
    words = []
    for i, bit in enumerate(unpack(content.payload, n)):
        m = sign_of_bit(content.kind, bit)
        word = f32_bits(noise(content.distribution, content.scale, seed, stream, i))
        words.append(
            word ^ (m < 0) << 31 if m else 0
        )  # a dropped element is +0.0; negation flips the sign bit
    return struct.pack(f"<{n}I", *words)


def decode(data: bytes, schema: Schema | None = None, options: Options = Options()) -> list[bytes]:  # noqa: B008
    """The update of each tensor, little-endian: f32 if masked, else in its dtype (spec 4.2, 6, 7)."""
    frame = parse(data, schema, options)
    pairs = enumerate(zip(frame.schema, frame.contents, strict=True))
    return [decode_content(content, tensor, frame.seed, stream) for stream, (tensor, content) in pairs]
