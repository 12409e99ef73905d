"""The errors: one base class, and a subclass with a stable code for each check (spec 7 and 8.5)."""

from __future__ import annotations

import re
from typing import Self

MOST_TEXT = 500
"""Characters of a field or a value in a message; names and values from strangers can have any number."""


class CodecError(ValueError):
    """Base class of every error that this library raises for bad bytes or bad arguments.

    The message reads "FIELD, byte OFFSET: expected EXPECTED, got GOT". Each of the three texts is cut to
    some 500 characters.

    Attributes
    ----------
    code : str
        Machine-readable, and the same in every release; for bad bytes, a code of spec 7.3 or 8.5. It is the
        name of the class, such as "schema_length" for SchemaLengthError, unless the class states another.
    field : str
        The field or argument that was checked.
    expected, got : str
        What was expected of it, and what it was.
    offset : int or None
        Where the field begins, in bytes from the start of the frame; None for arguments.
    index : int or None
        If the call was given many frames, the position, from 0, of the frame that was refused; else None.
    """

    code = "error"
    index: int | None = None

    def __init_subclass__(cls) -> None:
        if "code" not in vars(cls):
            cls.code = re.sub("(?<!^)([A-Z])", r"_\1", cls.__name__.removesuffix("Error")).lower()

    def __init__(self, field: str, expected: object, got: object, offset: int | None = None) -> None:
        self.field, self.expected, self.got = map(_short, (field, expected, got))
        self.offset = offset
        where = "" if offset is None else f", byte {offset}"
        super().__init__(f"{self.field}{where}: expected {self.expected}, got {self.got}")

    def of_frame(self, index: int) -> Self:
        """The same error with the frame's index, for a call that was given many frames."""
        field = f"frame {index}" if self.field == "frame" else f"frame {index}, {self.field}"
        out = type(self)(field, self.expected, self.got, self.offset)
        out.index = index
        return out

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.field, self.expected, self.got, self.offset), {"index": self.index}


def _short(value: object) -> str:
    """The text of a value, with its length in place of what is cut off."""
    try:
        text = str(value)
    except ValueError:  # Python's limit of decimal digits
        return "an integer of more digits than Python shows"
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}... ({len(text)} characters)"


# --- bad bytes ---------------------------------------------------------------------------------------


class FrameError(CodecError):
    """Base class of the errors that bytes cause: a frame, a schema, a partial sum, a tally or an envelope."""


class MalformedError(FrameError):
    """No implementation of this version may accept these bytes."""


class UnsupportedError(FrameError):
    """The bytes use a version or a code that this version does not know; a later one may."""


class RefusedError(FrameError):
    """The bytes are valid, but differ from the reader's expected values or exceed its limits."""


class TruncatedError(MalformedError):
    """Bytes are missing: [F-01], [F-06], [F-08], [F-15], [F-25], [P-01], [T-01], [V-01], [V-07]."""


class TrailingError(MalformedError):
    """There are more bytes than the fields and payloads need: [F-26], [P-13], [T-17], [V-08]."""


class MagicError(MalformedError):
    """The first four bytes are not those of what is expected: [F-02], [P-02], [T-02], [V-02]."""


class VersionError(UnsupportedError):
    """A version that this library does not know: [F-03], [P-03], [T-03], [V-03]."""


class ReservedError(MalformedError):
    """Reserved bits or bytes are set: [F-04], [F-22], [P-04], [P-10], [T-04], [T-13], [V-05]."""


class LimitError(RefusedError):
    """More than the caller's limits allow: [F-05], [F-07], [S-07], [S-09], [V-06]."""


class SchemaLengthError(MalformedError):
    """A schema has fewer or more bytes than its tensors need: [S-01]."""


class SchemaNameError(MalformedError):
    """A tensor name is empty, not UTF-8, or given twice: [S-02]."""


class UnknownRoleError(UnsupportedError):
    """A tensor is neither dense nor masked: [S-03]."""


class UnknownDtypeError(UnsupportedError):
    """A dtype code that is not assigned: [S-04], [F-18]."""


class MaskedDtypeError(MalformedError):
    """A masked tensor that is not float32: [S-05]."""


class SchemaShapeError(MalformedError):
    """Too many dimensions or elements: [S-06]."""


class SchemaDigestError(MalformedError):
    """The digest of the embedded schema is not the one in the header: [S-08]."""


class NoSchemaError(RefusedError):
    """The caller gave no schema and the frame embeds none: [F-09]."""


class SchemaMismatchError(RefusedError):
    """The bytes belong to another schema than the caller's: [F-10], [P-07], [T-07]."""


class TensorCountError(MalformedError):
    """The number of tensors in the header is not the schema's: [F-11], [P-08], [T-08]."""


class RoundError(RefusedError):
    """The frame's round is not the expected one: [F-12]."""


class BaseModelError(RefusedError):
    """The frame's base model is not the expected one: [F-13]."""


class SeedError(RefusedError):
    """The seed of a frame or a tally is not the expected one: [F-14], [T-09]."""


class UnknownKindError(UnsupportedError):
    """A kind code that is not assigned: [F-16], [T-10]."""


class KindMismatchError(MalformedError):
    """A dense entry for a masked tensor, or the reverse: [F-17]."""


class DtypeMismatchError(MalformedError):
    """The dtype of a dense entry is not the schema's: [F-19]."""


class UnknownDistributionError(UnsupportedError):
    """A distribution code that is not assigned: [F-20], [P-09], [T-11]."""


class UnknownCodingError(UnsupportedError):
    """A coding code that is not assigned: [F-21], [T-12]."""


class PayloadLengthError(MalformedError):
    """The length of a payload is not one that the tensor and coding allow: [F-23], [T-15]."""


class FrameScaleError(MalformedError):
    """A noise scale outside its bounds: [F-24], [P-11], [T-14]."""

    code = "scale"


class MinorError(MalformedError):
    """The minor version is not that of what the frame or the partial sum has: [F-31], [P-16]."""


class CodingError(MalformedError):
    """An entropy-coded payload that its coding does not allow: [C-01] to [C-14]."""


class ChecksumError(MalformedError):
    """The checksum is not the CRC-32 of the bytes: [F-27], [P-14], [T-18]."""


class PaddingError(MalformedError):
    """A bit after the last element of a mask, or the last count of a tally, is set: [F-28], [T-19]."""


class NonFiniteError(MalformedError):
    """A NaN or an infinity in a dense tensor: [F-29]."""


class BoolError(MalformedError):
    """The byte of a bool is neither 0 nor 1: [F-30]."""


class GridError(MalformedError):
    """An integer of a grid is beyond the bounds of its dtype: [F-32]."""


class WeightError(MalformedError):
    """The weight of a partial sum or a tally is out of range: [P-05], [T-06]."""


class FramesError(MalformedError):
    """The number of frames of a partial sum or a tally is out of range: [P-06], [T-05]."""


class RowsError(MalformedError):
    """Limb rows are not in ascending order, or out of range: [P-12], [T-16]."""


class SumsError(MalformedError):
    """A sum or count is too large, or a limb row has only zeros: [P-15], [T-20]; or no mean, [A-07]."""


class NoiseError(RefusedError):
    """The noise of a frame, a partial sum or a tally, or a grid's step, is not the expected one: [A-02]."""

    code = "aggregate"


class UnlikeError(RefusedError):
    """A frame's seed, round, base model or mask kind is not that of the tally's other frames: [A-08]."""

    code = "aggregate"


class ReplyError(RefusedError):
    """A frame whose noise, mask kind, step or sum with the base model is not what the server asked for.

    Its subclasses have codes of their own; they are raised for what `Policy` states and `Request` does not.
    """


class FrameLengthError(ReplyError):
    """A frame has more bytes than the policy allows."""


class FrameWeightError(ReplyError):
    """The weight of a frame is not an integer from 1 to the largest that the policy allows."""


class UnknownClientError(ReplyError):
    """The policy has no seed for the client."""


class RepeatedError(ReplyError):
    """A client, or a seed, has been accepted in this round before (`Intake`)."""


class EmbeddedSchemaError(ReplyError):
    """A frame carries its schema, which the policy does not allow."""


class ReplyCodingError(ReplyError):
    """A payload has a coding that the policy does not allow."""


class ValueBoundError(ReplyError):
    """An element of a tensor that is not sent as a mask exceeds the policy's bound."""


class NormBoundError(ReplyError):
    """The norm of the update exceeds the policy's bound."""


class UnknownAlgorithmError(UnsupportedError):
    """An envelope's algorithm is not assigned: [V-04]."""


class UnknownKeyError(RefusedError):
    """The key of an envelope is not one that the receiver knows: [V-09]."""


class KeyAlgorithmError(RefusedError):
    """The algorithm of an envelope is not that of its key: [V-10]."""


class SignatureError(RefusedError):
    """The signature of an envelope is not that of its key for these bytes and this context: [V-11]."""


class JournalError(MalformedError):
    """A journal that is damaged or incomplete, or whose rounds do not follow from each other (`replay`).

    Attributes
    ----------
    file : str
        The name of the file in the journal's folder. The message begins with it; `field` names the round.
    """

    def __init__(
        self, field: str, expected: object, got: object, offset: int | None = None, file: str = ""
    ) -> None:
        super().__init__(field, expected, got, offset)
        self.file = file
        if file:
            self.args = (f"{file}, {self.args[0]}",)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.field, self.expected, self.got, self.offset, self.file)


# --- bad arguments -----------------------------------------------------------------------------------


class ArgumentError(CodecError):
    """An argument has the wrong type or value; the call changed nothing."""


class ScaleError(ArgumentError):
    """A noise scale outside the bounds of its distribution: [N-03]."""

    code = "argument_scale"


class SchemaError(ArgumentError):
    """A schema that the format cannot express (spec 5)."""

    code = "argument_schema"


class UpdateError(ArgumentError):
    """An update that does not fit the schema: a name, a shape or a dtype, [E-02]."""

    code = "argument_update"


class UpdateNonFiniteError(UpdateError):
    """An update that holds a NaN or an infinity, [E-02]."""

    code = "argument_non_finite"


class UpdateGridError(UpdateError):
    """A tensor with elements beyond the largest integer of its grid (spec 6.12)."""

    code = "argument_grid"


class AggregateError(ArgumentError):
    """A weight is not allowed, or sums cannot be merged: [A-01], [A-02], [A-08] to [A-10]."""


class BackendError(ArgumentError):
    """A backend does not exist, or its packages are not installed."""
