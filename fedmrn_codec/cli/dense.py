"""One dense tensor in a file."""

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
        In that dtype; uint16 bits for bfloat16. May be read-only.
    """

    dtype: str
    array: np.ndarray
