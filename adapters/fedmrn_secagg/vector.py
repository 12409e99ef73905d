"""The vector of a client: strings of numbers, summed modulo powers of 2 (spec/SECAGG.md 6); [X-05]."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from . import fields
from .layout import Layout

COUNTER = bytes(4)
"""The initial block counter, which the package takes with the nonce."""


class Vector:
    """A vector, a masked vector, or a sum of some; at first zeros.

    Attributes
    ----------
    layout : Layout
    fields, words, longs : numpy.ndarray of uint64, uint32 and uint64
        The sections. `fields` is the string of section 1, filled up to a whole word.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.fields = np.zeros(-(-layout.sizes[0] // 8), "<u8")
        self.words = np.zeros(layout.sizes[1] // 4, "<u4")
        self.longs = np.zeros(layout.sizes[2] // 8, "<u8")

    def __repr__(self) -> str:
        return f"Vector of {self.layout.size} bytes"

    @classmethod
    def from_bytes(cls, data: memoryview, layout: Layout) -> Vector:
        """The vector of the body of a message `masked`, of `layout.size` bytes."""
        out, at = cls(layout), 0
        for array, size in zip((out.fields, out.words, out.longs), layout.sizes, strict=True):
            array.view(np.uint8)[:size] = np.frombuffer(data[at : at + size], np.uint8)
            at += size
        return out

    def to_bytes(self) -> bytes:
        """The body of a message `masked`."""
        arrays = zip((self.fields, self.words, self.longs), self.layout.sizes, strict=True)
        return b"".join(array.view(np.uint8)[:size].tobytes() for array, size in arrays)

    def add(self, other: Vector) -> None:
        """Add a vector of the same layout."""
        bits = self.layout.bits
        step = fields.chunk_words(bits)
        for at in range(0, len(self.fields), step):
            fields.combine(self.fields[at : at + step], other.fields[at : at + step], bits, False)
        self.words += other.words
        self.longs += other.longs

    def pad(self, key: bytes, negative: bool = False) -> None:
        """Add the pad of a key, or subtract it (spec 6.4)."""
        bits = self.layout.bits
        step = fields.chunk_words(bits)
        for section, array in enumerate((self.fields, self.words, self.longs), 1):
            stream = Cipher(ChaCha20(key, COUNTER + struct.pack("<IQ", section, 0)), None).encryptor()
            width = step * 8 // array.itemsize
            zeros, buffer = (
                memoryview(bytes(min(step * 8, array.nbytes))),
                np.empty(min(width, len(array)), array.dtype),
            )
            for at in range(0, len(array), width):
                part: Any = array[at : at + width]
                keystream = buffer[: len(part)]
                stream.update_into(zeros[: part.nbytes], keystream.view(np.uint8).data)
                if section == 1:
                    fields.combine(part, keystream, bits, negative)
                elif negative:
                    part -= keystream
                else:
                    part += keystream
