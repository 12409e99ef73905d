"""The codes of mask kinds and codings on the wire, and their names in the API (spec 4.2, 6.5)."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from .. import errors


class Code(IntEnum):
    """A code on the wire; its label is the member's name in lower case."""

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
        """The member with this label; a member stands for itself.

        Raises
        ------
        ArgumentError
            There is none; `field` names the argument.
        """
        for code in cls:
            if label is code or label == code.label:
                return code
        raise errors.ArgumentError(field, f"one of {', '.join(cls.labels())}", repr(label))


class MaskKind(Code):
    """What a cleared bit does to the noise: binary drops it, signed negates it (spec 4.2)."""

    BINARY = 1
    SIGNED = 2


class Coding(Code):
    """How a payload is encoded (spec 6.5): raw; rans for masks; 16 bits for dense float32 tensors."""

    RAW = 0
    RANS = 1
    FLOAT16 = 2
    BFLOAT16 = 3
