"""The client's side of secure aggregation: the executor of its tasks, and the filter of the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

import fedmrn_codec as fm
from fedmrn_codec.adapter_api.secagg import KEYS, SHARES, STEPS, Agreed, typed_entry
from fedmrn_secagg import Client
from fedmrn_secagg.errors import OrderError

from .arrays import to_frame
from .client import ToFrame
from .replies import with_data
from .request import META, Request
from .secagg import (
    ALGORITHM,
    BEYOND,
    MESSAGE,
    PROTOCOL,
    REASON,
    REQUEST,
    STEP,
    client_id,
    entries_of,
    from_masked,
    to_task,
)

PART = "fedmrn.part"
"""Private property of a client's context: its `Part`, which `Exchange` and `ToMasked` share."""


class Part:
    """A client's part in the rounds of a job; it holds the secrets of one round at a time.

    Parameters
    ----------
    name : str
        Of the client.
    """

    def __init__(self, name: str) -> None:
        self._id = client_id(name)
        self._client: Client | None = None
        self._request: Request | None = None
        self._agreed: Agreed | None = None

    def exchange(self, entries: Mapping[str, Any]) -> bytes:
        """The answer to a task of a step other than the training.

        The task of keys begins a new round, and the secrets of another one are forgotten.

        Parameters
        ----------
        entries : mapping of str to object
            From the server: the step, its message; for keys the request and the agreed values.

        Raises
        ------
        fedmrn_codec.CodecError
            An entry is missing, the message fails a check, or is out of order.
        """
        step = entries.get(STEP)
        if step not in STEPS:
            raise fm.ArgumentError("step of secure aggregation", f"one of {', '.join(STEPS)}", repr(step))
        if step == KEYS:
            return self._begin(entries).keys()
        client, message = self._current(), typed_entry(entries, MESSAGE, bytes, PROTOCOL)
        return client.shares(message) if step == SHARES else client.reveal(message)

    def mask(
        self, frame: fm.CheckedFrame | bytes, meta: Mapping[str, Any], entries: Mapping[str, Any]
    ) -> tuple[bytes, int]:
        """The message `masked` of a frame, and the number of dense floats that were clipped.

        Parameters
        ----------
        frame : fedmrn_codec.CheckedFrame or bytes
            For the request of the round.
        meta : mapping of str to object
            Of the result, with the number of examples if updates have weights.
        entries : mapping of str to object
            Of the protocol, in the task of the training: the boxes for this client.

        Raises
        ------
        fedmrn_codec.CodecError
            The frame, the boxes or the number of examples fail a check, or it is not their turn.
        """
        client, message = self._current(), typed_entry(entries, MESSAGE, bytes, PROTOCOL)
        assert self._agreed is not None
        assert self._request is not None
        if client.state != "shared":
            raise OrderError("training", "after `shares`, once in a round", f"state {client.state!r}")
        examples = meta.get(by := self._agreed.weighted_by)
        if isinstance(examples, np.integer) or (isinstance(examples, float) and examples.is_integer()):
            examples = int(examples)
        weight = self._agreed.weight(examples, by)
        options = {**self._agreed.options, "weight": weight}
        self._client = Client.from_bytes(client.to_bytes(), self._request, **options)
        return self._client.masked(frame, message), self._client.clipped or 0

    def _begin(self, entries: Mapping[str, Any]) -> Client:
        """A client with new secrets for the round of a task of keys."""
        self._client = None
        self._agreed = Agreed.from_dict(entries, PROTOCOL)
        self._request = Request.from_dict(typed_entry(entries, REQUEST, dict, PROTOCOL))
        self._client = Client(self._id, self._request, **self._agreed.options)
        return self._client

    def _current(self) -> Client:
        if self._client is None:
            raise OrderError("secrets of the client", "those of a round under way", "none")
        return self._client


class Exchange(Executor):
    """Answers the tasks of secure aggregation before and after the training, for all rounds of a job.

    For `job.to_clients(Exchange(), tasks=list(TASKS.values()))`, which `attach(..., secure=...)` does. A
    refused task is answered with BAD_TASK_DATA, and the reason in a header; the client then takes no part in
    the rest of the round.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._part: Part | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Make the client's part, and let `ToMasked` find it."""
        if event_type == EventType.START_RUN:
            self._part = Part(fl_ctx.get_identity_name())
            fl_ctx.set_prop(PART, self._part, private=True, sticky=True)

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """The message of this client in a step."""
        assert self._part is not None
        try:
            return to_task({MESSAGE: self._part.exchange(entries_of(shareable))})
        except fm.CodecError as error:
            self.log_error(fl_ctx, f"fedmrn: {task_name} failed ({error.code}): {error}")
            reply = make_reply(ReturnCode.BAD_TASK_DATA)
            reply.set_header(REASON, f"{error.code}: {error}")
            return reply


class ToMasked(ToFrame):
    """Encode a client's result as a frame, and send a masked vector in its place.

    A client output filter in the place of `ToFrame`, which `attach(..., secure=...)` adds. What the result
    says of the client beside its update passes: metrics, and NUM_STEPS_CURRENT_ROUND. The executor of the
    training does not see the message of the protocol that comes with its task.

    A result that cannot be masked raises `ContentBlockedException`, as in `ToFrame`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._entries: Mapping[str, Any] = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Take the protocol's message out of a task, just before it is executed."""
        if event_type == EventType.BEFORE_TASK_EXECUTION:
            self._entries = _taken(fl_ctx.get_prop(FLContextKey.TASK_DATA))
        super().handle_event(event_type, fl_ctx)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """A new DXO with the masked vector as one uint8 array."""
        part = fl_ctx.get_prop(PART)
        if not isinstance(part, Part):
            expected = "the executor Exchange among the client's (attach(..., secure=SecAgg(...)) adds it)"
            raise fm.ArgumentError("secure aggregation", expected, "none")
        framed = super().process_dxo(dxo, shareable, fl_ctx)
        message, beyond = part.mask(to_frame(framed.data), framed.meta, self._entries)
        meta = {MetaKey.PROCESSED_ALGORITHM: ALGORITHM, META: {BEYOND: beyond}}
        return with_data(framed, framed.data_kind, from_masked(message), meta)


def _taken(task: Any) -> Mapping[str, Any]:
    """The protocol's entries of a task, which are removed from it; empty if there are none."""
    try:
        dxo = from_shareable(task)
    except (ValueError, AttributeError):
        return {}
    found = dxo.meta.get(PROTOCOL)
    if not isinstance(found, Mapping):
        return {}
    meta = {key: value for key, value in dxo.meta.items() if key != PROTOCOL}
    DXO(dxo.data_kind, dxo.data, meta).update_shareable(task)
    return found
