"""The learning rate of a round: constant, or falling as convergence proofs ask."""

from __future__ import annotations

import math

EXPONENTS = {"inverse": 1.0, "inverse-sqrt": 0.5}
CONSTANT = "constant"


def parse(schedule: str) -> tuple[float, float]:
    """GAMMA and the exponent of a schedule, whose rate is proportional to (GAMMA + round - 1) ** -exponent.

    Parameters
    ----------
    schedule : str
        "constant"; "inverse:GAMMA", which falls as 1 / round; or "inverse-sqrt:GAMMA", which falls as
        1 / sqrt(round). GAMMA is the number of rounds, above 0, after which the fall becomes noticeable.

    Raises
    ------
    ValueError
        A schedule of another form.
    """
    if schedule == CONSTANT:
        return 1.0, 0.0
    name, _, written = schedule.partition(":")
    try:
        gamma = float(written)
    except ValueError:
        gamma = math.nan
    if name not in EXPONENTS or not 0 < gamma < math.inf:
        expected = f"{CONSTANT}, {' or '.join(f'{each}:GAMMA' for each in EXPONENTS)} with GAMMA above 0"
        raise ValueError(f"learning rate schedule: expected {expected}, got {schedule!r}")
    return gamma, EXPONENTS[name]


def factor(schedule: str, round: int) -> float:
    """The learning rate of a round, from 1, as a multiple of the first round's; errors as in `parse`."""
    gamma, exponent = parse(schedule)
    return float((gamma / (gamma + round - 1)) ** exponent)
