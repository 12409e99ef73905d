"""The numbered checks with their codes (spec 7.3, 8.1, 8.5, 8.6), and a reader of bytes."""

from __future__ import annotations

import re

# spec 7.3, 8.1, 8.5, 8.6
_CODES = """
F-01 truncated F-02 magic F-03 version F-04 reserved F-05 limit F-06 truncated F-07 limit F-08 truncated
S-01 schema_length S-02 schema_name S-03 unknown_role S-04 unknown_dtype S-05 masked_dtype S-06 schema_shape
S-09 limit S-07 limit S-08 schema_digest F-09 no_schema F-10 schema_mismatch F-11 tensor_count F-12 round
F-13 base_model F-14 seed F-15 truncated F-16 unknown_kind F-17 kind_mismatch F-18 unknown_dtype
F-19 dtype_mismatch
F-20 unknown_distribution F-21 unknown_coding F-22 reserved F-23 payload_length F-24 scale F-25 truncated
F-31 minor F-26 trailing F-27 checksum F-28 padding F-29 non_finite F-30 bool
C-01 coding C-02 coding C-03 coding C-04 coding
C-05 coding C-06 coding C-07 coding C-08 coding C-09 coding
C-10 coding C-11 coding C-12 coding C-13 coding C-14 coding F-32 grid
P-01 truncated P-02 magic P-03 version P-04 reserved P-05 weight P-06 frames P-07 schema_mismatch
P-08 tensor_count P-09 unknown_distribution P-10 reserved P-11 scale P-12 rows P-13 trailing P-14 checksum
P-15 sums P-16 minor A-01 aggregate A-02 aggregate A-06 aggregate A-07 sums
A-08 aggregate A-09 aggregate A-10 aggregate
T-01 truncated T-02 magic T-03 version T-04 reserved T-05 frames T-06 weight T-07 schema_mismatch
T-08 tensor_count T-09 seed T-10 unknown_kind T-11 unknown_distribution T-12 unknown_coding T-13 reserved
T-14 scale T-15 payload_length T-16 rows T-17 trailing T-18 checksum T-19 padding T-20 sums
"""
CODES = dict(line.split(" ") for line in re.findall(r"\S+ \S+", _CODES))


class Refusal(ValueError):
    """A failed check: the format's code, the number of the MUST, and a detail."""

    def __init__(self, number: str, detail: str) -> None:
        self.code, self.number, self.detail = CODES[number], number, detail
        super().__init__(f"{self.code} [{number}]: {detail}")


def require(condition: bool, number: str, detail: str) -> None:
    """Raise `Refusal` unless the condition holds."""
    if not condition:
        raise Refusal(number, detail)


class Reader:
    """Reads bytes from the front; missing bytes are refused with the number of a MUST."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, size: int, number: str, what: str) -> bytes:
        """The next `size` bytes."""
        left = len(self.data) - self.at
        require(size <= left, number, f"{what}, byte {self.at}: expected {size} bytes, got {left}")
        self.at += size
        return self.data[self.at - size : self.at]

    def uint(self, size: int, number: str, what: str) -> int:
        """The next `size` bytes as an unsigned integer (spec 1.2)."""
        return int.from_bytes(self.take(size, number, what), "little")
