"""Counts of a few bits each as packed bytes (spec 8.6), in NumPy: eight counts at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 2**16
"""Counts processed at a time; a multiple of 8, so that a block begins with a whole byte."""


def pack(counts: np.ndarray, bits: int) -> np.ndarray:
    out = np.zeros(-(-len(counts) * bits // 8), np.uint8)
    for part, packed in _blocks(len(counts), bits):
        eight = np.zeros((-(-len(counts[part]) // 8), 8), np.uint32)
        eight.reshape(-1)[: len(counts[part])] = counts[part]
        rows = np.zeros((len(eight), bits), np.uint8)
        for j in range(8):
            shifted = eight[:, j] << np.uint32(j * bits % 8)
            for k in _bytes(j, bits):
                rows[:, k] |= (shifted >> np.uint32(8 * (k - j * bits // 8))).astype(np.uint8)
        out[packed] = rows.reshape(-1)[: len(out[packed])]
    return out


def unpack(payload: np.ndarray, bits: int, out: np.ndarray) -> None:
    most = np.uint32(2**bits - 1)
    for part, packed in _blocks(len(out), bits):
        given = payload[packed]
        rows = np.zeros((-(-len(out[part]) // 8), bits), np.uint8)
        rows.reshape(-1)[: len(given)] = given
        eight = np.zeros((len(rows), 8), np.uint32)
        for j in range(8):
            for k in _bytes(j, bits):
                eight[:, j] |= rows[:, k].astype(np.uint32) << np.uint32(8 * (k - j * bits // 8))
            eight[:, j] >>= np.uint32(j * bits % 8)
        out[part] = (eight & most).reshape(-1)[: len(out[part])]


def _blocks(count: int, bits: int) -> Iterator[tuple[slice, slice]]:
    """The counts of each block, and their bytes."""
    for at in range(0, count, BLOCK):
        yield slice(at, at + BLOCK), slice(at * bits // 8, (at + BLOCK) * bits // 8)


def _bytes(j: int, bits: int) -> range:
    """The bytes that hold bits of count j of eight: at most 4, since a count has at most 24 bits."""
    return range(j * bits // 8, ((j + 1) * bits - 1) // 8 + 1)
