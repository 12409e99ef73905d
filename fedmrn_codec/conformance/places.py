"""The position of a given word in a stream, found with the inverse of Philox.

The vectors of the Gaussian draw at the ends of its table give words, but an implementation answers by
position. A block of Philox is a bijection of its counter: from four words, three of them arbitrary, the
inverse gives the stream and the block that produce them. One in 2^18 of these blocks belongs to an element
below 2^48, the largest number of elements of a tensor.

    python -m fedmrn_codec.conformance.places --write     # search again, a minute; write places.json
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..primitives.philox import LOW, MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1
from .vector_files import load

SEED = 0x5EED_0F_91ACE5
ELEMENTS = 2**48
FILE = Path(__file__).with_name("places.json")


class Place(NamedTuple):
    """The seed, stream and position of a word."""

    seed: int
    stream: int
    start: int


def backwards(words: np.ndarray, seed: int) -> np.ndarray:
    """The counters of these blocks: 32-bit values in uint64, shape (4, n) (spec 2.3)."""
    low, shift = np.uint64(LOW), np.uint64(32)
    inverse_0, inverse_1 = (np.uint64(pow(m, -1, 2**32)) for m in (MULTIPLIER_0, MULTIPLIER_1))
    c0, c1, c2, c3 = words.astype(np.uint64)
    for r in reversed(range(ROUNDS)):
        k0 = np.uint64(((seed & LOW) + r * WEYL_0) & LOW)
        k1 = np.uint64(((seed >> 32) + r * WEYL_1) & LOW)
        before_0, before_2 = c3 * inverse_0 & low, c1 * inverse_1 & low
        p0, p1 = before_0 * np.uint64(MULTIPLIER_0), before_2 * np.uint64(MULTIPLIER_1)
        c0, c1, c2, c3 = before_0, (p1 >> shift) ^ c0 ^ k0, before_2, (p0 >> shift) ^ c2 ^ k1
    return np.stack([c0, c1, c2, c3])


def find(word: int) -> Place:
    """A position of this word, as lane 0 of a block, among the elements that a tensor may have."""
    rng = np.random.default_rng(word)
    while True:
        words = rng.integers(0, 2**32, (4, 2**18), dtype=np.uint64)
        words[0] = word
        c0, c1, c2, c3 = backwards(words, SEED)
        for i in np.flatnonzero(c1 < ELEMENTS // 4 >> 32)[:1]:
            block, stream = (int(a[i]) | int(b[i]) << 32 for a, b in ((c0, c1), (c2, c3)))
            return Place(SEED, stream, 4 * block)


@functools.cache
def known() -> dict[int, Place]:
    """The positions that are stored in the file."""
    found = json.loads(FILE.read_text(encoding="utf-8"))["places"]
    return {int(word, 16): Place(*(int(n, 16) for n in place)) for word, place in found.items()}


def place(word: int) -> Place:
    """A position of this word: from the file, or computed in a fraction of a second."""
    return known().get(word) or find(word)


def needed() -> list[int]:
    """The words of the vectors of draws."""
    return sorted({int(w, 16) for case in load("noise") if case["op"] == "draw" for w in case["words"]})


def main() -> None:
    """Check that the file has every word of the vectors; with --write, write the file."""
    if "--write" in sys.argv:
        lines = (
            f'  "{word:#010x}": {json.dumps([hex(n) for n in find(word)])}'  # one a line
            for word in needed()
        )
        about = "word: seed, stream and position at which it stands; made by places.py"
        text = f'{{\n "about": "{about}",\n "places": {{\n' + ",\n".join(lines) + "\n }\n}\n"
        FILE.write_text(text, encoding="utf-8")
    if missing := [hex(word) for word in needed() if word not in known()]:
        sys.exit(f"places.json: expected every word of the vectors, got none of {', '.join(missing)}")


if __name__ == "__main__":
    main()
