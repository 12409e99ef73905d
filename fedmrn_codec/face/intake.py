"""The frames of one round under a policy: who has sent one, and how many were refused, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from threading import Lock
from typing import Any

import numpy as np

from .. import errors
from ..format.checked import CheckedFrame
from ..format.frame import Buffer
from .policy import Policy


class Intake:
    """The frames of one round under a policy: each client and each seed once, and a count of the refusals.

    This is what changes during a round, so it is apart from `Policy`, which does not: an immutable policy can
    be shared, compared and written to a file. Frames are not kept. Several threads may use one intake; frames
    are checked at the same time.

    Parameters
    ----------
    policy : Policy

    Attributes
    ----------
    accepted : list
        The clients whose frames were accepted, in that order.
    refused : collections.Counter
        How many frames were refused, by the code of the error.
    """

    def __init__(self, policy: Policy) -> None:
        if not isinstance(policy, Policy):
            raise errors.ArgumentError("policy", "a Policy", type(policy).__name__)
        self.policy = policy
        self.accepted: list[Hashable] = []
        self.refused: Counter[str] = Counter()
        self._clients: dict[Hashable, object] = {}  # and the mark of the call that has taken it
        self._seeds: dict[int, object] = {}
        self._lock = Lock()

    def accept(
        self,
        client: Hashable,
        frame: Buffer | CheckedFrame,
        weight: int,
        *,
        base: Mapping[str, np.ndarray] | None = None,
    ) -> CheckedFrame:
        """Check a frame as `Policy.check` does, and that its client and its seed are new in this round.

        A client whose frame was refused may send another one, also if another error or an interrupt has
        stopped the call. The seeds of frames without masks, which have no use for a seed, are not compared.

        Raises
        ------
        FrameError
            As in `Policy.check`; RepeatedError for a client or a seed that was accepted before.
        """
        mark, checked = object(), None
        try:
            with self._lock:
                self._take(client, self._clients, mark, "client")
            checked = self.policy.check(frame, client=client, weight=weight, base=base)
            with self._lock:
                if any(entry.noise for entry in checked.tensors):
                    self._take(checked.seed, self._seeds, mark, "seed")
                self.accepted.append(client)
        except BaseException as error:  # also an interrupt, which may come at any moment
            with self._lock:
                self._give_back(client, checked, mark)
                if isinstance(error, errors.FrameError):
                    self.refused[error.code] += 1
            raise
        return checked

    @staticmethod
    def _take(value: Any, taken: dict[Any, object], mark: object, field: str) -> None:
        if taken.setdefault(value, mark) is not mark:
            raise errors.RepeatedError(field, "one that was not accepted before in this round", value)

    def _give_back(self, client: Hashable, checked: CheckedFrame | None, mark: object) -> None:
        """Free what a call has taken that was stopped, unless it had accepted the frame before that."""
        if self._clients.get(client) is not mark or (checked is not None and client in self.accepted):
            return
        if checked is not None and self._seeds.get(checked.seed) is mark:
            del self._seeds[checked.seed]
        del self._clients[client]
