"""The request of a server to a client for one round, and the check of the frame that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from .. import errors
from ..format import codings
from ..format.checked import CheckedFrame
from ..format.frame import Buffer
from ..format.limits import DEFAULT_LIMITS, Limits, checked_limits
from ..format.mask_spec import masked_noise
from ..format.parsing import Expected
from ..format.schema import Schema
from ..primitives.arguments import U32, U64, unsigned
from ..primitives.codes import MaskKind
from ..primitives.noise import Noise, checked_noise, noise_text, parse_noise
from .aggregation import Aggregator
from .encoding import encode
from .terms import Terms

WIDE = ("seed", "base_model")
"""Entries of 64 bits, which are decimal text in JSON, since many JSON readers keep 53 bits of a number."""


@dataclass(frozen=True)
class Request:
    """The settings with which one client must encode its frame, in plain types to send to it.

    Parameters
    ----------
    seed : int
        Of the noise: unsigned 64-bit, a different one for every client and round (`choose_seed`).
    noise : Noise, or mapping of str to Noise
        Of all masked tensors, or of each by name (`AdaptiveNoise.noise`).
    mask : {"binary", "signed"} or MaskKind
        Kept as its label; the same holds for the codings.
    round : int
        Unsigned 32-bit; 0 means "not given".
    base_model : int
        The id of the model that the update is added to (`model_id`): unsigned 64-bit; 0 means "not given".
    schema : Schema
    coding, dense_coding : str
        As in `encode`, one for all tensors of its kind. `check` accepts every coding: the frame itself states
        its own.
    limits : Limits
        Of `check` and `aggregator` (spec 9.2); not sent to the client.

    Raises
    ------
    ArgumentError
        A value is of another type or out of range.
    """

    seed: int
    noise: Noise | Mapping[str, Noise]
    mask: str
    round: int
    base_model: int
    schema: Schema
    coding: str = "raw"
    dense_coding: str = "raw"
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        for name, bound in (("seed", U64), ("round", U32), ("base_model", U64)):
            object.__setattr__(self, name, unsigned(getattr(self, name), bound, name))
        check_settings(self.noise, self.mask, self.coding, self.dense_coding)
        if not isinstance(self.schema, Schema):
            raise errors.ArgumentError("schema", "a Schema", type(self.schema).__name__)
        checked_limits(self.limits)
        if isinstance(self.noise, Mapping):
            object.__setattr__(self, "noise", masked_noise(self.schema, self.noise))
        for name in ("mask", "coding", "dense_coding"):
            value = getattr(self, name)
            object.__setattr__(self, name, getattr(value, "label", value))

    @cached_property
    def _terms(self) -> Terms:
        return Terms(
            Expected(self.schema, self.round, self.base_model),
            self.limits,
            noise=masked_noise(self.schema, self.noise),
            masked=frozenset({self.mask}),
        )

    def to_dict(self) -> dict[str, Any]:
        """The request as a flat dictionary of integers, text, and the schema's bytes (spec 5.1).

        A noise for each tensor is a list of texts in the schema's order, which readers that know one noise
        only refuse.
        """
        noise: str | list[str]
        if isinstance(self.noise, Noise):
            noise = noise_text(self.noise)
        else:
            noise = [noise_text(each) for each in self.noise.values()]
        return {
            "seed": self.seed,
            "noise": noise,
            "mask": self.mask,
            "round": self.round,
            "base_model": self.base_model,
            "schema": self.schema.data,
            "coding": self.coding,
            "dense_coding": self.dense_coding,
        }

    def to_json(self) -> dict[str, Any]:
        """The request for `json.dumps`: 64-bit integers as text, the schema as in `Schema.to_json`."""
        out = self.to_dict()
        return out | {name: str(out[name]) for name in WIDE} | {"schema": self.schema.to_json()}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict` and of `to_json`; codings may be absent, unknown entries are ignored.

        Raises
        ------
        CodecError
            An entry is missing, of another type, or out of range; or these are no entries of a dictionary.
        """
        if not isinstance(entries, Mapping):
            raise errors.ArgumentError("request", "a dictionary", type(entries).__name__)
        seed, base_model = (_number(entries, name) for name in WIDE)
        its_schema = _entry(entries, "schema", bytes, list)
        schema = (
            Schema.from_bytes(its_schema) if isinstance(its_schema, bytes) else Schema.from_json(its_schema)
        )
        return cls(
            seed,
            _noise(_entry(entries, "noise", str, list), schema),
            _entry(entries, "mask", str),
            _entry(entries, "round", int),
            base_model,
            schema,
            **{name: _entry(entries, name, str) for name in ("coding", "dense_coding") if name in entries},
        )

    def encode(self, update: Mapping[str, Any], **options: Any) -> bytes:
        """Encode an update with the settings of the request; `update` and the errors are as in `encode`.

        `options` are further arguments of `encode`; they may replace the codings and no other setting.
        """
        codings: dict[str, Any] = {"coding": self.coding, "dense_coding": self.dense_coding}
        return encode(
            update,
            self.schema,
            seed=self.seed,
            noise=self.noise,
            mask=self.mask,
            round=self.round,
            base_model=self.base_model,
            **codings | options,
        )

    def check(
        self, data: Buffer | CheckedFrame, base: Mapping[str, np.ndarray] | None = None
    ) -> CheckedFrame:
        """Check a frame (spec 7), and that it has the request's values, noise and mask kind.

        Parameters
        ----------
        data : bytes-like or CheckedFrame
        base : mapping of str to array, optional
            The base model. If given, its sum with the update must be finite in all dense float tensors.

        Returns
        -------
        CheckedFrame
            All its payloads are checked; `decode` and `Aggregator.add` accept it in place of the bytes.

        Raises
        ------
        FrameError
            A check fails; the first one determines the subclass: `ReplyError` for one that is not in spec 7.
        SchemaError
            A dense float tensor is missing in `base`, or has another shape or dtype there.
        """
        return self._terms.check(data, self.seed, base)

    def aggregator(self) -> Aggregator:
        """An aggregator for frames of all clients whose requests differ only in seed, mask and codings."""
        return Aggregator(
            self.schema, noise=self.noise, round=self.round, base_model=self.base_model, limits=self.limits
        )


def check_settings(noise: object, mask: object, coding: object, dense_coding: object) -> None:
    """Check the noise, one or a mapping of names, the mask kind and the codings of a request.

    Raises
    ------
    ArgumentError
        One is of another type or unknown.
    """
    for each in noise.values() if isinstance(noise, Mapping) else [noise]:
        checked_noise(each)
    MaskKind.of(mask, "mask")
    codings.checked(coding, "coding", codings.MASKED)
    codings.checked(dense_coding, "dense_coding", codings.DENSE)


def _noise(entry: str | list[Any], schema: Schema) -> Noise | dict[str, Noise]:
    """The noise of a request's entry: one text, or a list of one for each masked tensor of the schema."""
    if isinstance(entry, str):
        return parse_noise(entry)
    names = [tensor.name for tensor in schema if tensor.masked]
    if len(entry) != len(names) or not all(isinstance(text, str) for text in entry):
        raise errors.ArgumentError("request entry 'noise'", f"{len(names)} texts", f"a list of {len(entry)}")
    return {name: parse_noise(text) for name, text in zip(names, entry, strict=True)}


def _entry(entries: Mapping[str, Any], name: str, *kinds: type) -> Any:
    value = entries.get(name)
    if not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise errors.ArgumentError(f"request entry {name!r}", expected, type(value).__name__)
    return value


def _number(entries: Mapping[str, Any], name: str) -> int:
    value = _entry(entries, name, int, str)
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= len(str(U64))):
        expected = f"at most {len(str(U64))} decimal digits"
        raise errors.ArgumentError(f"request entry {name!r}", expected, repr(value[:40]))
    return int(value)
