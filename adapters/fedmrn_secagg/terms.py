"""What server and clients agree on before a round, and its digest (spec/SECAGG.md 2)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import checked_steps, masked_values, unsigned

from . import keys
from .messages import label

MOST_FRAMES = 2**24 - 1
"""The largest number of clients times the largest weight."""

MOST_BYTES = 2**38
"""Of a section of a vector: the keystream of one nonce (spec 6.4)."""

MOST_SESSION = 255
"""Bytes."""

STEPS = {"float32": 2.0**-18, "float64": 2.0**-18, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""The step of a dense float tensor for which none is given, by dtype: a range of about 64, 64, 2 and 2."""

Steps = float | Mapping[str, float] | None


@dataclass(frozen=True, eq=False)
class Terms:
    """The agreed values of a round.

    Parameters
    ----------
    request : fedmrn_codec.Request
    threshold : int
        Shares that restore a secret, 2 or more.
    largest_weight : int
    step : float, mapping of str to float, or None
        Of the grids of all dense float tensors, or of some by name: a power of two. Default: `STEPS`.
    session : bytes
        At most 255.
    signed : bool
        Whether the owners of identity keys sign their public keys.

    Raises
    ------
    ArgumentError
        A value is of another type or out of range, [X-38].
    """

    request: fm.Request
    threshold: int
    largest_weight: int = 1
    step: Steps = None
    session: bytes = b""
    signed: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.request, fm.Request):
            raise fm.ArgumentError("request", "a Request", type(self.request).__name__)
        for name, least in (("threshold", 2), ("largest_weight", 1)):
            value = unsigned(getattr(self, name), MOST_FRAMES + 1, name)
            if value < least:
                raise fm.ArgumentError(name, f"at least {least}", value)
            object.__setattr__(self, name, value)
        if not isinstance(self.session, bytes) or len(self.session) > MOST_SESSION:
            raise fm.ArgumentError("session", f"at most {MOST_SESSION} bytes", repr(self.session))
        if self.largest_weight * self.threshold > MOST_FRAMES:
            raise fm.ArgumentError(
                "largest_weight", f"at most {MOST_FRAMES} with all clients", self.largest_weight
            )
        self.steps  # noqa: B018 - checks them
        if self.threshold > self.most_clients or max(self._dense_bytes) > MOST_BYTES:
            got = sum(tensor.size for tensor in self.request.schema)
            raise fm.ArgumentError("schema", f"sections of at most {MOST_BYTES} bytes", f"{got} elements")

    @cached_property
    def steps(self) -> dict[str, float]:
        """The step of each dense tensor of a float dtype, by name."""
        dense = fm.Schema(tensor for tensor in self.request.schema if not tensor.masked)
        defaults = {tensor.name: STEPS[tensor.dtype] for tensor in dense if tensor.type.is_float}
        if self.step is None:
            return defaults
        given = self.step if isinstance(self.step, Mapping) else dict.fromkeys(defaults, self.step)
        return checked_steps({**defaults, **given}, dense)

    @cached_property
    def most_clients(self) -> int:
        """The largest number of clients whose sums do not wrap around, and whose fields have a keystream."""
        groups = sum(-(-tensor.size // 8) for tensor in self.request.schema if tensor.masked)
        bits = min(MOST_BYTES // max(groups, 1), MOST_FRAMES.bit_length())
        return ((1 << bits) - 1) // self.largest_weight

    @property
    def _dense_bytes(self) -> tuple[int, int]:
        """The bytes of the sections 2 and 3."""
        dense = [tensor for tensor in self.request.schema if not tensor.masked]
        floats = sum(tensor.size for tensor in dense if tensor.type.is_float)
        return 4 * (1 + floats), 8 * (sum(tensor.size for tensor in dense) - floats)

    @property
    def keys_bytes(self) -> int:
        """The bytes of the body of a message `keys`."""
        return 2 * keys.KEY_BYTES + (keys.SIGNATURE_BYTES if self.signed else 0)

    @cached_property
    def agreement(self) -> bytes:
        """A of spec 2: the digest of all agreed values."""
        request = self.request
        noise = masked_values(request.schema, request.noise, "noise")
        parts = [
            label("agreement"),
            bytes([len(self.session)]) + self.session,
            struct.pack("<QQI", request.seed, request.base_model, request.round),
            bytes([fm.MaskKind[request.mask.upper()]]),
            request.schema.digest,
        ]
        for tensor in request.schema:
            if tensor.masked:
                parts.append(struct.pack("<Bf", noise[tensor.name].code, noise[tensor.name].scale))
            elif tensor.type.is_float:
                parts.append(struct.pack("<f", self.steps[tensor.name]))
        parts.append(struct.pack("<IIB", self.threshold, self.largest_weight, self.signed))
        return hashlib.sha256(b"".join(parts)).digest()
