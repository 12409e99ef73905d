"""The largest frames that a reader accepts (spec 9.2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Upper bounds of a frame's counts and lengths, which are checked before memory is allocated (spec 9.2).

    Attributes
    ----------
    max_tensors : int
        Tensors of a frame, [F-05], and of an embedded schema, [S-09].
    max_schema_bytes : int
        Bytes of an embedded schema, [F-07].
    max_elements : int
        Elements of an embedded schema, all tensors together, [S-07].
    """

    max_tensors: int = 2**16
    max_schema_bytes: int = 2**24
    max_elements: int = 2**34


DEFAULT_LIMITS = Limits()
