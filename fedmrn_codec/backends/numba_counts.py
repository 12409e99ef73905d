"""Counts of a few bits each as packed bytes (spec 8.6), compiled: 32 counts of b bits are b words."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import jit
from .numba import SPLIT, frozen
from .threads import spread


def pack(counts: np.ndarray, bits: int) -> np.ndarray:
    words = np.empty(-(-len(counts) * bits // 32), np.uint32)
    fixed = frozen(counts), np.uint64(bits)
    spread(lambda a, b: _pack(words, a, b, *fixed), len(counts), SPLIT)
    packed = words.astype("<u4", copy=False).view(np.uint8)
    return np.asarray(packed[: -(-len(counts) * bits // 8)])


def unpack(payload: np.ndarray, bits: int, out: np.ndarray) -> None:
    padded = np.zeros(-(-len(payload) // 4) * 4, np.uint8)  # aligned, as the payload need not be
    padded[: len(payload)] = payload
    fixed = frozen(padded.view("<u4").astype(np.uint32, copy=False)), np.uint64(bits)
    spread(lambda a, b: _unpack(out, a, b, *fixed), len(out), SPLIT)


@jit
def _pack(words: Any, begin: Any, end: Any, counts: Any, bits: Any) -> None:
    """Write counts[begin:end] into their words, where `begin` is a multiple of 32."""
    held, filled, at = np.uint64(0), np.uint64(0), np.uint64(begin) // np.uint64(32) * bits
    for i in range(begin, end):
        held |= np.uint64(counts[i]) << filled
        filled += bits
        if filled >= np.uint64(32):
            words[at] = np.uint32(held)
            held, filled, at = held >> np.uint64(32), filled - np.uint64(32), at + np.uint64(1)
    if filled > np.uint64(0):
        words[at] = np.uint32(held)


@jit
def _unpack(out: Any, begin: Any, end: Any, words: Any, bits: Any) -> None:
    """Write the counts `begin` to `end` - 1 of packed words, where `begin` is a multiple of 32."""
    held, filled, at = np.uint64(0), np.uint64(0), np.uint64(begin) // np.uint64(32) * bits
    most = (np.uint64(1) << bits) - np.uint64(1)
    for i in range(begin, end):
        if filled < bits:
            held |= np.uint64(words[at]) << filled
            filled, at = filled + np.uint64(32), at + np.uint64(1)
        out[i] = held & most
        held, filled = held >> bits, filled - bits
