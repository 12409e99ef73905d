"""A `fedmrn_codec.Request` as one entry of a DXO's meta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fedmrn_codec as fm

META = "fedmrn"
"""Key in a DXO's meta of a request, in the form of `fedmrn_codec.Request.to_dict`."""


class Request(fm.Request):
    """What the server requires of one client's frame; `round` is NVFlare's plus one, since 0 means "none"."""

    @classmethod
    def of(cls, meta: Mapping[str, Any] | None) -> Request:
        """The request in the meta of a task's DXO, or of the `FLModel` that `flare.receive()` returns.

        Raises
        ------
        fedmrn_codec.CodecError
            There is none, or an entry is missing or out of range.
        """
        found = (meta or {}).get(META)
        if not isinstance(found, dict):
            expected = "a request (is fedmrn_nvflare.FromFrame among the server's filters?)"
            raise fm.ArgumentError("task", expected, "none")
        return cls.from_dict(found)
