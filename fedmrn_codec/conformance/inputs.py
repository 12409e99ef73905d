"""Bytes that are to be shown or checked, with what their reader knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from ..face import decoding
from ..format.limits import Limits
from ..format.schema import Schema
from ..sums import partial, tally_bytes
from . import oracle
from .request import AddTallies, Decode, Digest, Merge

MAGICS = {partial.MAGIC: "partial-sum", tally_bytes.MAGIC: "tally"}

NO_LIMITS = Limits(2**32, 2**32, 2**80)
"""For a schema outside of a frame: limits are about schemas in frames."""


@dataclass(frozen=True)
class Input:
    """A frame, a partial sum, a tally or a schema, and the expected values and limits of its reader.

    Attributes
    ----------
    data : bytes
    what : {"frame", "partial-sum", "tally", "schema"}
    schema : Schema or None
        The reader's.
    options : oracle.Options
        The expected values and limits.
    strict : bool
        Whether a frame without a schema is refused, [F-09]; else the checks that need it are left out.
    """

    data: bytes
    what: str = "frame"
    schema: Schema | None = None
    options: oracle.Options = field(default_factory=oracle.Options)
    strict: bool = False

    @classmethod
    def of(cls, request: Decode | Merge | AddTallies | Digest) -> Self:
        """The bytes that a request of the kit is about: those of its only partial sum or tally, if any."""
        if isinstance(request, Digest):
            return cls(request.schema, "schema")
        schema = None if request.schema is None else Schema.from_bytes(request.schema)
        if isinstance(request, Merge):
            (data,) = request.partials
            return cls(data, "partial-sum", schema)
        if isinstance(request, AddTallies):
            (data,) = request.tallies
            return cls(data, "tally", schema, oracle.Options(seed=request.seed))
        options = oracle.Options(**{name: getattr(request, name) for name in oracle.Options._fields})
        return cls(request.frame, "frame", schema, options, strict=True)

    @property
    def schema_missing(self) -> bool:
        """Whether neither the bytes nor the reader have a schema."""
        embedded = len(self.data) > 6 and self.data[6] & 1 and self.what == "frame"
        return self.what != "schema" and self.schema is None and not embedded and not self.strict

    @cached_property
    def reference_schema(self) -> oracle.Schema | None:
        """The reader's schema for the oracle."""
        return None if self.schema is None else oracle.parse_schema(self.schema.data)

    def check(self) -> None:
        """Make all checks with the library; FrameError if one fails."""
        o = self.options
        limits = Limits(o.max_tensors, o.max_schema_bytes, o.max_elements)
        if self.what == "schema":
            Schema.from_bytes(self.data, NO_LIMITS)
        elif self.what == "partial-sum":
            if self.schema is not None:
                partial.parse(self.data, self.schema)
        elif self.what == "tally":
            if self.schema is not None:
                tally_bytes.parse(self.data, self.schema, o.seed, "numpy")
        elif self.schema_missing:
            decoding.inspect(self.data, limits=limits)
        else:
            decoding.verify(
                self.data,
                self.schema,
                round=o.round,
                base_model=o.base_model,
                seed=o.seed,
                limits=limits,
                backend="numpy",
            )

    def check_with_oracle(self) -> None:
        """Make all checks with the oracle; `oracle.Refusal`, which has the number, if one fails."""
        if self.what == "schema":
            oracle.parse_schema(self.data)
        elif self.what == "partial-sum":
            if self.reference_schema is not None:
                oracle.partial_from_bytes(self.data, self.reference_schema)
        elif self.what == "tally":
            if self.reference_schema is not None:
                oracle.tally_from_bytes(self.data, self.reference_schema, self.options.seed)
        else:
            oracle.parse(self.data, self.reference_schema, self.options)


def what_is(data: bytes) -> str:
    """What bytes look like: a partial sum or a tally by their magic, a schema if a reader accepts them.

    Anything else is taken for a frame.
    """
    if data[:4] in MAGICS:
        return MAGICS[data[:4]]
    try:
        oracle.parse_schema(data)
    except oracle.Refusal:
        return "frame"
    return "schema"
