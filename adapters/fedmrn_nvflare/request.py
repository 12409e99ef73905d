"""A `fedmrn_codec.Request` as one entry of a DXO's meta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fedmrn_codec as fm

META = "fedmrn"
"""The entry of a DXO's meta that holds a request, as `fedmrn_codec.Request.to_dict` gives it."""


class Request(fm.Request):
    """What the server asks of one client for one task; its round is NVFlare's plus one: 0 means none."""

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
                "task", "those of fedmrn_nvflare.FromFrame among the server's filters", "no fedmrn settings"
            )
        return cls.from_dict(found)
