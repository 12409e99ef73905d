"""Make `gaussian.bin`, the quantile table of the format's Gaussian noise (spec 3.4).

Entry k = 64*j + s (j octave, s segment) is the upper-tail quantile of N(0, 1) at the tail probability
2^(j-33) * (1 + s/64), in units of 2^-21, rounded to nearest; entry 2048 is the quantile at 1/2, which is 0.
Every entry is found with 60 digits by Newton's method on the complementary error function, so no
floating-point library has a say in it. The file is 2049 little-endian unsigned 32-bit integers.

    python spec/tables/make_gaussian.py            # check the files against a fresh computation
    python spec/tables/make_gaussian.py --write    # write them (needs mpmath)
"""

import hashlib
import struct
import sys
from pathlib import Path

from mpmath import erfc, exp, mp, mpf, nint, pi, sqrt

OCTAVES, SEGMENTS, FRACTION_BITS = 32, 64, 21
HERE = Path(__file__).resolve().parent
TARGETS = (HERE / "gaussian.bin", HERE.parents[1] / "fedmrn_codec" / "primitives" / "data" / "gaussian.bin")


def upper_quantile(tail: mpf, guess: mpf) -> mpf:
    """The z with P(N(0, 1) > z) = tail, by Newton's method from `guess`."""
    z = guess
    for _ in range(100):
        density = exp(-z * z / 2) / sqrt(2 * pi)
        move = (erfc(z / sqrt(2)) / 2 - tail) / density
        z += move
        if abs(move) < mpf(10) ** -50:
            return z
    raise ArithmeticError(f"no convergence at tail {tail}")


def table() -> list[int]:
    """The 2049 entries, the largest first."""
    mp.dps = 60
    entries, z = [], mpf("6.3")
    for j in range(OCTAVES):
        for s in range(SEGMENTS):
            z = upper_quantile(mpf(2) ** (j - 33) * (1 + mpf(s) / SEGMENTS), z)
            entries.append(int(nint(z * 2**FRACTION_BITS)))
    return [*entries, 0]


def main() -> None:
    data = struct.pack("<2049I", *table())
    for target in TARGETS:
        if "--write" in sys.argv:
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)
        elif target.read_bytes() != data:
            sys.exit(f"{target.name} differs from the computed table")
    print(f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
