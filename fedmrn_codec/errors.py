"""The errors: one base, one subclass a check, a stable code each (spec 7 and 8.5)."""

from __future__ import annotations

from typing import Self


class CodecError(ValueError):
    """Base of every error that this library raises for bad bytes or bad arguments.

    The message reads "FIELD, byte OFFSET: expected EXPECTED, got GOT".

    Attributes
    ----------
    code : str
        Stable and machine-readable; the codes of bad bytes are those of spec 7.3 and 8.5.
    field : str
        What was checked.
    expected, got : str
        What it should have been, and what it was.
    offset : int or None
        Where the field lies, in bytes from the start of the frame; None for arguments.
    index : int or None
        Where many frames were given together, the position of the one that was refused, counted from 0.
    """

    code = "error"
    index: int | None = None

    def __init__(self, field: str, expected: object, got: object, offset: int | None = None) -> None:
        self.field, self.offset, self.expected, self.got = field, offset, str(expected), str(got)
        where = "" if offset is None else f", byte {offset}"
        super().__init__(f"{field}{where}: expected {expected}, got {got}")

    def of_frame(self, index: int) -> Self:
        """The same error, about one of many frames that were given together."""
        field = f"frame {index}" if self.field == "frame" else f"frame {index}, {self.field}"
        out = type(self)(field, self.expected, self.got, self.offset)
        out.index = index
        return out

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.field, self.expected, self.got, self.offset), {"index": self.index}


# --- bad bytes ---------------------------------------------------------------------------------------


class FrameError(CodecError):
    """Base of every error of bytes: a frame, a schema or a partial sum."""


class MalformedError(FrameError):
    """No implementation of this version may accept these bytes."""


class UnsupportedError(FrameError):
    """A later version may allow these bytes; this one does not know them."""


class RefusedError(FrameError):
    """The bytes are fine, but not what this reader asked for."""


class TruncatedError(MalformedError):
    """Bytes are missing: [F-01], [F-06], [F-08], [F-15], [F-25], [P-01]."""

    code = "truncated"


class TrailingError(MalformedError):
    """Bytes are left over: [F-26], [P-13]."""

    code = "trailing"


class MagicError(MalformedError):
    """Not these bytes' format at all: [F-02], [P-02]."""

    code = "magic"


class VersionError(UnsupportedError):
    """A version this library does not know: [F-03], [P-03]."""

    code = "version"


class ReservedError(MalformedError):
    """Reserved bits or bytes are set: [F-04], [F-22], [P-04], [P-10]."""

    code = "reserved"


class LimitError(RefusedError):
    """More than the caller's limits allow: [F-05], [F-07], [S-07]."""

    code = "limit"


class SchemaLengthError(MalformedError):
    """The tensors of a schema do not fill its bytes exactly: [S-01]."""

    code = "schema_length"


class SchemaNameError(MalformedError):
    """A tensor name is empty, not UTF-8, or given twice: [S-02]."""

    code = "schema_name"


class UnknownRoleError(UnsupportedError):
    """A tensor is neither dense nor masked: [S-03]."""

    code = "unknown_role"


class UnknownDtypeError(UnsupportedError):
    """A dtype code that is not assigned: [S-04], [F-18]."""

    code = "unknown_dtype"


class MaskedDtypeError(MalformedError):
    """A masked tensor that is not float32: [S-05]."""

    code = "masked_dtype"


class SchemaShapeError(MalformedError):
    """Too many dimensions or elements: [S-06]."""

    code = "schema_shape"


class SchemaDigestError(MalformedError):
    """The embedded schema is not the one the header names: [S-08]."""

    code = "schema_digest"


class NoSchemaError(RefusedError):
    """Neither the caller nor the frame has a schema: [F-09]."""

    code = "no_schema"


class SchemaMismatchError(RefusedError):
    """The bytes belong to another schema than the caller's: [F-10], [P-07]."""

    code = "schema_mismatch"


class TensorCountError(MalformedError):
    """The header counts other tensors than the schema: [F-11], [P-08]."""

    code = "tensor_count"


class RoundError(RefusedError):
    """A frame of another round than the caller's: [F-12]."""

    code = "round"


class BaseModelError(RefusedError):
    """A frame for another base model than the caller's: [F-13]."""

    code = "base_model"


class SeedError(RefusedError):
    """A frame of another seed than the caller's: [F-14]."""

    code = "seed"


class UnknownKindError(UnsupportedError):
    """A kind code that is not assigned: [F-16]."""

    code = "unknown_kind"


class KindMismatchError(MalformedError):
    """A dense entry for a masked tensor, or the reverse: [F-17]."""

    code = "kind_mismatch"


class DtypeMismatchError(MalformedError):
    """A dense entry of another dtype than the schema's: [F-19]."""

    code = "dtype_mismatch"


class UnknownDistributionError(UnsupportedError):
    """A distribution code that is not assigned: [F-20], [P-09]."""

    code = "unknown_distribution"


class UnknownCodingError(UnsupportedError):
    """A coding code that is not assigned: [F-21]."""

    code = "unknown_coding"


class PayloadLengthError(MalformedError):
    """A payload length that does not fit the tensor: [F-23]."""

    code = "payload_length"


class FrameScaleError(MalformedError):
    """A noise scale outside its bounds: [F-24], [P-11]."""

    code = "scale"


class MinorError(MalformedError):
    """A higher minor version than the frame needs: [F-31]."""

    code = "minor"


class CodingError(MalformedError):
    """A payload that its coding does not allow: [C-01] to [C-04]."""

    code = "coding"


class ChecksumError(MalformedError):
    """The CRC-32 does not fit the bytes: [F-27], [P-14]."""

    code = "checksum"


class PaddingError(MalformedError):
    """Bits beyond the last element are set: [F-28]."""

    code = "padding"


class NonFiniteError(MalformedError):
    """A NaN or an infinity in a dense tensor: [F-29]."""

    code = "non_finite"


class BoolError(MalformedError):
    """A bool that is neither 0 nor 1: [F-30]."""

    code = "bool"


class WeightError(MalformedError):
    """A partial sum's weight is out of range: [P-05]."""

    code = "weight"


class FramesError(MalformedError):
    """A partial sum's number of frames is out of range: [P-06]."""

    code = "frames"


class RowsError(MalformedError):
    """The limb rows of a partial sum are out of order or of range: [P-12]."""

    code = "rows"


class SumsError(MalformedError):
    """A sum is larger than its weight allows, or a limb row is all 0: [P-15]."""

    code = "sums"


class NoiseError(RefusedError):
    """A frame or a partial sum with other noise than the aggregator's: [A-02]."""

    code = "aggregate"


class ReplyError(RefusedError):
    """A reply that is not what the server asked for, beyond the checks of spec 7 (`Request.check`)."""

    code = "reply"


# --- bad arguments -----------------------------------------------------------------------------------


class ArgumentError(CodecError):
    """An argument of the wrong type or value; nothing was done."""

    code = "argument"


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


class AggregateError(ArgumentError):
    """Frames or sums that have no common mean: [A-01], [A-02]."""

    code = "aggregate"


class BackendError(ArgumentError):
    """A backend that does not exist or is not installed."""

    code = "backend"
