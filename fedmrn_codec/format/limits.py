"""What a reader is willing to take in (spec 9.2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Caps that are compared with a frame's claims before any memory is taken.

    Attributes
    ----------
    max_tensors : int
        Entries of a frame's table, [F-05].
    max_schema_bytes : int
        Bytes of an embedded schema, [F-07].
    max_elements : int
        Elements of an embedded schema, all tensors together, [S-07].
    """

    max_tensors: int = 2**16
    max_schema_bytes: int = 2**24
    max_elements: int = 2**34


DEFAULT_LIMITS = Limits()
