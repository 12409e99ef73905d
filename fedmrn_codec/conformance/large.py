"""Checks of large tensors, at elements where an implementation may begin a new block or tile of work."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from ..primitives.codes import Coding, MaskKind
from . import oracle
from .check import Failure
from .computed import Computed
from .layout import first_difference
from .reference import CODINGS, DISTRIBUTIONS, KINDS, Reference
from .request import AddTallies, Aggregate, Count, Decode, Encode, Part
from .target import Refused, Target, outcome
from .verdict import BLOCK, CODED, Finding, in_coding, refused_valid

SIZE = 70_001
SCALE = 0x3C23D70A
SEED, STREAM = 0x5EED_0000_0007, 1
SCHEMA = (
    oracle.Tensor("bias", False, oracle.FLOAT32, (0,)),
    oracle.Tensor("weight", True, oracle.FLOAT32, (SIZE,)),
)


@dataclass(frozen=True)
class Large:
    """A check of a frame with one large tensor: its update must equal that of `oracle` at all `places`."""

    distribution: str
    kind: str
    coding: int = oracle.RAW
    profile: str = "decode"
    musts: tuple[str, ...] = ("M-02", "N-04")

    @property
    def id(self) -> str:
        """The id of this check, such as "large/uniform-binary:decode"."""
        coding = "" if self.coding == oracle.RAW else f"-{Coding(self.coding).label}"
        return f"large/{self.distribution}-{self.kind}{coding}:decode"

    def run(self, target: Target) -> Failure | None:
        """Run the check; return the failure at the first element that is wrong, or None."""
        content, request = _frame(self)
        found = outcome(target, request)
        if isinstance(found, Refused):
            return Failure(refused_valid(request, found), request)
        tensors = found["tensors"]
        got = tensors[STREAM] if len(tensors) == STREAM + 1 else b""
        assert isinstance(got, bytes)
        if len(got) != 4 * SIZE:
            return Failure(Finding(self.musts, f"expected {4 * SIZE} bytes, got {len(got)}"), request)
        for i in places():
            expected, element = _element(content, i), got[4 * i : 4 * i + 4]
            if first_difference(expected, element) < 4:
                return Failure(self._wrong(i, expected, element), request)
        return None

    def _wrong(self, i: int, expected: bytes, got: bytes) -> Finding:
        text = f"element {i} of {SIZE}: expected {expected[::-1].hex()}, got {got[::-1].hex()}"
        if self.coding == oracle.RAW:
            return Finding(self.musts, text)
        coding = in_coding(self.coding, SCHEMA[STREAM])
        return Finding((*CODED[self.coding], *self.musts), f"{coding}, block {i // BLOCK}, {text}")

    def content(self) -> oracle.Content:
        """The content of the large tensor."""
        mask = _mask(self.id, rare=self.coding in oracle.CODERS)
        code, scale = DISTRIBUTIONS[self.distribution], oracle.f32_from_bits(SCALE)
        return oracle.Content(mask, MaskKind.of(self.kind, "kind"), code, scale, self.coding)


@dataclass(frozen=True)
class LargeGrid(Large):
    """A check of a frame with one large grid, in coding 5 or raw."""

    distribution: str = ""
    kind: str = "grid"
    musts: tuple[str, ...] = ("6.12", "6.14")

    @property
    def id(self) -> str:
        """The id of this check: "large/grid:decode" or "large/grid-rans14:decode"."""
        return f"large/grid{'-rans14' if self.coding == oracle.RANS14 else ''}:decode"

    def content(self) -> oracle.Content:
        """Pseudo-random integers made from the id."""
        noise = hashlib.shake_128(self.id.encode()).digest(4 * SIZE)
        words = struct.unpack(f"<{SIZE}I", noise)
        z = [_integer(w, i) for i, w in enumerate(words)]
        payload = struct.pack(f"<{SIZE}i", *z)
        return oracle.Content(payload, oracle.GRID, scale=2.0**-12, coding=self.coding)


@functools.cache
def _frame(check: Large) -> tuple[oracle.Content, Decode]:
    """The content of the large tensor, and the request."""
    content = check.content()
    frame = oracle.encode(oracle.Frame(SEED, 0, 0, SCHEMA, (oracle.Content(b""), content)))
    return content, Decode(frame=frame, schema=oracle.schema_bytes(SCHEMA))


def _encoding(check: Large) -> Encode:
    """The request to encode the frame of a check."""
    content, names = check.content(), {code: name for name, code in DISTRIBUTIONS.items()}
    part = Part(
        kind=next(name for name, code in KINDS.items() if code == content.kind),
        payload=content.payload,
        coding=next(name for name, code in CODINGS.items() if code == content.coding),
        distribution=names.get(content.distribution),
        scale=oracle.f32_bits(content.scale),
    )
    empty = (
        Part(kind="grid", payload=b"", scale=part.scale)
        if part.kind == "grid"
        else Part(kind="dense", payload=b"")
    )
    return Encode(
        schema=oracle.schema_bytes(SCHEMA),
        seed=SEED,
        base_model=0,
        round=0,
        embed_schema=False,
        tensors=(empty, part),
    )


FLOAT64, INT64 = 2, 8
"""Codes of dtypes (spec 5.3)."""

SUMMED = (
    oracle.Tensor("dense", False, oracle.FLOAT32, (17_003,)),
    oracle.Tensor("mask", True, oracle.FLOAT32, (SIZE,)),
    oracle.Tensor("grid", True, oracle.FLOAT32, (5_003,)),
    oracle.Tensor("wide", True, oracle.FLOAT32, (SIZE,)),
    oracle.Tensor("whole", False, INT64, (17_003,)),
)
WEIGHTS = (3, 2**24 + 1, 600)


def _sum() -> Aggregate:
    """Frames whose masks are raw, and in codings 1 and 4, of 70,001 elements; the grids are coded, or not."""
    scale = oracle.f32_from_bits(SCALE)
    frames = []
    for k, coding in enumerate((oracle.RAW, oracle.RANS, oracle.RANS12)):
        words = struct.unpack("<17003I", hashlib.shake_128(f"sum {k}".encode()).digest(4 * 17_003))
        spread = (w % 60 if i % 3 == 0 else 4 for i, w in enumerate(words))  # most of them in the same limbs
        values = (oracle.f32_round(Fraction(w - 2**31, 2**by)) for w, by in zip(words, spread, strict=True))
        grid = struct.pack("<5003i", *(_integer(w, i) for i, w in enumerate(words[:5_003])))
        mask = _mask(f"sum {k}", rare=coding != oracle.RAW)
        kind = oracle.SIGNED if k == 1 else oracle.BINARY
        contents = (
            oracle.Content(struct.pack("<17003f", *values)),
            oracle.Content(mask, kind, oracle.GAUSSIAN, scale, coding),
            oracle.Content(grid, oracle.GRID, scale=2.0**-9, coding=oracle.RANS14 if k else oracle.RAW),
            oracle.Content(_integers(k), oracle.GRID, scale=2.0**-9),
            oracle.Content(struct.pack("<17003q", *((w - 2**31) << w % 24 for w in words))),
        )
        frames.append(oracle.encode(oracle.Frame(SEED + k, 0, 0, SUMMED, contents)))
    return Aggregate(schema=oracle.schema_bytes(SUMMED), frames=tuple(frames), weights=WEIGHTS)


def _integers(k: int) -> bytes:
    """Integers of 16 bits of a large grid."""
    return struct.pack(
        f"<{SIZE}i", *struct.unpack(f"<{SIZE}h", hashlib.shake_128(f"wide {k}".encode()).digest(2 * SIZE))
    )


COUNTED = (
    oracle.Tensor("dense", False, FLOAT64, (9_001,)),
    oracle.Tensor("mask", True, oracle.FLOAT32, (SIZE,)),
)


def _tally(coding: str = "rans14") -> Count:
    """Three frames of 70,001 elements in one tally."""
    frames = []
    for k in range(3):
        mask = oracle.Content(
            _mask(f"tally {k}", rare=False), oracle.SIGNED, oracle.BERNOULLI, oracle.f32_from_bits(SCALE)
        )
        words = struct.unpack("<9001q", hashlib.shake_128(f"tally {k}".encode()).digest(8 * 9_001))
        dense = oracle.Content(struct.pack("<9001d", *(w / 2 ** (w % 90) for w in words)))
        frames.append(oracle.encode(oracle.Frame(SEED, 0, 0, COUNTED, (dense, mask))))
    return Count(schema=oracle.schema_bytes(COUNTED), frames=tuple(frames), weight=5, coding=coding)


def _added() -> AddTallies:
    """Two large tallies, of other seeds, to be added."""
    reference = Reference()
    found: list[bytes] = []
    for coding in ("raw", "rans14"):
        answer = outcome(reference, _tally(coding))
        assert not isinstance(answer, Refused)
        tally = answer["tally"]
        assert isinstance(tally, bytes)
        found.append(tally)
    return AddTallies(schema=oracle.schema_bytes(COUNTED), tallies=tuple(found))


def _integer(w: int, i: int) -> int:
    """A small integer, or, for one in 256 words, one of any class of 6.14."""
    return w.bit_count() - 16 if w % 256 else (-1) ** (w >> 31) * (w >> 8 >> i % 24)


def _mask(tag: str, rare: bool) -> bytes:
    """A packed mask of pseudo-random bits made from `tag`, 1/2 of them set (1/16 if `rare`), and the last."""
    if not rare:
        return hashlib.shake_128(tag.encode()).digest(SIZE // 8) + b"\1"
    return oracle.pack([int(byte < 16) for byte in hashlib.shake_128(tag.encode()).digest(SIZE - 1)] + [1])


def places() -> list[int]:
    """The elements to compare: both ends, those at and next to 2^k and 3 * 2^k, and 40 spread over all."""
    about = {edge + step for k in range(17) for edge in (2**k, 3 * 2**k) for step in (-1, 0, 1)}
    anywhere = {i * 40503 % SIZE for i in range(40)}
    return sorted(i for i in about | anywhere | {0, SIZE - 1} if 0 <= i < SIZE)


def _element(content: oracle.Content, i: int) -> bytes:
    if content.kind == oracle.GRID:
        return oracle.grid_values(content.payload[4 * i : 4 * i + 4], content.scale, oracle.FLOAT32)
    m = oracle.sign_of_bit(content.kind, content.payload[i // 8] >> i % 8 & 1)
    word = oracle.f32_bits(oracle.noise(content.distribution, content.scale, SEED, STREAM, i))
    return (word ^ (m < 0) << 31 if m else 0).to_bytes(4, "little")


ENTROPY_CODED = (
    Large("uniform", "binary", oracle.RANS),
    Large("uniform", "binary", oracle.RANS12),
    Large("bernoulli", "binary", oracle.RANS12),
    LargeGrid(coding=oracle.RANS14),
)


def checks() -> Iterator[Large]:
    """The checks: each distribution with each mask kind, entropy-coded masks, and grids."""
    for distribution in DISTRIBUTIONS:
        for kind in MaskKind.labels():
            yield Large(distribution, kind)
    yield LargeGrid()
    yield from ENTROPY_CODED


def encodings() -> Iterator[Computed]:
    """Entropy-coded masks and grids of several blocks, written."""
    for check in ENTROPY_CODED:
        name, musts = check.id.partition(":")[0], ("E-01", "E-03" if check.kind != "grid" else "E-04")
        yield Computed(name, musts, "encode", functools.partial(_encoding, check))


def sums() -> Iterator[Computed]:
    """Frames of more elements than an implementation may sum at a time, some in several blocks."""
    yield Computed("large/tally", ("A-08", "E-05", "8.6"), "tally", _tally)
    yield Computed("large/tallies", ("A-10", "8.6"), "add_tallies", _added)
    yield Computed("large/sum", ("A-03", "A-04", "6.8", "6.11", "6.14"), "aggregate", _sum)
