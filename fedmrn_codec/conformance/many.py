"""Checks of many values and many tensors: other paths of an implementation, and sums beyond 64 bits."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Iterator
from fractions import Fraction

from . import oracle
from .computed import Computed
from .extras import SCALE
from .layout import with_checksum
from .reference import DISTRIBUTIONS
from .request import AddTallies, Decode, Noise, Request, Sample, Words

SEED = 0x8000_0001_0000_0007
HIGH = (2**32, 0x0123_4567_89AB_CDEF, 2**64 - 1)
"""Streams whose upper half counts."""

PLACES = {  # label: start, count
    "64": (0, 64),
    "65-unaligned": (3, 65),
    "300-across-2-34": (2**34 - 150, 300),
    "1000": (2**32 - 1, 1000),
    "4099-across-2-53": (2**53 - 2050, 4099),
    "70001": (2**40 + 3, 70_001),
    "across-2-64": (2**64 - 130, 260),
    "last": (2**66 - 300, 300),
}
ELEMENTS = {"300": (5, 300), "across-2-34": (2**34 - 2100, 4200), "last": (2**48 - 2100, 2100)}
"""More than 64 words, of Bernoulli noise too, but for the first."""


def words() -> Iterator[Computed]:
    """Words of high streams, 64 and more."""
    for stream in HIGH:
        for label, (start, count) in PLACES.items():
            if start + count > 2**64 and stream != HIGH[1]:
                continue  # a module may have no such positions: one stream of them is enough
            make = functools.partial(Words, seed=SEED, stream=stream, start=start, count=count)
            yield Computed(f"many/{label}-of-stream-{stream:x}", ("N-02", "2.1"), "words", make)


def noise() -> Iterator[Computed]:
    """Noise of high streams, from 64 words and more."""
    for name in DISTRIBUTIONS:
        for stream in HIGH:
            for label, (start, count) in ELEMENTS.items():
                place = {"seed": SEED, "stream": stream, "start": start, "count": count}
                make = functools.partial(Noise, distribution=name, scale=SCALE, **place)
                yield Computed(f"many/{name}-{label}-of-stream-{stream:x}", ("N-04", "2.1"), "noise", make)


def samples() -> Iterator[Computed]:
    """Masks of high streams, from 64 words and more."""
    for name in DISTRIBUTIONS:
        for kind in ("binary", "signed"):
            make = functools.partial(_sampling, name, kind)
            yield Computed(f"many/{name}-{kind}", ("M-04", "2.1"), "sample", make)
    make = functools.partial(_sampling, "uniform", "signed", 70_001)
    yield Computed("many/70001-elements", ("M-04", "2.1"), "sample", make)


def _sampling(name: str, kind: str, n: int = 2100) -> Request:
    """An update of about the size of the noise."""
    chaos = hashlib.shake_128(f"{name} {kind}".encode()).digest(8 * n)
    numbers = struct.unpack(f"<{2 * n}I", chaos)
    scale = oracle.f32_from_bits(SCALE)
    update = [oracle.f32_round(Fraction(scale) * (w - 2**31) / 2**31) for w in numbers[:n]]
    return Sample(
        kind=kind,
        distribution=name,
        scale=SCALE,
        seed=SEED,
        stream=HIGH[1],
        update=struct.pack(f"<{n}f", *update),
        draws=struct.pack(f"<{n}I", *(w >> 8 for w in numbers[n:])),
    )


def tallies() -> Iterator[Computed]:
    """Tallies of many heavy frames, added to one aggregator: sums of more than 2^53."""
    for name in ("uniform", "bernoulli"):
        make = functools.partial(_heavy, name)
        yield Computed(f"many/heavy-tallies-{name}", ("A-10",), "add_tallies", make)


def _heavy(name: str, count: int = 90, n: int = 40) -> AddTallies:
    """The same tally many times, so that sums grow by one sign, with a weight whose low bits count."""
    schema = (
        oracle.Tensor("w", True, oracle.FLOAT32, (n,)),
        oracle.Tensor("b", False, oracle.FLOAT32, (2,)),
    )
    floats = oracle.Content(struct.pack("<2f", *(oracle.f32_round(Fraction(x, 21)) for x in (7, -3))))
    noise = DISTRIBUTIONS[name], oracle.f32_from_bits(SCALE)
    masks = (bytes([0xFF, 0x5A, 0, 0xA5, 0xFF]), bytes([0xFF, 0x0F, 0, 0xA5, 0x33]))
    contents = ((oracle.Content(mask, oracle.SIGNED, *noise), floats) for mask in masks)
    frames = [oracle.Frame(SEED, 0, 0, schema, each) for each in contents]
    tally = oracle.tally_to_bytes(oracle.tally(frames, 2**24 - 1))
    return AddTallies(schema=oracle.schema_bytes(schema), tallies=(tally,) * count)


# --- sums beyond 64 bits ----------------------------------------------------------------------------

MOST = 2**48
"""The most elements of a tensor (spec 9.1)."""

FLOAT64 = 2
"""The code of the dtype with the longest elements (spec 5.3)."""


def frames() -> Iterator[Computed]:
    """Sums over tensors that are 0 or negative if 64 bits hold them, [F-25] and [S-07] (spec 7.3)."""
    for bits in (63, 64):
        lengths = functools.partial(_lengths, 2 ** (bits - 51))
        yield Computed(f"many/lengths-of-2-{bits}-bytes", ("F-25",), "decode", lengths)
        elements = functools.partial(_elements, 2 ** (bits - 48))
        yield Computed(f"many/schema-of-2-{bits}-elements", ("S-07",), "decode", elements)


def _schema(count: int, dtype: int, masked: bool) -> bytes:
    """The bytes of a schema of this many tensors of the most elements."""
    names = (f"{i:x}".encode() for i in range(count))
    last = struct.pack("<BBBQ", masked, dtype, 1, MOST)
    return struct.pack("<I", count) + b"".join(struct.pack("<H", len(name)) + name + last for name in names)


def _lengths(count: int) -> Decode:
    """A frame of tensors of 2^51 bytes each, of which there is none."""
    raw = _schema(count, FLOAT64, False)
    entry = struct.pack("<BBBxQ", oracle.DENSE, FLOAT64, oracle.RAW, 8 * MOST)
    return Decode(frame=_frame(0, raw, count, entry * count), schema=raw)


def _elements(count: int) -> Decode:
    """A frame that embeds the schema of tensors of 2^48 elements each, and ends there."""
    raw = _schema(count, oracle.FLOAT32, True)
    return Decode(frame=_frame(1, raw, count, struct.pack("<I", len(raw)) + raw))


def _frame(flags: int, schema: bytes, count: int, rest: bytes) -> bytes:
    digest = hashlib.sha256(schema).digest()[:16]
    header = struct.pack("<4sBBHQQII16s", b"FMRN", 1, 0, flags, SEED, 0, 0, count, digest)
    return with_checksum(header + rest + bytes(4))
