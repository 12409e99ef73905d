"""The largest frames that a reader accepts (spec 9.2)."""

from __future__ import annotations

from dataclasses import dataclass

from .. import errors


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

    Raises
    ------
    ArgumentError
        A limit is not an integer, or negative.
    """

    max_tensors: int = 2**16
    max_schema_bytes: int = 2**24
    max_elements: int = 2**34

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise errors.ArgumentError(name, "an integer of 0 or more", repr(value))


DEFAULT_LIMITS = Limits()


def checked_limits(limits: Limits) -> Limits:
    """Check the type of an argument `limits`; ArgumentError if it is another."""
    if not isinstance(limits, Limits):
        raise errors.ArgumentError("limits", "a Limits", type(limits).__name__)
    return limits
