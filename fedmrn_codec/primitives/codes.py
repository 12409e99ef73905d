"""The codes of mask kinds and codings in a frame, and their names in the API (spec 4.2, 6.5)."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from .. import errors


class Code(IntEnum):
    """A number in a frame, with a label: the member's name in lower case."""

    @property
    def label(self) -> str:
        """The name that the API, the shell and the conformance kit use, such as "binary"."""
        return self.name.lower()

    @classmethod
    def labels(cls) -> tuple[str, ...]:
        """All labels, in the order of the codes."""
        return tuple(code.label for code in cls)

    @classmethod
    def of(cls, label: object, field: str) -> Self:
        """The member for a label or for the member itself.

        Raises
        ------
        ArgumentError
            `label` is neither; `field` is the argument's name, for the message.
        """
        for code in cls:
            if label is code or label == code.label:
                return code
        raise errors.ArgumentError(field, f"one of {', '.join(cls.labels())}", repr(label))


class MaskKind(Code):
    """What a clear bit does to the noise: binary sets it to 0, signed negates it (spec 4.2)."""

    BINARY = 1
    SIGNED = 2


class Coding(Code):
    """How a payload is encoded (spec 6.5).

    Any payload can be raw; `rans` and `rans12` entropy-code masks, with probabilities of 8 and of 12 bits,
    `rans14` the integers of a grid, with 14 bits; `float16` and `bfloat16` hold dense float32 tensors in 16
    bits.
    """

    RAW = 0
    RANS = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    RANS12 = 4
    RANS14 = 5

    @property
    def minor(self) -> int:
        """The first minor version of the format that has the coding (spec 6.2)."""
        return (0, 1, 1, 1, 2, 3)[self]
