"""The computed parts of SECAGG.md: the example of shares, and the table of parameters.

python spec/make_secagg.py            # check that the document has what this would write
python spec/make_secagg.py --write    # write it
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "spec")]

from vector_cases.secagg import shamir_example  # noqa: E402
from vector_cases.secagg_primitives import split  # noqa: E402

FILE = ROOT / "spec" / "SECAGG.md"
CLIENTS = 100, 1_000, 10_000, 100_000
COLLUDING, DROPPING = 5, 10
"""One of so many clients."""

SECURE, CORRECT = -40.0, -20.0
"""The largest log2 of a probability that something is revealed, and that a round fails."""


def log2_of_choices(n: int, k: int) -> float:
    """log2 of the number of subsets of size k of n things; minus infinity if there are none."""
    if not 0 <= k <= n:
        return -math.inf
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def log2_of_sum(terms: list[float]) -> float:
    """log2 of a sum of numbers that are given by their log2."""
    top = max(terms, default=-math.inf)
    return top if math.isinf(top) else top + math.log2(sum(2 ** (term - top) for term in terms))


def log2_between(population: int, marked: int, draws: int, least: int, most: int) -> float:
    """log2 of P[least <= H(population, marked, draws) <= most], of the hypergeometric distribution."""
    ways = log2_of_choices(population, draws)
    inside = range(max(least, 0), min(most, draws) + 1)
    return log2_of_sum(
        [log2_of_choices(marked, x) + log2_of_choices(population - marked, draws - x) - ways for x in inside]
    )


class Bounds(NamedTuple):
    """log2 of the bounds of the three lines of section 12."""

    shares: float
    apart: float
    failing: float


def bounds(n: int, degree: int, threshold: int, colluding: int, completing: int) -> Bounds:
    """The bounds for a sparse graph."""
    each, missing = math.log2(n), colluding + n - completing
    apart = sum(
        math.log2(max(missing - i, 0) / (n - i)) if missing > i else -math.inf for i in range(degree // 2)
    )
    return Bounds(
        each + log2_between(n - 1, colluding, degree, threshold, degree),
        each + apart,
        each + log2_between(n - 1, completing, degree, 0, threshold - 1),
    )


def least(n: int) -> tuple[int, int, Bounds] | None:
    """The least degree, the least threshold for it, and the bounds; None: only the complete graph will do."""
    colluding, completing = n // COLLUDING, n - n // DROPPING
    for degree in range(2, n - 1, 2):
        low, high = 1, degree + 1
        while low < high:  # the first bound falls as the threshold rises
            middle = (low + high) // 2
            safe = bounds(n, degree, middle, colluding, completing).shares <= SECURE
            low, high = (low, middle) if safe else (middle + 1, high)
        found = bounds(n, degree, low, colluding, completing)
        if max(found.shares, found.apart) <= SECURE and found.failing <= CORRECT:
            return degree, low, found
    return None


def parameters() -> str:
    """The table of section 12."""
    heads = "clients n", "degree k", "threshold t", "shares", "not connected", "failing"
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for n in CLIENTS:
        found = least(n)
        row = [f"{n:,}", "complete graph", *["-"] * 4]
        if found is not None:
            degree, threshold, values = found
            logarithms = ("impossible" if math.isinf(value) else f"2^{value:.1f}" for value in values)
            row = [f"{n:,}", str(degree), str(threshold), *logarithms]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def shamir() -> str:
    """The shares of the example of 5.3."""
    shares = split(shamir_example(3), 4)
    lines = [
        "| x | y(x) |",
        "|---|---|",
        *(f"| {x} | `{share.hex()}` |" for x, share in enumerate(shares, 1)),
    ]
    return "\n".join(lines)


PARTS = {"shamir": shamir, "parameters": parameters}


def text() -> str:
    """The document, with its computed parts."""
    out = FILE.read_text(encoding="utf-8")
    for name, make in PARTS.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        out = re.sub(
            f"{begin}.*?{end}", lambda _, m=make, b=begin, e=end: f"{b}\n{m()}\n\n{e}", out, flags=re.S
        )
    return out


def main() -> None:
    if "--write" in sys.argv:
        FILE.write_text(text(), encoding="utf-8")
    if FILE.read_text(encoding="utf-8") != text():
        sys.exit("spec/SECAGG.md has not what spec/make_secagg.py writes")


if __name__ == "__main__":
    main()
