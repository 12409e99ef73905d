"""Checks of large tensors, at elements where an implementation may begin a new block or tile of work."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..primitives.codes import Coding, MaskKind
from . import oracle
from .check import Failure
from .layout import first_difference
from .reference import DISTRIBUTIONS
from .request import Decode
from .target import Target
from .verdict import Finding

SIZE = 70_001
SCALE = 0x3C23D70A
SEED, STREAM = 0x5EED_0000_0007, 1


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
        content, request = self._frame()
        tensors = target.ask(request)["tensors"]
        got = tensors[STREAM] if len(tensors) == STREAM + 1 else b""
        assert isinstance(got, bytes)
        if len(got) != 4 * SIZE:
            return Failure(Finding(self.musts, f"expected {4 * SIZE} bytes, got {len(got)}"))
        for i in places():
            expected, element = _element(content, i), got[4 * i : 4 * i + 4]
            if first_difference(expected, element) < 4:
                text = f"element {i} of {SIZE}: expected {expected[::-1].hex()}, got {element[::-1].hex()}"
                return Failure(Finding(self.musts, text))
        return None

    def _frame(self) -> tuple[oracle.Content, Decode]:
        content = self._content()
        schema = (
            oracle.Tensor("bias", False, oracle.FLOAT32, (0,)),
            oracle.Tensor("weight", True, oracle.FLOAT32, (SIZE,)),
        )
        frame = oracle.encode(oracle.Frame(SEED, 0, 0, schema, (oracle.Content(b""), content)))
        return content, Decode(frame=frame, schema=oracle.schema_bytes(schema))

    def _content(self) -> oracle.Content:
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

    def _content(self) -> oracle.Content:
        """Pseudo-random integers made from the id."""
        noise = hashlib.shake_128(self.id.encode()).digest(4 * SIZE)
        words = struct.unpack(f"<{SIZE}I", noise)
        z = [_integer(w, i) for i, w in enumerate(words)]
        payload = struct.pack(f"<{SIZE}i", *z)
        return oracle.Content(payload, oracle.GRID, scale=2.0**-12, coding=self.coding)


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


def checks() -> Iterator[Large]:
    """The checks: each distribution with each mask kind, entropy-coded masks, and grids."""
    for distribution in DISTRIBUTIONS:
        for kind in MaskKind.labels():
            yield Large(distribution, kind)
    yield Large("uniform", "binary", oracle.RANS)
    yield Large("uniform", "binary", oracle.RANS12)
    yield Large("bernoulli", "binary", oracle.RANS12)
    yield LargeGrid()
    yield LargeGrid(coding=oracle.RANS14)
