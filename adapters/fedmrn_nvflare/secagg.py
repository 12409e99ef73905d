"""Secure aggregation: what the tasks and results of its steps hold (spec/SECAGG.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.shareable import Shareable

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api import SecAgg
from fedmrn_codec.adapter_api.secagg import KEYS, REVEAL, SHARES

PROTOCOL = "fedmrn.secagg"
"""Key of the protocol's entries in the meta of a training task; in errors, the name of a step's task."""

STEP, MESSAGE, REQUEST = "step", "message", "request"
"""Keys among these entries: the step, its message, and the request of the round."""

TASKS = {step: f"fedmrn_{step}" for step in (KEYS, SHARES, REVEAL)}
"""The names of the tasks that the executor `Exchange` answers; the step `masked` is the training."""

ARRAY = "fedmrn.masked"
"""The one key of a DXO's data that holds a message `masked`."""

ALGORITHM = "fedmrn-secagg/1"
"""Value of PROCESSED_ALGORITHM in the meta of that DXO."""

NO_SINGLE = "none, since the server has only the sum of a round, no single results"
"""What is expected of options that need single results."""

REASON = "fedmrn.reason"
"""Header of a failed result of a step: why the client has refused its task."""

BEYOND = "secure-clipped"
"""Key, in META of a result's meta, of the number of dense floats beyond the range of their grid."""


def client_id(name: str) -> int:
    """The protocol's id of a client: 8 bytes, little-endian, of the SHA-256 of its name with a prefix."""
    digest = hashlib.sha256(f"fedmrn_nvflare client {name}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def clients_by_id(names: list[str]) -> dict[int, str]:
    """The clients of a round by their ids; ArgumentError if two have one id."""
    out: dict[int, str] = {}
    for name in names:
        if (other := out.setdefault(client_id(name), name)) != name:
            raise fm.ArgumentError("names of clients", "names with different ids", f"{other!r} and {name!r}")
    return out


def to_task(entries: Mapping[str, Any]) -> Shareable:
    """The data of a task of a step, or the result of one."""
    return DXO(DataKind.APP_DEFINED, dict(entries)).to_shareable()


def entries_of(shareable: Shareable) -> Mapping[str, Any]:
    """The inverse of `to_task`; ArgumentError if it is something else."""
    try:
        data = from_shareable(shareable).data
    except ValueError:
        data = None
    if not isinstance(data, Mapping):
        raise fm.ArgumentError(f"data of {PROTOCOL}", "a DXO with a mapping", type(data).__name__)
    return data


def from_masked(message: bytes) -> dict[str, np.ndarray]:
    """The data of a DXO that holds a message `masked`: one array of bytes."""
    return {ARRAY: np.frombuffer(message, np.uint8)}


def masked_in(data: Mapping[str, Any], algorithm: object) -> bytes:
    """The message `masked` in the data of a DXO, whose PROCESSED_ALGORITHM is this; else ReplyError."""
    array = data.get(ARRAY)
    plain = isinstance(array, np.ndarray) and (array.dtype, array.ndim) == (np.uint8, 1)
    if algorithm != ALGORITHM or len(data) != 1 or not plain:
        expected = "one masked vector (is ToMasked the last filter of the client?)"
        found = f"{len(data)} entries, {sorted(map(str, data))[:3]} first"
        raise ReplyError("result", expected, found)
    return bytes(data[ARRAY])


def settings_to_json(settings: SecAgg) -> dict[str, Any]:
    """The settings as plain values for a job's configuration, without those that have their default."""
    step = settings.step
    values = {
        "threshold": settings.threshold,
        "largest_weight": settings.largest_weight if settings.largest_weight != 1 else None,
        "examples": settings.examples,
        "step": dict(step) if isinstance(step, Mapping) else step,
        "degree": settings.degree,
        "session": None if settings.session is None else settings.session.hex(),
    }
    return {name: value for name, value in values.items() if value is not None}


def settings_from_json(settings: SecAgg | Mapping[str, Any]) -> SecAgg:
    """The inverse of `settings_to_json`, which passes a SecAgg.

    Raises
    ------
    fedmrn_codec.ArgumentError
        There is an unknown entry, or a value is refused by SecAgg.
    """
    if isinstance(settings, SecAgg):
        return settings
    try:
        session = settings.get("session")
        values = {**settings, "session": None if session is None else bytes.fromhex(session)}
        return SecAgg(**values)
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, fm.CodecError):
            raise
        raise fm.ArgumentError("secure", "a SecAgg, or its values by name", repr(settings)) from None
