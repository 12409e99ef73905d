"""The learning rate of a round: constant, or falling as convergence proofs ask."""

from __future__ import annotations

import math

EXPONENTS = {"inverse": 1.0, "inverse-sqrt": 0.5}
CONSTANT = "constant"


def factor(schedule: str, round: int) -> float:
    """The learning rate of a round as a multiple of the first round's.

    Parameters
    ----------
    schedule : str
        "constant"; "inverse:GAMMA" for GAMMA / (GAMMA + round - 1), which falls as 1 / round; or
        "inverse-sqrt:GAMMA" for the square root of that. GAMMA is a number of rounds above 0, after which
        the fall becomes noticeable.
    round : int
        From 1.

    Returns
    -------
    float
        1 in round 1, above 0.

    Raises
    ------
    ValueError
        A schedule of another form.
    """
    if schedule == CONSTANT:
        return 1.0
    name, _, written = schedule.partition(":")
    try:
        gamma = float(written)
    except ValueError:
        gamma = math.nan
    if name not in EXPONENTS or not 0 < gamma < math.inf:
        expected = f"{CONSTANT}, {' or '.join(f'{each}:GAMMA' for each in EXPONENTS)} with GAMMA above 0"
        raise ValueError(f"learning rate schedule: expected {expected}, got {schedule!r}")
    return float((gamma / (gamma + round - 1)) ** EXPONENTS[name])
