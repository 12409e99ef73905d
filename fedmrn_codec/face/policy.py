"""What a server states beforehand about frames from strangers, in one object."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from .. import errors
from ..format.checked import CheckedFrame
from ..format.frame import CHECKSUM, ENTRY, HEADER, SCALE, Buffer, as_view
from ..format.limits import DEFAULT_LIMITS, Limits, checked_limits
from ..format.mask_spec import masked_noise, masked_values
from ..format.parsing import Expected
from ..format.schema import Schema, Tensor
from ..primitives.arguments import U32, U64, unsigned
from ..primitives.codes import Coding, MaskKind
from ..primitives.noise import Noise
from ..sums.state import MAX_WEIGHT
from . import toml
from .aggregation import Aggregator
from .policy_arguments import (
    Seeds,
    checked_bounds,
    checked_count,
    checked_labels,
    checked_positive,
    checked_seeds,
    checked_step,
    is_count,
    stated_noise,
)
from .policy_toml import noise_of, seeds_of, text_of_noise, text_of_seeds
from .request import Request
from .seeds import choose_seed
from .terms import Terms

KINDS = ("mask", "grid")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Everything that a server states beforehand about the frames of one round; strict by default.

    A policy is immutable: `dataclasses.replace` makes that of the next round. It may be used by many threads,
    and a replay of the round makes the same checks. What has been accepted and refused is in an `Intake`.

    Parameters
    ----------
    schema : Schema
    noise : Noise, or mapping of str to Noise
        Of all masked tensors, or of each by name. None only if `kinds` has no mask.
    mask : {"binary", "signed"} or MaskKind
    round : int
        Unsigned 32-bit. Frames must have this value, also if it is 0, "not given".
    base_model : int
        The id of the model that the update is added to (`model_id`): unsigned 64-bit, as `round`.
    seeds : mapping of client to int, int, or callable
        The seed of each client. A mapping names all clients, each with a seed of its own; an integer or a
        callable gives one to every client, as in `choose_seed`. None accepts any seed.
    max_weight : int
        The largest weight, usually the number of samples that a client can have.
    kinds : collection of {"mask", "grid"}
        How float tensors may be sent. Masked ones come as masks, or on a grid if "mask" is left out: the two
        cannot be summed with each other. Dense ones may always come as elements, and with "grid" on a grid.
    codings : collection of {"raw", "rans", "rans12", "rans14", "float16", "bfloat16"}
        The codings of payloads. An entropy coding needs "raw" as well, since short payloads stay raw.
    step : float, or mapping of str to float, optional
        The step of masked tensors that are sent on a grid; required where they are.
    embedded : bool
        Whether frames may carry their schema.
    max_bytes : int, optional
        The longest frame. Default: that of a frame with this schema whose payloads are raw.
    max_value : float, or mapping of str to float, optional
        Bound of the magnitude of elements: in all float tensors, or in the tensors named. It does not apply
        to tensors that are sent as masks: the noise bounds them.
    max_norm : float, optional
        Bound of the Euclidean norm of the update, the difference to the base model, over all float tensors.
        It is computed in float64, where a norm next to the bound may be rounded to either side.
    limits : Limits
        Counts and lengths that are checked before memory is allocated (spec 9.2).

    Raises
    ------
    ArgumentError
        A value is of another type or out of range, or two clients have the same seed.
    """

    schema: Schema
    noise: Noise | Mapping[str, Noise] | None
    mask: str = "binary"
    round: int
    base_model: int
    seeds: Seeds
    max_weight: int
    kinds: Collection[str] = ("mask",)
    codings: Collection[str] = ("raw",)
    step: float | Mapping[str, float] | None = None
    embedded: bool = False
    max_bytes: int | None = None
    max_value: float | Mapping[str, float] | None = None
    max_norm: float | None = None
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        if not isinstance(self.schema, Schema):
            raise errors.ArgumentError("schema", "a Schema", type(self.schema).__name__)
        checked_limits(self.limits)
        self._set("round", unsigned(self.round, U32, "round"))
        self._set("base_model", unsigned(self.base_model, U64, "base_model"))
        self._set("mask", MaskKind.of(self.mask, "mask").label)
        self._set("kinds", checked_labels(self.kinds, KINDS, "kinds"))
        self._set("codings", checked_labels(self.codings, Coding.labels(), "codings"))
        self._set("noise", stated_noise(self.noise, self.schema) if "mask" in self.kinds else None)
        self._set("seeds", checked_seeds(self.seeds, self.round))
        self._set("max_weight", checked_count(self.max_weight, MAX_WEIGHT, "max_weight"))
        if self.max_bytes is not None:
            self._set("max_bytes", checked_count(self.max_bytes, U64 - 1, "max_bytes"))
        if not isinstance(self.embedded, bool):
            raise errors.ArgumentError("embedded", "a bool", repr(self.embedded))
        if isinstance(self.step, Mapping):
            self._set("step", {name: checked_step(step) for name, step in self._steps().items()})
        elif self.step is not None:
            self._set("step", checked_step(self.step))
        if self.step is None and "mask" not in self.kinds and any(tensor.masked for tensor in self.schema):
            raise errors.ArgumentError("step", "that of masked tensors on a grid", None)
        self._set("max_value", checked_bounds(self.max_value, self.schema))
        if self.max_norm is not None:
            self._set("max_norm", checked_positive(self.max_norm, "max_norm"))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @cached_property
    def frame_bytes(self) -> int:
        """The longest frame that is accepted, in bytes: `max_bytes`, or what the schema gives."""
        if self.max_bytes is not None:
            return self.max_bytes
        schema = 4 + len(self.schema.data) if self.embedded else 0
        dense, masked = "grid" in self.kinds, "mask" not in self.kinds
        parts = (_longest(tensor, masked if tensor.masked else dense) for tensor in self.schema)
        return HEADER.size + schema + sum(parts) + CHECKSUM.size

    @cached_property
    def _terms(self) -> Terms:
        masks = {self.mask} if "mask" in self.kinds else set()
        grids = {"grid"} & set(self.kinds)
        return Terms(
            Expected(self.schema, self.round, self.base_model, embedded=self.embedded),
            self._own_limits(),
            noise={} if self.noise is None else masked_noise(self.schema, self.noise),
            masked=frozenset(masks or grids),
            dense=frozenset({"dense"} | grids),
            codings=frozenset(self.codings),
            step=self._steps(),
            max_value=self._max_values(),
            max_norm=self.max_norm,
        )

    def _own_limits(self) -> Limits:
        """The limits, and for an embedded schema the size of the server's own, which it must be equal to."""
        if not self.embedded:
            return self.limits
        tensors = min(self.limits.max_tensors, len(self.schema))
        size = min(self.limits.max_schema_bytes, len(self.schema.data))
        return replace(self.limits, max_tensors=tensors, max_schema_bytes=size)

    def _steps(self) -> dict[str, float]:
        """The step of each masked tensor, by name, if they are stated."""
        return {} if self.step is None else masked_values(self.schema, self.step, "step")

    def _max_values(self) -> Mapping[str, float]:
        """The bound of each tensor that has one, by name."""
        if isinstance(self.max_value, Mapping):
            return self.max_value
        bound = self.max_value
        return {} if bound is None else {t.name: bound for t in self.schema if t.type.is_float}

    def check(
        self,
        frame: Buffer | CheckedFrame,
        *,
        client: Hashable,
        weight: int,
        base: Mapping[str, np.ndarray] | None = None,
    ) -> CheckedFrame:
        """Check and parse a frame once, cheap checks first.

        The order is: length, weight, client; header, table, checksum, payloads as in spec 7; the bounds; the
        sum with the base model. Nothing is remembered: `Intake` accepts each client and seed once.

        Parameters
        ----------
        frame : bytes-like or CheckedFrame
        client : hashable
            The sender, as the server has authenticated it.
        weight : int
            From 1 to `max_weight`.
        base : mapping of str to array, optional
            The base model. If given, its sum with the update must be finite in all dense float tensors.

        Returns
        -------
        CheckedFrame
            All its payloads are checked; `decode` and `Aggregator.add` accept it in place of the bytes.

        Raises
        ------
        FrameError
            A check fails; the first one determines the subclass: one of ReplyError for those not in spec 7.
        SchemaError
            A dense float tensor is missing in `base`, or has another shape or dtype there.
        """
        length = frame.frame_bytes if isinstance(frame, CheckedFrame) else len(as_view(frame))
        if length > self.frame_bytes:
            raise errors.FrameLengthError("frame", f"at most {self.frame_bytes} bytes", length)
        if not is_count(weight, self.max_weight):
            raise errors.FrameWeightError("weight", f"an integer from 1 to {self.max_weight}", weight)
        return self._terms.check(frame, self.seed_of(client), base)

    def seed_of(self, client: Hashable) -> int | None:
        """The seed that the frame of a client must have; None if any is accepted.

        Raises
        ------
        UnknownClientError
            The mapping of seeds does not name the client.
        ArgumentError
            As in `choose_seed`.
        """
        if self.seeds is None:
            return None
        if not isinstance(self.seeds, Mapping):
            return choose_seed(self.seeds, self.round, client)
        if client not in self.seeds:
            raise errors.UnknownClientError("client", "one that has a seed", client)
        return self.seeds[client]

    def request(self, client: Hashable, *, coding: str = "raw", dense_coding: str = "raw") -> Request:
        """The request for one client: its part of the policy, to be sent to it.

        Raises
        ------
        ArgumentError
            The policy has no seeds or no noise, or does not allow the codings.
        FrameError
            As in `seed_of`.
        """
        for field, label in (("coding", coding), ("dense_coding", dense_coding)):
            if getattr(label, "label", label) not in self.codings:
                raise errors.ArgumentError(field, f"one of {', '.join(self.codings)}", repr(label))
        seed, noise = self.seed_of(client), self.noise
        if seed is None or noise is None:
            missing = "seeds" if seed is None else "noise"
            raise errors.ArgumentError(missing, "a policy that states it, to make a request", None)
        own = self.mask, self.round, self.base_model, self.schema
        return Request(seed, noise, *own, coding, dense_coding, self.limits)

    def aggregator(self, *, backend: str | None = None) -> Aggregator:
        """An empty aggregator for the frames of the round; it states the noise, if masks are allowed."""
        return Aggregator(
            self.schema,
            noise=self.noise,
            round=self.round,
            base_model=self.base_model,
            limits=self.limits,
            backend=backend,
        )

    def to_toml(self) -> str:
        """The policy as TOML. Seeds and the id of the base model, which may need 64 bits, are text.

        Raises
        ------
        ArgumentError
            The seeds are a callable, or a client is no text.
        """
        out: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                out[field.name] = list(value) if isinstance(value, tuple) else value
        noise = {} if self.noise is None else {"noise": text_of_noise(self.noise)}
        rest = {"base_model": str(self.base_model), "limits": dict(vars(self.limits))}
        schema = {"schema": self.schema.to_json()}
        return toml.dumps({**out, **noise, "seeds": text_of_seeds(self.seeds), **rest, **schema})

    @classmethod
    def from_toml(cls, source: str | os.PathLike[str]) -> Self:
        """Read a policy, the inverse of `to_toml`; what has a default may be absent.

        Parameters
        ----------
        source : str or path
            A path; or TOML, if it is a string of more than one line.

        Raises
        ------
        ArgumentError
            It is no TOML, a key is unknown or missing, or a value is of another type or out of range.
        SchemaError, ScaleError
            As in `Schema` and `Noise`.
        OSError
            The file cannot be read.
        """
        entries = toml.loads(source, "policy")
        known = [field.name for field in fields(cls)]
        toml.check_keys(entries, known, "policy")
        needed = ["schema", "round", "base_model", "seeds", "max_weight"]
        if missing := [name for name in needed if name not in entries]:
            raise errors.ArgumentError(
                "policy", f"the keys {', '.join(needed)}", f"nothing for {missing[0]!r}"
            )
        entries["schema"] = Schema.from_json(toml.of_type(entries["schema"], list, "schema"))
        entries["noise"] = noise_of(entries.get("noise"))
        entries["base_model"] = toml.integer(entries["base_model"], "base_model")
        entries["seeds"] = seeds_of(entries["seeds"])
        if "limits" in entries:
            given = toml.of_type(entries["limits"], dict, "limits")
            toml.check_keys(given, [field.name for field in fields(Limits)], "limits")
            entries["limits"] = Limits(**given)
        return cls(**entries)


def _longest(tensor: Tensor, grid: bool) -> int:
    """The most bytes of a tensor in a frame, its table entry and its raw payload."""
    grid = grid and tensor.type.is_float
    entry = ENTRY.size + SCALE.size * (tensor.masked or grid)
    return entry + max(tensor.payload_bytes, 4 * tensor.size * grid)
