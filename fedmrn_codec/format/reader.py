"""Reading fields in sequence, with an error where bytes are missing."""

from __future__ import annotations

from .. import errors


class Reader:
    """Takes fields off bytes, one after the other.

    Parameters
    ----------
    data : memoryview
    missing : type of FrameError
        What to raise if fewer bytes are left than a field needs.
    base : int
        Offset of the first byte in the frame or partial sum, for messages.
    """

    def __init__(self, data: memoryview, missing: type[errors.FrameError], base: int = 0) -> None:
        self.data, self.missing, self.base, self.at = data, missing, base, 0

    @property
    def offset(self) -> int:
        """Offset of the next byte in the frame or partial sum."""
        return self.base + self.at

    @property
    def left(self) -> int:
        """The number of bytes that are left."""
        return len(self.data) - self.at

    def take(self, size: int, field: str) -> memoryview:
        """The next `size` bytes; `field` names them in the error."""
        if size > self.left:
            raise self.missing(field, f"{size} bytes", f"{self.left} bytes left", self.offset)
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, field: str) -> int:
        """The next `size` bytes as an unsigned little-endian integer."""
        return int.from_bytes(self.take(size, field), "little")
