"""Hostile requests, one kind each: what is sent, and how the receiver must refuse it."""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from urllib.parse import quote

import numpy as np

import fedmrn_codec as fm

INVALID = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "invalid.json"


@dataclass(frozen=True)
class Hostile:
    """A request, and the status and code of the answer; a code of None stands for any."""

    status: int
    code: str | None
    body: bytes = b""
    path: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    """None: that of the attacker."""


@dataclass(frozen=True)
class Attacker:
    """A registered client that is hostile, with what it has seen.

    Parameters
    ----------
    request : fm.Request
        Its own, of the present round.
    frame : bytes
        A valid frame of another client.
    other : str
        The name of that client.
    most : int
        The length of the longest frame that the server accepts.
    """

    request: fm.Request
    frame: bytes
    other: str
    most: int
    rng: random.Random

    def encoded(self, request: fm.Request | None = None, *, large: float = 0.0, **options: bool) -> bytes:
        """A frame with random masks, and with this in the first element of the dense tensors."""
        request = request or self.request
        update = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in request.schema}
        for tensor in request.schema:
            if not tensor.masked:
                update[tensor.name].flat[0] = large
        return request.encode(update, **options)


def _signed(frame: bytes) -> bytes:
    """A frame with a checksum that fits."""
    return frame[:-4] + zlib.crc32(frame[:-4]).to_bytes(4, "little")


def checksum(a: Attacker) -> Hostile:
    """One bit of a payload is changed."""
    data = bytearray(a.encoded())
    data[-a.rng.randrange(5, 200)] ^= 1 << a.rng.randrange(8)
    return Hostile(400, "checksum", bytes(data))


def other_round(a: Attacker) -> Hostile:
    """A frame of a round that is over, or is to come."""
    number = a.request.round + a.rng.choice([-1, 1])
    return Hostile(409, "round", a.encoded(replace(a.request, round=number)))


def other_model(a: Attacker) -> Hostile:
    """A frame for another base model."""
    return Hostile(409, "base_model", a.encoded(replace(a.request, base_model=a.request.base_model ^ 1)))


def own_seed(a: Attacker) -> Hostile:
    """A seed of its own choice."""
    return Hostile(400, "seed", a.encoded(replace(a.request, seed=a.rng.getrandbits(64))))


def replay(a: Attacker) -> Hostile:
    """Another client's frame in its own name."""
    return Hostile(400, "seed", a.frame)


def louder(a: Attacker) -> Hostile:
    """Noise of a larger scale."""
    return Hostile(400, "reply", a.encoded(replace(a.request, noise=fm.Uniform(1.0))))


def other_kind(a: Attacker) -> Hostile:
    """Masks of another kind."""
    return Hostile(400, "reply", a.encoded(replace(a.request, mask="signed")))


def not_a_number(a: Attacker) -> Hostile:
    """A NaN in a dense tensor."""
    frame = a.encoded(large=0.5)
    before, _, after = frame[:-4].rpartition(np.float32(0.5).tobytes())  # seed and checksum may have them too
    return Hostile(400, "non_finite", _signed(before + b"\0\0\xc0\x7f" + after + frame[-4:]))


def too_large(a: Attacker) -> Hostile:
    """A dense element beyond the server's bound."""
    return Hostile(400, "value_bound", a.encoded(large=1e30))


def embedded(a: Attacker) -> Hostile:
    """A frame that brings its schema."""
    return Hostile(400, None, _with_long_schema()[: a.most])


def announced(a: Attacker) -> Hostile:
    """A header that announces a body without end; none is sent."""
    return Hostile(413, "frame_length", headers={"Content-Length": str(2**40)})


def endless(a: Attacker) -> Hostile:
    """A body of unknown length that is too long."""
    return Hostile(413, "frame_length", bytes(a.most + 1), headers={"Transfer-Encoding": "chunked"})


def garbage(a: Attacker) -> Hostile:
    """Random bytes."""
    return Hostile(400, None, os.urandom(a.rng.randrange(a.most)))


def nothing(a: Attacker) -> Hostile:
    """No bytes at all."""
    return Hostile(400, "truncated")


def cut(a: Attacker) -> Hostile:
    """The beginning of a frame."""
    frame = a.encoded()
    return Hostile(400, "truncated", frame[: a.rng.randrange(52)])


def vector(a: Attacker) -> Hostile:
    """An invalid frame of the format's test vectors."""
    return Hostile(400, None, a.rng.choice(_vectors(a.most)))


def other_name(a: Attacker) -> Hostile:
    """A frame in the name of another client, whose token it does not have."""
    return Hostile(403, "client", a.frame, path=f"/frames/{quote(a.other)}")


def no_token(a: Attacker) -> Hostile:
    """A token that nobody has."""
    return Hostile(401, "token", a.frame, token="0" * 32)


KINDS: tuple[Callable[[Attacker], Hostile], ...] = (
    *(checksum, other_round, other_model, own_seed, replay, louder, other_kind, not_a_number, too_large),
    *(embedded, announced, endless, garbage, nothing, cut, vector, other_name, no_token),
)
"""All kinds but `twice`: other bytes from a client whose frame was accepted, which `soak_clients` sends."""


@cache
def _with_long_schema() -> bytes:
    schema = fm.Schema([fm.Tensor(f"{number:040}", ()) for number in range(10_000)])
    update = {tensor.name: np.zeros((), np.float32) for tensor in schema}
    return fm.encode(update, schema, seed=1, noise=fm.Uniform(1), embed_schema=True)


@cache
def _vectors(most: int) -> list[bytes]:
    cases = json.loads(INVALID.read_text(encoding="utf-8"))["cases"]
    frames = (bytes.fromhex(case["frame"]) for case in cases)
    return [frame for frame in frames if len(frame) <= most]
