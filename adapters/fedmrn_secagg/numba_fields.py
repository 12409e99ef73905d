"""The kernel of `fields.combine` in one pass over memory; imports Numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedmrn_codec.adapter_api.numba import jit

ZERO, ONE = np.uint64(0), np.uint64(1)


@jit
def combine(into: Any, other: Any, top: Any, negative: Any) -> None:
    """Add or subtract fields; `top` has the top bit of each and is at least as long as the other arrays."""
    carry = ZERO
    if negative:
        for k in range(len(into)):
            first, second = into[k] | top[k], other[k] & ~top[k]
            rest = (into[k] ^ ~other[k]) & top[k]
            into[k] = (first - second - carry) ^ rest
            carry = ONE if first < second else ZERO
    else:
        for k in range(len(into)):
            first = into[k] & ~top[k]
            total = first + (other[k] & ~top[k])
            rest = (into[k] ^ other[k]) & top[k]
            into[k] = (total + carry) ^ rest
            carry = ONE if total < first else ZERO
