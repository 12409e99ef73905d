"""A round, as the merger tells it to its shards."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Self

import fedmrn_codec as fm


@dataclass(frozen=True)
class Round:
    """What a shard needs in order to receive the frames of one round.

    Parameters
    ----------
    number : int
    deadline : float
        Seconds since 1970, by the merger's clock.
    over : bool
        The federation has ended: clients may fetch the model, and no frame is wanted.
    secret : int
        Of the seeds. It stays on the server: with it, everybody's seeds would be known in advance.
    downlink : bytes
        `fm.Downlink.to_bytes`, with the model that clients hold.
    """

    number: int
    deadline: float
    over: bool
    secret: int
    downlink: bytes

    def policy(self, template: fm.Policy, model_id: int) -> fm.Policy:
        """The policy of this round: the server's own, for this round, model and seeds."""
        return replace(template, round=self.number, base_model=model_id, seeds=self.secret)

    def to_bytes(self) -> bytes:
        """A line of JSON, then the downlink."""
        about = {
            "number": self.number,
            "deadline": self.deadline,
            "over": self.over,
            "secret": str(self.secret),
        }
        return json.dumps(about).encode() + b"\n" + self.downlink

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`, which only processes of this server send."""
        line, _, downlink = data.partition(b"\n")
        about = json.loads(line)
        return cls(**about | {"secret": int(about["secret"]), "downlink": downlink})
