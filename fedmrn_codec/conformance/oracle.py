"""The format in plain integers: slow and simple, and independent of the rest of the package.

It follows `spec/FORMAT.md` section by section; the vectors in `spec/vectors` are made with it. Floats are bit
patterns and exact fractions, rounded only by `round_float`. Floating-point arithmetic is used in 8.2 alone,
where the specification demands IEEE doubles, which Python's floats are.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import re
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

UNIFORM, GAUSSIAN, BERNOULLI = 1, 2, 3  # spec 3.1
DENSE, BINARY, SIGNED = 0, 1, 2  # spec 4.2, 6.4
FLOAT32, BOOL = 1, 13  # spec 5.3
MAX_WEIGHT = 2**39 - 1  # spec 8.1
DIGIT = 2**24  # spec 8.4
TABLE_SHA256 = "dd66b5cfd76836da9b554bd89e3ccd03b8e70a5a015b51e5d4ca9a2b4963deb9"  # spec 3.4
STEP_SHIFT = {UNIFORM: 24, GAUSSIAN: 21, BERNOULLI: 0}  # spec 3.1
# spec 3.5, as bit patterns: positive floats are ordered as their patterns, infinity and NaN above all.
SCALES = {
    UNIFORM: ((127 - 102) << 23, 0x7F7FFFFF),
    GAUSSIAN: ((127 - 105) << 23, (127 + 125) << 23),
    BERNOULLI: ((127 - 126) << 23, 0x7F7FFFFF),
}
RAW, RANS, IN_FLOAT16, IN_BFLOAT16, RANS12 = 0, 1, 2, 3, 4  # spec 6.5
MINOR = {RAW: 0, RANS: 1, IN_FLOAT16: 1, IN_BFLOAT16: 1, RANS12: 2}  # spec 6.2: the first with the coding
HALF_DTYPE = {IN_FLOAT16: 3, IN_BFLOAT16: 4}  # spec 6.9, 5.3
LARGEST_DRAW = {UNIFORM: 2**24 - 1, GAUSSIAN: 13291661, BERNOULLI: 1}  # spec 3.2 to 3.4
# spec 7.3, 8.1, 8.5
_CODES = """
F-01 truncated F-02 magic F-03 version F-04 reserved F-05 limit F-06 truncated F-07 limit F-08 truncated
S-01 schema_length S-02 schema_name S-03 unknown_role S-04 unknown_dtype S-05 masked_dtype S-06 schema_shape
S-09 limit S-07 limit S-08 schema_digest F-09 no_schema F-10 schema_mismatch F-11 tensor_count F-12 round
F-13 base_model F-14 seed F-15 truncated F-16 unknown_kind F-17 kind_mismatch F-18 unknown_dtype
F-19 dtype_mismatch F-20 unknown_distribution F-21 unknown_coding F-22 reserved F-23 payload_length F-24 scale
F-25 truncated F-31 minor F-26 trailing F-27 checksum F-28 padding F-29 non_finite F-30 bool
C-01 coding C-02 coding C-03 coding C-04 coding
C-05 coding C-06 coding C-07 coding C-08 coding C-09 coding
P-01 truncated P-02 magic P-03 version P-04 reserved P-05 weight P-06 frames P-07 schema_mismatch
P-08 tensor_count P-09 unknown_distribution P-10 reserved P-11 scale P-12 rows P-13 trailing P-14 checksum
P-15 sums A-01 aggregate A-02 aggregate A-06 aggregate A-07 sums
"""
CODES = dict(line.split(" ") for line in re.findall(r"\S+ \S+", _CODES))


class Refusal(ValueError):
    """A failed check: the format's code, the number of the MUST, and a detail."""

    def __init__(self, number: str, detail: str) -> None:
        self.code, self.number, self.detail = CODES[number], number, detail
        super().__init__(f"{self.code} [{number}]: {detail}")


def require(condition: bool, number: str, detail: str) -> None:
    """Raise `Refusal` unless the condition holds."""
    if not condition:
        raise Refusal(number, detail)


class Reader:
    """Reads bytes from the front; missing bytes are refused with the number of a MUST."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, size: int, number: str, what: str) -> bytes:
        """The next `size` bytes."""
        left = len(self.data) - self.at
        require(size <= left, number, f"{what}, byte {self.at}: expected {size} bytes, got {left}")
        self.at += size
        return self.data[self.at - size : self.at]

    def uint(self, size: int, number: str, what: str) -> int:
        """The next `size` bytes as an unsigned integer (spec 1.2)."""
        return int.from_bytes(self.take(size, number, what), "little")


class Dtype(NamedTuple):
    """A type of elements (spec 5.3); `fraction` and `exponent` are the bits of a float's fields."""

    name: str
    size: int
    limbs: int  # spec 8.5
    signed: bool = True
    fraction: int = 0
    exponent: int = 0

    @property
    def quantum(self) -> Fraction:
        """The least positive value (spec 8.4)."""
        return Fraction(1, 1 << ((1 << (self.exponent - 1)) - 2 + self.fraction) if self.fraction else 1)


F32 = Dtype("float32", 4, 12, True, 23, 8)
DTYPES = {  # spec 5.3
    FLOAT32: F32,
    2: Dtype("float64", 8, 88, True, 52, 11),
    3: Dtype("float16", 2, 2, True, 10, 5),
    4: Dtype("bfloat16", 2, 11, True, 7, 8),
    **{5 + k: Dtype(f"int{8 << k}", 1 << k, limbs) for k, limbs in enumerate((1, 1, 2, 3))},
    **{9 + k: Dtype(f"uint{8 << k}", 1 << k, limbs, False) for k, limbs in enumerate((1, 1, 2, 3))},
    BOOL: Dtype("bool", 1, 1, False),
}


# Numbers (spec 1.4)


def is_finite(word: int, dtype: Dtype) -> bool:
    """Whether a float's bit pattern is neither an infinity nor a NaN; True for integers."""
    ones = (1 << dtype.exponent) - 1
    return not dtype.fraction or (word >> dtype.fraction) & ones != ones


def exact_value(word: int, dtype: Dtype) -> Fraction:
    """The exact value of a finite element, given as the unsigned integer of its bytes (spec 5.3)."""
    sign = dtype.signed and word >> (8 * dtype.size - 1)
    if not dtype.fraction:
        return Fraction(word - (1 << 8 * dtype.size) if sign else word)
    field, fraction = (word >> dtype.fraction) % (1 << dtype.exponent), word % (1 << dtype.fraction)
    magnitude = fraction if field == 0 else ((1 << dtype.fraction) + fraction) << (field - 1)
    return (-magnitude if sign else magnitude) * dtype.quantum


def round_float(x: Fraction, dtype: Dtype) -> int:
    """The bit pattern of x rounded once, to nearest, ties to even; 0 gives +0.0, overflow an infinity."""
    units = abs(x) / dtype.quantum
    shift = max(math.floor(units).bit_length() - dtype.fraction - 1, 0)  # dropped bits above the quantum
    # A normal number's hidden bit carries into the exponent field; so does rounding up to a power of two.
    word = (shift << dtype.fraction) + round(units / (1 << shift))  # round() takes a Fraction's ties to even
    word = min(word, ((1 << dtype.exponent) - 1) << dtype.fraction)
    return word | (x < 0) << (8 * dtype.size - 1)


def f32_from_bits(bits: int) -> float:
    """The f32 with this bit pattern, as a Python float, which holds every f32 exactly."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def f32_bits(x: float) -> int:
    """The bit pattern of a Python float that is exactly an f32; `ValueError` if it is not."""
    bits = int.from_bytes(struct.pack("<f", x), "little")
    if math.isfinite(x) and f32_from_bits(bits) != x:
        raise ValueError(f"{x!r} is not an f32")
    return bits


def f32_round(x: Fraction) -> float:
    """An exact fraction rounded to f32: an infinity beyond its range."""
    return f32_from_bits(round_float(x, F32))


# 2 Random words


def philox_block(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 of four counter words and two key words (spec 2.3)."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for r in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        a, b = (k0 + r * 0x9E3779B9) % 2**32, (k1 + r * 0xBB67AE85) % 2**32
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ a, p1 % 2**32, (p0 >> 32) ^ c3 ^ b, p0 % 2**32
    return c0, c1, c2, c3


@functools.lru_cache(2**12)  # the words of a block are read one after the other, and repeatedly
def _block(seed: int, stream: int, b: int) -> tuple[int, int, int, int]:
    counter = (b % 2**32, b >> 32, stream % 2**32, stream >> 32)
    return philox_block(counter, (seed % 2**32, seed >> 32))


def philox_word(seed: int, stream: int, j: int) -> int:
    """Word j of a stream, a u32 (spec 2.1, 2.2)."""
    return _block(seed, stream, j // 4)[j % 4]


# 3 Noise


@functools.cache
def gaussian_table() -> tuple[int, ...]:
    """The quantile table T, its digest checked (spec 3.4)."""
    data = (Path(__file__).parents[1] / "primitives" / "data" / "gaussian.bin").read_bytes()
    if hashlib.sha256(data).hexdigest() != TABLE_SHA256:
        raise ValueError("gaussian.bin does not have the digest of the format's table")
    return struct.unpack("<2049I", data)


def draw_of_word(distribution: int, w: int, i: int) -> int:
    """The draw q(i) made from its word (spec 3.2, 3.3, 3.4)."""
    if distribution == UNIFORM:  # spec 3.2
        return 2 * (w >> 8) - (2**24 - 1)
    if distribution == BERNOULLI:  # spec 3.3
        return 1 if w >> (i % 32) & 1 else -1
    table, x = gaussian_table(), 2 * (w % 2**31) + 1  # spec 3.4
    j = x.bit_length() - 1
    m = x << (31 - j)
    s, f = (m >> 25) % 64, (m >> 9) % 2**16
    k = 64 * j + s
    g = table[k] - (((table[k] - table[k + 1]) * f + 2**15) >> 16)
    return -max(g, 1) if w >> 31 else max(g, 1)


def draw(distribution: int, seed: int, stream: int, i: int) -> int:
    """The integer draw q(i) (spec 3.1)."""
    j = i // 32 if distribution == BERNOULLI else i
    return draw_of_word(distribution, philox_word(seed, stream, j), i)


def step(distribution: int, scale: float) -> Fraction:
    """What a draw is multiplied by, an f32 for every allowed scale (spec 3.1)."""
    return Fraction(scale) / (1 << STEP_SHIFT[distribution])


def scale_allowed(distribution: int, scale_bits: int) -> bool:
    """Whether a bit pattern is a scale that [N-03] allows (spec 3.5)."""
    least, largest = SCALES[distribution]
    return least <= scale_bits <= largest


def noise(distribution: int, scale: float, seed: int, stream: int, i: int) -> float:
    """noise(i) as a Python float that is exactly the f32 (spec 3.1)."""
    return f32_round(draw(distribution, seed, stream, i) * step(distribution, scale))


# 4 Masks


def pack(bits: Sequence[int]) -> bytes:
    """Mask bits to bytes (spec 4.1)."""
    return bytes(sum(bit << k for k, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


def unpack(packed: bytes, n: int) -> list[int]:
    """The n bits of a mask, its padding checked (spec 4.1, [M-01])."""
    bits = [packed[i // 8] >> (i % 8) & 1 for i in range(8 * len(packed))]
    require(not any(bits[n:]), "F-28", f"padding of {n} elements: got last byte {packed[-1:].hex()}")
    return bits[:n]


def sign_of_bit(kind: int, bit: int) -> int:
    """m(i): 1 keeps the noise, 0 drops it, -1 negates it (spec 4.2, 8.2)."""
    return 1 if bit else (0 if kind == BINARY else -1)


def sample_bit(kind: int, u: float, noise_value: float, r: int) -> int:
    """The mask bit of a finite update u, a noise value, both f32, and 0 <= r < 2^24 (spec 4.3).

    Every operation is made exact with fractions and then rounded once to f32: no double rounding, and
    subnormal numbers are kept. An infinite p stays infinite, so its sign decides. The sign of a zero, which a
    fraction does not keep, does not matter: r < t is false for either zero.
    """
    p = f32_round(Fraction(u) / Fraction(noise_value))
    if math.isinf(p):
        return int(p > 0)
    if kind == BINARY:
        t = f32_round(Fraction(p) * 2**24)
    else:
        t = f32_round(Fraction(f32_round(Fraction(p) + 1)) * 2**23)
    return int(r < t)  # Python compares an int with a float exactly


# 5 Schema


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
        """The bytes of its payload (spec 6.4)."""
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


# 6 Frame, 7 Checks


class Content(NamedTuple):
    """The content of one tensor in a frame: its payload in raw form, and its encoding (spec 6.4, 6.5)."""

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
    minor = max((MINOR[content.coding] for content in frame.contents), default=0)  # [E-01]
    data = struct.pack("<4sBBHQQII16s", b"FMRN", 1, minor, embed_schema, *numbers, digest)  # spec 6.2
    data += struct.pack("<I", len(raw)) + raw if embed_schema else b""  # spec 6.3
    for tensor, content, wire in zip(frame.schema, frame.contents, payloads, strict=True):  # spec 6.4
        dense = content.kind == DENSE
        kind_type = tensor.dtype if dense else content.distribution
        data += struct.pack("<BBBxQ", content.kind, kind_type, content.coding, len(wire))
        data += b"" if dense else struct.pack("<I", f32_bits(content.scale))
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
    require(major == 1 and minor < 3, "F-03", f"version, byte 4: expected 1.0 to 1.2, got {major}.{minor}")
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
    needed = max((MINOR[entry.coding] for entry, _ in entries), default=0)
    require(minor == needed, "F-31", f"minor {minor}, of codings that need {needed}")
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
        elif tensor.masked:
            payload = wire
            unpack(payload, tensor.elements)  # [F-28]
        else:
            payload = widen(wire, entry.coding)
            _check_elements(payload, tensor.dtype)
        contents.append(entry._replace(payload=payload))
    return Frame(seed, base_model, round_number, known, tuple(contents))


def _entry(reader: Reader, tensor: Tensor, minor: int) -> tuple[Content, int]:
    """A table entry, [F-15] to [F-24] checked, and the length of its payload (spec 6.4)."""
    at = f"table entry at byte {reader.at} ({tensor.name!r})"
    kind, kind_type, coding, reserved, length = struct.unpack("<BBBBQ", reader.take(12, "F-15", "entry"))
    scale = reader.uint(4, "F-15", "scale") if kind in (BINARY, SIGNED) else 0
    require(kind in (DENSE, BINARY, SIGNED), "F-16", f"{at}: kind {kind}")
    require((kind != DENSE) == tensor.masked, "F-17", f"{at}: kind {kind}")
    require(kind != DENSE or kind_type in DTYPES, "F-18", f"{at}: type {kind_type}")
    require(kind != DENSE or kind_type == tensor.dtype, "F-19", f"{at}: type {kind_type}")
    require(kind == DENSE or kind_type in SCALES, "F-20", f"{at}: type {kind_type}")
    known = {RAW, RANS, RANS12} if tensor.masked else {RAW, IN_FLOAT16, IN_BFLOAT16}
    known = {coding for coding in known if MINOR[coding] <= minor}
    require(coding in known and (coding == RAW or tensor.dtype == FLOAT32), "F-21", f"{at}: coding {coding}")
    require(reserved == 0, "F-22", f"{at}: reserved {reserved}")
    if coding in CODERS:
        least = rans_length if coding == RANS else rans12_length
        fits = least(tensor.elements) <= length < tensor.payload_length
    else:
        fits = length == tensor.payload_length // (1 if coding == RAW else 2)
    require(fits, "F-23", f"{at}: {length}, raw {tensor.payload_length}")
    require(kind == DENSE or scale_allowed(kind_type, scale), "F-24", f"{at}: scale bits {scale:#010x}")
    distribution = 0 if kind == DENSE else kind_type
    return Content(b"", kind, distribution, f32_from_bits(scale), coding), length


def words_of(payload: bytes, dtype: int) -> list[int]:
    """The elements of a dense payload as the unsigned integers of their bytes (spec 1.2, 6.5)."""
    size = DTYPES[dtype].size
    return [int.from_bytes(payload[at : at + size], "little") for at in range(0, len(payload), size)]


def _check_elements(payload: bytes, dtype: int) -> None:
    for i, word in enumerate(words_of(payload, dtype)):
        require(is_finite(word, DTYPES[dtype]), "F-29", f"element {i}: {word:#x}")
        require(dtype != BOOL or word <= 1, "F-30", f"element {i}: expected 0 or 1, got {word}")


# 6.8 to 6.11 Codings


def with_codings(frame: Frame) -> tuple[Frame, list[bytes]]:
    """The frame as a reader decodes it (rounded by 6.9, raw if that is not longer), and its payloads."""
    contents, payloads = [], []
    for stream, (tensor, content) in enumerate(zip(frame.schema, frame.contents, strict=True)):
        wire = content.payload
        if len(wire) != tensor.payload_length:
            pass  # a reader refuses it, and `encode` lets one check it
        elif content.coding in CODERS:
            encoder = CODERS[content.coding][0]
            wire = encoder(content.payload, content.distribution, frame.seed, stream, tensor.elements)
            if len(wire) >= len(content.payload):
                content, wire = content._replace(coding=RAW), content.payload
        elif content.coding != RAW:
            _check_elements(wire, FLOAT32)
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


def widen(wire: bytes, coding: int) -> bytes:
    """Dense elements from their payload: 16 bits to the f32 of the same value (spec 6.9)."""
    if coding == RAW:
        return wire
    half, out = DTYPES[HALF_DTYPE[coding]], b""
    for word in words_of(wire, HALF_DTYPE[coding]):
        require(is_finite(word, half), "F-29", f"{word:#x}")
        bits = round_float(exact_value(word, half), F32) | (word & 2**15) << 16
        out += struct.pack("<I", bits)
    return out


def rans_length(n: int, words: int = 0) -> int:
    """The length of an entropy-coded mask of n elements with this number of words (spec 6.8)."""
    return 16 + 34 * ((n + 65535) // 65536) + 2 * words


def bucket(distribution: int, q: int) -> int:
    """The bucket of a draw (spec 6.8)."""
    return min(abs(q) >> (19 if distribution == GAUSSIAN else 20), 15)


def probabilities(buckets: Sequence[int], bits: Sequence[int]) -> list[int]:
    """P(0) to P(15) (spec 6.8)."""
    out = []
    for c in range(16):
        its = [bit for k, bit in zip(buckets, bits, strict=True) if k == c]
        p = (512 * sum(its) + len(its)) // (2 * len(its)) if its else 128
        out.append(min(max(p, 1), 255))
    return out


def entropy_encode(
    payload: bytes, distribution: int, seed: int, stream: int, n: int, forged: Sequence[int] | None = None
) -> bytes:
    """A packed mask, entropy-coded (spec 6.8); with forged probabilities it is invalid."""
    buckets = [bucket(distribution, draw(distribution, seed, stream, i)) for i in range(n)]
    bits = unpack(payload, n)
    table = probabilities(buckets, bits) if forged is None else forged
    counts, blocks = b"", b""
    for begin in range(0, n, 65536):
        states, words = [2**16] * 8, b""
        for i in reversed(range(begin, min(begin + 65536, n))):
            x, p = states[i % 8], table[buckets[i]]
            f = p if bits[i] else 256 - p
            if x >= f << 24:
                words, x = struct.pack("<H", x % 2**16) + words, x >> 16
            states[i % 8] = (x // f << 8) + x % f + (0 if bits[i] else p)
        counts += struct.pack("<H", len(words) // 2)
        blocks += struct.pack("<8I", *states) + words
    return bytes(table) + counts + blocks


def entropy_decode(wire: bytes, distribution: int, seed: int, stream: int, n: int) -> bytes:
    """A packed mask from its entropy-coded payload, with the checks [C-01] to [C-04] (spec 6.8)."""
    blocks = (n + 65535) // 65536
    table, counts = wire[:16], struct.unpack(f"<{blocks}H", wire[16 : 16 + 2 * blocks])
    require(rans_length(n, sum(counts)) == len(wire), "C-01", f"{len(wire)} bytes, counts {counts}")
    at, read = 16 + 2 * blocks, []
    for count in counts:
        read.append(struct.unpack(f"<8I{count}H", wire[at : at + 32 + 2 * count]))
        at += 32 + 2 * count
    for b, numbers in enumerate(read):
        require(min(numbers[:8]) >= 2**16, "C-02", f"block {b}: states {numbers[:8]}")
    buckets, bits = [], []
    for b, numbers in enumerate(read):
        states, words = list(numbers[:8]), list(numbers[8:])
        for i in range(65536 * b, min(65536 * (b + 1), n)):
            buckets.append(bucket(distribution, draw(distribution, seed, stream, i)))
            x, p = states[i % 8], table[buckets[-1]]
            s = x % 256
            bits.append(int(s < p))
            x = p * (x >> 8) + s if s < p else (256 - p) * (x >> 8) + s - p
            if x < 2**16:
                require(bool(words), "C-03", f"block {b}: its words end at element {i}")
                x = (x << 16) + words.pop(0)
            states[i % 8] = x
        require(not words and states == [2**16] * 8, "C-03", f"block {b}: {len(words)} words left, {states}")
    require(probabilities(buckets, bits) == list(table), "C-04", f"P: {table.hex()}")
    return pack(bits)


def rans12_length(n: int) -> int:
    """The least length of a mask of n elements in coding 4 (spec 6.4)."""
    return 6 * ((n + 65535) // 65536) - 1


def range_encode(symbols: Sequence[tuple[int, int]]) -> tuple[int, list[int]]:
    """The state and the words of the symbols' starts and frequencies (spec 6.10)."""
    x, words = 2**16, []
    for start, f in reversed(symbols):
        if x >= f << 20:
            words.append(x % 2**16)
            x >>= 16
        x = (x // f << 12) + x % f + start
    return x, words[::-1]


class RangeDecoder:
    """The decoder of one block (spec 6.10)."""

    def __init__(self, state: int, words: Sequence[int]) -> None:
        self.x, self.words, self.read = state, words, 0

    @property
    def low(self) -> int:
        """The number that identifies the next symbol: start <= low < start + frequency."""
        return self.x % 4096

    def advance(self, start: int, f: int, what: str) -> None:
        """Go to the next symbol, [C-08]."""
        self.x = f * (self.x >> 12) + self.low - start
        if self.x < 2**16:
            require(self.read < len(self.words), "C-08", f"{what}: no word is left")
            self.x, self.read = (self.x << 16) + self.words[self.read], self.read + 1

    def end(self, what: str) -> None:
        """Check the end of the block, [C-08]."""
        done = self.x == 2**16 and self.read == len(self.words)
        require(done, "C-08", f"{what}: state {self.x}, {len(self.words) - self.read} words left")


def frequency(k: int) -> int:
    """v(k), the frequency of a set bit, of 4096 (spec 6.11)."""
    if k > 39:
        return 4096 - frequency(78 - k)
    return k + 1 if k < 3 else (4 + (k + 1) % 4) << ((k + 1) // 4 - 1)


def classes(distribution: int) -> int:
    """The number of buckets in coding 4: |q| of Bernoulli noise is always 1 (spec 6.11)."""
    return 1 if distribution == BERNOULLI else 16


def indices(buckets: Sequence[int], bits: Sequence[int], distribution: int) -> list[int]:
    """k(0), k(1), ... (spec 6.11)."""
    out, last = [], 39
    for c in range(classes(distribution)):
        its = [bit for k, bit in zip(buckets, bits, strict=True) if k == c]
        if its:
            middles = [frequency(j - 1) + frequency(j) for j in range(1, 79)]
            last = sum(8192 * sum(its) >= middle * len(its) for middle in middles)
        out.append(last)
    return out


def put_indices(table: Sequence[int]) -> bytes:
    """k(0) as a byte, the differences of the others in bits (spec 6.11)."""
    bits: list[int] = []
    for before, k in itertools.pairwise(table):
        less = k < before
        bits += [int(less), *[0] * (before - k - 1 if less else k - before), 1]
    return bytes([table[0]]) + pack(bits)


def take_indices(wire: bytes, distribution: int) -> tuple[list[int], int]:
    """k(0), k(1), ..., and the number of bytes that they take, [C-05] (spec 6.11)."""
    table, at = [wire[0]], 8
    require(wire[0] <= 78, "C-05", f"k(0) is {wire[0]}")

    def bit() -> int:
        nonlocal at
        require(at < 8 * len(wire), "C-05", f"the bits end at k({len(table)})")
        at += 1
        return wire[(at - 1) // 8] >> (at - 1) % 8 & 1

    while len(table) < classes(distribution):
        less, size = bit(), 0
        while not bit():
            size += 1
        table.append(table[-1] - size - 1 if less else table[-1] + size)
        require(0 <= table[-1] <= 78, "C-05", f"k({len(table) - 1}) is {table[-1]}")
    size = (at + 7) // 8
    require(at % 8 == 0 or wire[size - 1] >> at % 8 == 0, "C-05", f"padding in {wire[size - 1]:#04x}")
    return table, size


def rans12_encode(
    payload: bytes, distribution: int, seed: int, stream: int, n: int, forged: Sequence[int] | None = None
) -> bytes:
    """A packed mask in coding 4 (spec 6.11); with forged k(0), k(1), ... it is invalid."""
    buckets = [bucket(distribution, draw(distribution, seed, stream, i)) for i in range(n)]
    bits = unpack(payload, n)
    table = indices(buckets, bits, distribution) if forged is None else forged
    p = [frequency(k) for k in table]
    symbols = [(0, p[c]) if bit else (p[c], 4096 - p[c]) for c, bit in zip(buckets, bits, strict=True)]
    coded = [range_encode(symbols[begin : begin + 65536]) for begin in range(0, n, 65536)]
    wire = put_indices(table) + b"".join(struct.pack("<H", len(words)) for _, words in coded[:-1])
    return wire + b"".join(struct.pack(f"<I{len(words)}H", x, *words) for x, words in coded)


def rans12_decode(wire: bytes, distribution: int, seed: int, stream: int, n: int) -> bytes:
    """A packed mask from its payload in coding 4, with the checks [C-05] to [C-09] (spec 6.11)."""
    blocks = (n + 65535) // 65536
    table, at = take_indices(wire[: len(wire) - 6 * blocks + 2], distribution)
    counts = list(struct.unpack_from(f"<{blocks - 1}H", wire, at))
    left = len(wire) - at - 6 * blocks + 2 - 2 * sum(counts)
    require(left % 2 == 0 and 0 <= left <= 2 * 65535, "C-06", f"{left} bytes for the words of the last block")
    counts.append(left // 2)
    at, read = at + 2 * (blocks - 1), []
    for count in counts:
        read.append(struct.unpack_from(f"<I{count}H", wire, at))
        at += 4 + 2 * count
    for b, numbers in enumerate(read):
        require(numbers[0] >= 2**16, "C-07", f"block {b}: state {numbers[0]}")
    p, buckets, bits = [frequency(k) for k in table], [], []
    for b, numbers in enumerate(read):
        decoder = RangeDecoder(numbers[0], numbers[1:])
        for i in range(65536 * b, min(65536 * (b + 1), n)):
            buckets.append(bucket(distribution, draw(distribution, seed, stream, i)))
            f = p[buckets[-1]]
            bits.append(int(decoder.low < f))
            decoder.advance(*((0, f) if bits[-1] else (f, 4096 - f)), f"block {b}, element {i}")
        decoder.end(f"block {b}")
    require(indices(buckets, bits, distribution) == table, "C-09", f"k: {table}")
    return pack(bits)


CODERS = {RANS: (entropy_encode, entropy_decode), RANS12: (rans12_encode, rans12_decode)}


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
    return [
        decode_mask(content, frame.seed, stream, tensor.elements) if tensor.masked else content.payload
        for stream, (tensor, content) in pairs
    ]


# 8 Aggregation


class Sums(NamedTuple):
    """The sums of one tensor: one row of S(i) if masked (8.2), a row for each limb if dense (8.4)."""

    rows: tuple[tuple[int, ...], ...]
    distribution: int = 0
    scale: float = 0.0


class PartialSum(NamedTuple):
    """The sums of an aggregator (spec 8.5)."""

    schema: Schema
    weight: int
    frames: int
    base_model: int
    round: int
    tensors: tuple[Sums, ...]


def sum_frame(frame: Frame, weight: int, base_model: int = 0, round: int = 0) -> PartialSum:
    """The partial sum of one frame; the base model and round that were checked, or 0 (spec 8.1 to 8.5)."""
    require(1 <= weight <= MAX_WEIGHT, "A-01", f"weight: expected 1 to 2^39 - 1, got {weight}")
    tensors = []
    for stream, (tensor, content) in enumerate(zip(frame.schema, frame.contents, strict=True)):
        if tensor.masked:  # spec 8.2
            m = [sign_of_bit(content.kind, bit) for bit in unpack(content.payload, tensor.elements)]
            q = [draw(content.distribution, frame.seed, stream, i) for i in range(tensor.elements)]
            row = tuple(weight * q[i] * m[i] for i in range(tensor.elements))
            tensors.append(Sums((row,), content.distribution, content.scale))
        else:  # spec 8.4
            kind = DTYPES[tensor.dtype]
            x = [int(exact_value(w, kind) / kind.quantum) for w in words_of(content.payload, tensor.dtype)]
            signed = [(-weight if v < 0 else weight, abs(v)) for v in x]
            limbs = (tuple(sw * (v // DIGIT**limb % DIGIT) for sw, v in signed) for limb in range(kind.limbs))
            tensors.append(Sums(tuple(limbs)))
    return PartialSum(frame.schema, weight, 1, base_model, round, tuple(tensors))


def merge(a: PartialSum, b: PartialSum) -> PartialSum:
    """The partial sum of two disjoint sets of frames; `Refusal` unless [A-06] holds (spec 8.5)."""
    require(a.schema == b.schema, "A-06", "two schemas")
    require((a.base_model, a.round) == (b.base_model, b.round), "A-06", "two base models or rounds")
    require(a.weight + b.weight <= MAX_WEIGHT, "A-01", f"weights {a.weight} + {b.weight}")
    tensors = []
    for x, y in zip(a.tensors, b.tensors, strict=True):
        require(x[1:] == y[1:], "A-02", f"distribution and scale {x[1:]}, {y[1:]}")
        rows = tuple(tuple(map(sum, zip(p, q, strict=True))) for p, q in zip(x.rows, y.rows, strict=True))
        tensors.append(x._replace(rows=rows))
    return a._replace(weight=a.weight + b.weight, frames=a.frames + b.frames, tensors=tuple(tensors))


def merge_all(parts: Sequence[PartialSum]) -> PartialSum:
    """The partial sum of one or more disjoint sets of frames (spec 8.5)."""
    return functools.reduce(merge, parts)


def partial_sum(
    frames: Sequence[Frame], weights: Sequence[int], base_model: int = 0, round: int = 0
) -> PartialSum:
    """The partial sum of one or more frames; the base model and round that were checked, or 0 (spec 8)."""
    return merge_all([sum_frame(f, w, base_model, round) for f, w in zip(frames, weights, strict=True)])


def mean(partial: PartialSum) -> list[bytes]:
    """The weighted mean of each tensor, little-endian (spec 8.2, 8.3)."""
    means = []
    for tensor, part in zip(partial.schema, partial.tensors, strict=True):
        kind = DTYPES[tensor.dtype]
        if tensor.masked:
            a = step(part.distribution, part.scale)
            words = [_masked_mean(total, partial.weight, a) for total in part.rows[0]]
        else:
            words = [_dense_mean(limbs, partial.weight, kind) for limbs in zip(*part.rows, strict=True)]
        means.append(b"".join(word.to_bytes(kind.size, "little") for word in words))
    return means


def _masked_mean(total: int, weight: int, step_value: Fraction) -> int:
    # spec 8.2. Python's floats are IEEE doubles: float(int) rounds to nearest, ties to even; / and * do too.
    # Not total / weight, for Python divides two ints without rounding them first.
    return round_float(Fraction(float(total) / float(weight) * float(step_value)), F32)


def _dense_mean(limbs: Sequence[int], weight: int, kind: Dtype) -> int:
    total = sum(limb * DIGIT**k for k, limb in enumerate(limbs))
    exact: Fraction = kind.quantum * total / weight  # spec 8.3, 8.4
    if not kind.fraction:
        least, largest = _integer_range(kind)
        require(least <= round(exact) <= largest, "A-07", f"a mean of {round(exact)}")
        return round(exact) % (1 << 8 * kind.size)
    word = round_float(exact, kind)
    require(is_finite(word, kind), "A-07", "a mean beyond the range of its dtype")
    return word if word % (1 << 8 * kind.size - 1) else 0  # spec 8.3: a zero is +0.0


def _integer_range(kind: Dtype) -> tuple[int, int]:
    if kind.name == "bool":
        return 0, 1
    bits = 8 * kind.size
    return (0, 2**bits - 1) if kind.name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def partial_to_bytes(partial: PartialSum) -> bytes:
    """A partial sum's bytes (spec 8.5)."""
    numbers = (partial.weight, partial.base_model, partial.round, len(partial.schema))
    data = struct.pack("<4sBBHQQII", b"FMRS", 1, 0, 0, *numbers)
    data += schema_digest(partial.schema) + struct.pack("<Q", partial.frames)
    for tensor, part in zip(partial.schema, partial.tensors, strict=True):
        rows = [(limb, row) for limb, row in enumerate(part.rows) if any(row)]
        if tensor.masked:
            data += struct.pack("<BxxxI", part.distribution, f32_bits(part.scale))
            data += struct.pack(f"<{tensor.elements}q", *part.rows[0])
        else:
            data += struct.pack("<I", len(rows))
            data += b"".join(struct.pack(f"<I{tensor.elements}q", limb, *row) for limb, row in rows)
    return data + struct.pack("<I", zlib.crc32(data))


def partial_from_bytes(data: bytes, schema: Schema) -> PartialSum:
    """The partial sum of its bytes, [P-01] to [P-15] checked in their order (spec 8.5)."""
    reader, size = Reader(data[:-4], 56), len(data)
    require(size >= 60, "P-01", f"partial sum, byte 0: expected at least 60 bytes, got {size}")
    magic, major, minor, flags, *numbers, digest, frames = struct.unpack("<4sBBHQQII16sQ", data[:56])
    weight, base_model, round_number, count = numbers
    require(magic == b"FMRS", "P-02", f"magic, byte 0: got {magic.hex()}")
    require((major, minor) == (1, 0), "P-03", f"version, byte 4: expected 1.0, got {major}.{minor}")
    require(flags == 0, "P-04", f"flags, byte 6: got {flags:#06x}")
    require(1 <= weight <= MAX_WEIGHT, "P-05", f"weight, byte 8: got {weight}")
    require(1 <= frames <= weight, "P-06", f"frames, byte 48: expected 1 to {weight}, got {frames}")
    require(digest == schema_digest(schema), "P-07", f"digest, byte 32: got {digest.hex()}")
    require(count == len(schema), "P-08", f"tensor_count: expected {len(schema)}, got {count}")
    parts, present = [], []
    for tensor in schema:
        n, at = tensor.elements, f"tensor at byte {reader.at} ({tensor.name!r})"
        if tensor.masked:
            distribution, reserved, scale = struct.unpack("<B3sI", reader.take(8, "P-01", at))
            require(distribution in SCALES, "P-09", f"{at}: distribution {distribution}")
            require(reserved == bytes(3), "P-10", f"{at}: reserved {reserved.hex()}")
            require(scale_allowed(distribution, scale), "P-11", f"{at}: scale bits {scale:#010x}")
            row = struct.unpack(f"<{n}q", reader.take(8 * n, "P-01", f"{at}: sums"))
            parts.append(Sums((row,), distribution, f32_from_bits(scale)))
            continue
        limbs, last = [(0,) * n] * DTYPES[tensor.dtype].limbs, -1
        for _ in range(reader.uint(4, "P-01", f"{at}: rows")):
            limb = reader.uint(4, "P-01", f"{at}: limb")
            require(last < limb < len(limbs), "P-12", f"{at}: limb {limb} after {last}, of {len(limbs)}")
            limbs[limb], last = struct.unpack(f"<{n}q", reader.take(8 * n, "P-01", f"{at}: limbs")), limb
            present.append(limbs[limb])
        parts.append(Sums(tuple(limbs)))
    require(reader.at + 4 == size, "P-13", f"partial sum: expected {reader.at + 4} bytes, got {size}")
    crc = struct.pack("<I", zlib.crc32(data[:-4]))
    require(crc == data[-4:], "P-14", f"checksum: expected {crc.hex()}, got {data[-4:].hex()}")
    for part in parts:
        bound = weight * LARGEST_DRAW.get(part.distribution, DIGIT - 1)
        require(all(abs(v) <= bound for row in part.rows for v in row), "P-15", f"a value beyond {bound}")
    require(all(any(row) for row in present), "P-15", "a row of zeros")
    return PartialSum(schema, weight, frames, base_model, round_number, tuple(parts))
