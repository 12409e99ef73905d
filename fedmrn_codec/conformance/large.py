"""Larger tensors, compared with the oracle near the boundaries of blocks and tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..primitives.codes import MaskKind
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
    """A frame of one large tensor, compared at some hundred positions."""

    distribution: str
    kind: str
    coding: int = oracle.RAW
    profile: str = "decode"
    musts: tuple[str, ...] = ("M-02", "N-04")

    @property
    def id(self) -> str:
        """The id, as for every check."""
        return f"large/{self.distribution}-{self.kind}{'-rans' * self.coding}:decode"

    def run(self, target: Target) -> Failure | None:
        """The first of those positions where the update is wrong."""
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
        mask = _mask(self.id, rare=self.coding == oracle.RANS)
        code, scale = DISTRIBUTIONS[self.distribution], oracle.f32_from_bits(SCALE)
        content = oracle.Content(mask, MaskKind.of(self.kind, "kind"), code, scale, self.coding)
        schema = (
            oracle.Tensor("bias", False, oracle.FLOAT32, (0,)),
            oracle.Tensor("weight", True, oracle.FLOAT32, (SIZE,)),
        )
        frame = oracle.encode(oracle.Frame(SEED, 0, 0, schema, (oracle.Content(b""), content)))
        return content, Decode(frame=frame, schema=oracle.schema_bytes(schema))


def _mask(tag: str, rare: bool) -> bytes:
    """A packed mask of pseudo-random bits: half of them set, or if rare one in 16; the last is set."""
    if not rare:
        return hashlib.shake_128(tag.encode()).digest(SIZE // 8) + b"\1"
    return oracle.pack([int(byte < 16) for byte in hashlib.shake_128(tag.encode()).digest(SIZE - 1)] + [1])


def places() -> list[int]:
    """Both ends, the neighbours of powers of two, and a few positions anywhere."""
    about = {edge + step for k in range(17) for edge in (2**k, 3 * 2**k) for step in (-1, 0, 1)}
    anywhere = {i * 40503 % SIZE for i in range(40)}
    return sorted(i for i in about | anywhere | {0, SIZE - 1} if 0 <= i < SIZE)


def _element(content: oracle.Content, i: int) -> bytes:
    m = oracle.sign_of_bit(content.kind, content.payload[i // 8] >> i % 8 & 1)
    word = oracle.f32_bits(oracle.noise(content.distribution, content.scale, SEED, STREAM, i))
    return (word ^ (m < 0) << 31 if m else 0).to_bytes(4, "little")


def checks() -> Iterator[Large]:
    """Every distribution with every kind of mask, and one entropy-coded mask."""
    for distribution in DISTRIBUTIONS:
        for kind in MaskKind.labels():
            yield Large(distribution, kind)
    yield Large("uniform", "binary", oracle.RANS)
