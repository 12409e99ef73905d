"""What the server asks of one client for one task, as one entry of the DXO's meta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fedmrn_codec as fm
from fedmrn_codec.noise import parse_noise

META = "fedmrn"
"""The entry of a DXO's meta that holds a request."""

KINDS = {"seed": int, "noise": str, "mask": str, "round": int, "base-model": int, "schema": bytes}


@dataclass(frozen=True)
class Request:
    """The settings of one client's frame.

    Attributes
    ----------
    seed : int
        Of the noise: unsigned 64-bit, the server's choice, another one for every task and client.
    noise : fedmrn_codec.Noise
    mask : {"binary", "signed"}
    round : int
        NVFlare's round plus one, because 0 means "not given" in a frame.
    base_model : int
        Names the arrays that the update is to be added to: unsigned 64-bit, not 0.
    schema : fedmrn_codec.Schema
    """

    seed: int
    noise: fm.Noise
    mask: str
    round: int
    base_model: int
    schema: fm.Schema

    def to_meta(self) -> dict[str, Any]:
        """The request in plain types, which every serialisation of NVFlare carries."""
        return {
            "seed": self.seed,
            "noise": noise_text(self.noise),
            "mask": self.mask,
            "round": self.round,
            "base-model": self.base_model,
            "schema": self.schema.data,
        }

    @classmethod
    def of(cls, meta: Mapping[str, Any] | None) -> Request:
        """The request in the meta of a task's DXO, or of the `FLModel` that `flare.receive()` gives.

        Raises
        ------
        fedmrn_codec.CodecError
            There is none, or an entry is missing or out of range.
        """
        found = (meta or {}).get(META)
        if not isinstance(found, dict):
            raise fm.ArgumentError(
                "task", "no fedmrn settings", "required: fedmrn_nvflare.FromFrame among the server's filters"
            )
        for name, kind in KINDS.items():
            if not isinstance(found.get(name), kind):
                raise fm.ArgumentError(
                    f"fedmrn setting {name!r}",
                    type(found.get(name)).__name__,
                    f"required: {kind.__name__}",
                )
        return cls(
            found["seed"],
            parse_noise(found["noise"]),
            found["mask"],
            found["round"],
            found["base-model"],
            fm.Schema.from_bytes(found["schema"]),
        )


def noise_text(noise: fm.Noise) -> str:
    """The noise as `parse_noise` reads it."""
    return f"{noise.name}:{noise.scale!r}"
