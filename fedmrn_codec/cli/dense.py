"""A dense tensor of a file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Dense(NamedTuple):
    """One tensor of a file.

    Attributes
    ----------
    dtype : str
        A name of spec 5.3.
    array : numpy.ndarray
        Of that dtype; bfloat16 is held as its bits in uint16. May be read-only.
    """

    dtype: str
    array: np.ndarray
