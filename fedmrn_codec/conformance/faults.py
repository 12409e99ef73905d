"""The first check of the format that bytes do not pass, with its number and the place of the fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .. import errors
from . import oracle
from .fields import Field
from .inputs import Input

MOST_ELEMENTS = 2**20
"""The elements of a frame up to which the oracle, which is slow, tells the checks of one coding apart."""

MOVED = {"C-03": "words", "C-08": "words", "C-13": "words", "C-09": "k(0)", "C-14": "last"}
"""Checks of a whole payload, and the field of the payload that does not pass them."""


class Fault(NamedTuple):
    """A check that fails: its number, or those that it may be; the code, the message, and the place."""

    numbers: tuple[str, ...]
    code: str
    message: str
    offset: int

    def __str__(self) -> str:
        return f"[{' or '.join(self.numbers)}] {self.code}: {self.message}"


def find(given: Input, fields: Sequence[Field]) -> Fault | None:
    """The first check that fails, or None."""
    try:
        given.check()
    except errors.FrameError as error:
        numbers = _numbers(given, error)
        return Fault(numbers, error.code, str(error), _place(given.data, fields, error, numbers))
    return None


def _numbers(given: Input, error: errors.FrameError) -> tuple[str, ...]:
    """The number of the check, from the oracle; several where only the code is known."""
    letters = {"frame": "FSC", "partial-sum": "P", "tally": "TC", "schema": "S"}[given.what]
    possible = [n for n, code in oracle.CODES.items() if code == error.code and n[0] in letters]
    if len(possible) > 1 and not (error.code == "coding" and _elements(given) > MOST_ELEMENTS):
        try:
            given.check_with_oracle()
        except oracle.Refusal as refusal:
            if refusal.number in possible:
                return (refusal.number,)
            if refusal.number == "F-09":  # the checks that follow it were made without a schema
                order = list(oracle.CODES)
                possible = [n for n in possible if order.index(n) > order.index("F-09")]
    return tuple(possible)


def _elements(given: Input) -> int:
    """The elements of a frame's tensors."""
    schema = given.reference_schema
    if schema is None:
        size = int.from_bytes(given.data[48:52], "little")
        schema = oracle.parse_schema(given.data[52 : 52 + size])
    return sum(tensor.elements for tensor in schema)


def _place(data: bytes, fields: Sequence[Field], error: errors.FrameError, numbers: tuple[str, ...]) -> int:
    """The byte of the fault: that of the error, or a closer one inside its field."""
    if isinstance(error, errors.TruncatedError) and error.offset == 0:
        return len(data)
    if isinstance(error, errors.SumsError) and error.offset is None:
        return _place_of_sum(data, fields, error)
    at = error.offset or 0
    if isinstance(error, errors.VersionError) and data[at] == 1:
        return at + 1  # the major version is known, the minor one is not
    if isinstance(error, errors.SchemaNameError) and data[at - 2 : at] == bytes(2):
        return at - 2  # the length of an empty name
    field = next((f for f in fields if f.begin <= at < f.end), None)
    if field is None:
        return at
    if isinstance(error, errors.NonFiniteError):
        dtype = next(dtype for dtype in oracle.DTYPES.values() if dtype.name == field.form)
        words = _integers(data[at : field.end], dtype.size)
        return at + dtype.size * next(i for i, w in enumerate(words) if not oracle.is_finite(w, dtype))
    if isinstance(error, errors.GridError) and field.form == "int32":
        return at + 4 * _integers(data[at : field.end], 4, signed=True).index(int(error.got))
    if numbers[0] in MOVED and len(numbers) == 1:
        inside = (f for f in fields if f.begin >= at and f.name.startswith(f"{MOVED[numbers[0]]} of "))
        found = next(inside, field)
        return found.begin if found.end > found.begin else at
    return at


def _place_of_sum(data: bytes, fields: Sequence[Field], error: errors.SumsError) -> int:
    """The sum, or the row of zeros, that the error is about."""
    what, _, name = error.field.partition(" of ")
    rows = [
        f for f in fields if f.form == "int64" and f.name.partition(" of ")[2] == name and f.end > f.begin
    ]
    for row in rows:
        sums = _integers(data[row.begin : row.end], 8, signed=True)
        if what == "rows" and not any(sums):
            return row.begin
        if what == "sums" and error.got in map(str, map(abs, sums)):
            return row.begin + 8 * [str(abs(n)) for n in sums].index(error.got)
    return next((f.begin for f in fields if f.name.partition(" of ")[2] == name), len(data))


def _integers(data: bytes, size: int, *, signed: bool = False) -> list[int]:
    parts = (data[at : at + size] for at in range(0, len(data) - size + 1, size))
    return [int.from_bytes(part, "little", signed=signed) for part in parts]
