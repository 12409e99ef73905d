"""The Renyi divergence between two counts of bits that differ in one client.

Each client sends a bit that is set with a probability between 1 - h and h. The count of the set bits is what
a server learns of one element. Which probabilities of the others are the worst for one client is not guessed:
they are at the ends, and all numbers of them at either end are computed. Sections 2 and 3 of
docs/guides/differential_privacy.md have the proof.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

LOW_ORDERS = 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2
ORDERS = np.array(
    [*LOW_ORDERS, *range(3, 17), 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512], float
)
"""The orders of the divergence; none between 2 and 3, where `Excess.square` would be no bound."""

BLOCKS = 128
"""Up to so many clients the divergence is exact. For more it is that of at most 1 in 128 fewer clients."""

LOG_TINY = -200 * math.log(10)
"""The logarithm of the probability below which a count is left out; what that changes is added again."""


class Excess(NamedTuple):
    """What bounds the divergence of one element, at each of `ORDERS`.

    Attributes
    ----------
    most : numpy.ndarray of float64
        The largest E[(p / q)^order] - 1, over q, of the two distributions p and q of the count.
    square : numpy.ndarray of float64
        The largest such value, divided by the square of the change of the one client's probability.
    """

    most: np.ndarray
    square: np.ndarray


@lru_cache(maxsize=1024)
def excess(clients: int, high: float) -> Excess:
    """The excess for a count over so many clients, one of which changes.

    Parameters
    ----------
    clients : int
        1 or more.
    high : float
        The largest probability of a bit, above 1/2 and below 1; the smallest is 1 - `high`.
    """
    block = -(-clients // BLOCKS)
    found = [_excess(at, max(clients - block - at, 0), high) for at in range(0, clients, block)]
    return Excess(*(np.max(column, axis=0) for column in zip(*found, strict=True)))


def binomial(trials: int, probability: float) -> np.ndarray:
    """The probabilities of the counts of `trials` bits, those below e^LOG_TINY left out; float64."""
    counts = np.arange(trials, dtype=np.float64)
    steps = np.log((trials - counts) / (counts + 1)) + math.log(probability / (1 - probability))
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + trials * math.log1p(-probability)
    return np.exp(logs[logs > LOG_TINY])


def _excess(upper: int, lower: int, high: float) -> Excess:
    """The excess if of the others `upper` have the largest probability and `lower` have the smallest."""
    low = 1 - high
    others = np.convolve(binomial(upper, high), binomial(lower, low))
    others = others[others > math.exp(LOG_TINY)]
    unset, raised = np.append(others, 0.0), np.append(0.0, others)  # the client's own bit is 0, or 1
    p, q = low * unset + high * raised, high * unset + low * raised
    change = raised - unset
    left_out = (2 * (upper + lower) + 3) * math.exp(LOG_TINY)
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = (high - low) * change / q
        terms = np.expm1(np.outer(ORDERS, np.log1p(ratio))) - np.outer(ORDERS, ratio)
        most = np.maximum(terms, 0) @ q + left_out * np.exp(ORDERS * math.log(high / low))
    information = max(float((change * (change / each)).sum()) for each in (p, q)) + left_out / low**2
    square = np.maximum(ORDERS * (ORDERS - 1) / 2 * information, most / (high - low) ** 2)
    return Excess(most, square)
