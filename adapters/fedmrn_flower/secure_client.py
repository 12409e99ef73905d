"""The node's side of secure aggregation: what the mod answers, and what it sends in place of a frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict

import fedmrn_codec as fm
from fedmrn_codec.adapter_api.secagg import KEYS, MASKED, SHARES, STEPS
from fedmrn_secagg import Client
from fedmrn_secagg.errors import OrderError

from .checks import CLIPPED, only, take
from .records import to_frame
from .request import Request
from .secagg import (
    BEYOND,
    RECORD,
    STEP,
    answer,
    check_threshold,
    from_config,
    from_masked,
    message_in,
)

IDENTITY, IDENTITIES = "fedmrn-identity", "fedmrn-identities"
"""Keys in the node's configuration: files of its private identity key (32 bytes, as hexadecimal digits), and
of the public ones of all nodes (JSON, an object of node id to hexadecimal digits)."""


class Part:
    """A node's part in a round, of which its state has the secrets between two messages.

    Parameters
    ----------
    request : Request
        In the message.
    record : flwr.app.ConfigRecord
        Of secure aggregation in the message.
    context : flwr.app.Context

    Raises
    ------
    fedmrn_codec.CodecError
        The record or the files of identity keys fail a check, or the server does not ask for signatures from
        a node that has an identity key.
    """

    def __init__(self, request: Request, record: ConfigRecord, context: Context) -> None:
        self._request, self._record, self._context = request, record, context
        self._agreed = from_config(record)
        check_threshold(context, self._agreed.threshold)
        self._options = {**self._agreed.options, **_identity(context, self._agreed.signed)}

    @property
    def trains(self) -> bool:
        """Whether the message is that of the training."""
        return bool(self._record.get(STEP) == MASKED)

    def exchange(self) -> RecordDict:
        """The content of the reply to a message of another step.

        Raises
        ------
        fedmrn_codec.CodecError
            The message of the server fails a check, or is out of order.
        """
        step = self._record.get(STEP)
        if step not in STEPS:
            raise fm.ArgumentError("step of secure aggregation", f"one of {', '.join(STEPS)}", repr(step))
        if step == KEYS:
            client = Client(self._context.node_id, self._request, **self._options)
            message = client.keys()
        else:
            client = self._restored()
            given = message_in(self._record)
            message = client.shares(given) if step == SHARES else client.reveal(given)
        self._keep(client)
        return RecordDict({RECORD: answer(message)})

    def check_order(self) -> None:
        """Refuse the message of the training if it is not its turn; otherwise the app would train in vain."""
        client = self._restored()
        if client.state != "shared":
            raise OrderError("training", "after `shares`, once in a round", f"state {client.state!r}")

    def mask(self, reply: Message) -> None:
        """Replace the frame in a reply by the message `masked`, and take out what its metrics say of it.

        Raises
        ------
        fedmrn_codec.CodecError
            The frame or the boxes fail a check.
        """
        key, record = only(reply.content.array_records, "ArrayRecords in the reply")
        name, metrics = only(reply.content.metric_records, "MetricRecords in the reply")
        by = self._agreed.weighted_by
        client = self._restored(weight=self._agreed.weight(metrics.get(by), f"metric {by!r}"))
        masked = client.masked(to_frame(record), message_in(self._record))
        self._keep(client)
        reply.content = RecordDict({**dict(reply.content), key: from_masked(masked)})
        take(reply, name, CLIPPED)
        reply.content.metric_records[name][BEYOND] = client.clipped or 0

    def _restored(self, **options: Any) -> Client:
        kept = self._context.state.config_records.get(RECORD)
        if kept is None or not isinstance(kept.get("state"), bytes):
            raise OrderError("secrets of the node", f"those of round {self._request.round}", "none")
        return Client.from_bytes(bytes(kept["state"]), self._request, **self._options, **options)  # type: ignore[arg-type]

    def _keep(self, client: Client) -> None:
        if client.state == "done":
            del self._context.state[RECORD]
            return
        self._context.state[RECORD] = ConfigRecord({"round": self._request.round, "state": client.to_bytes()})


def _identity(context: Context, signed: bool) -> dict[str, Any]:
    """The identity keys of a node as options of `Client`, from the files that its configuration names."""
    own, others = (context.node_config.get(name) for name in (IDENTITY, IDENTITIES))
    if own is None and others is None and not signed:
        return {}
    if own is None or others is None:
        raise fm.ArgumentError("configuration of the node", f"both {IDENTITY} and {IDENTITIES}", "others")
    if not signed:
        raise fm.ArgumentError("message of the server", "signed keys, as this node has an identity", "none")
    try:
        identity = fm.Key.ed25519(bytes.fromhex(Path(str(own)).read_text()))
        listed = json.loads(Path(str(others)).read_text())
        public = {int(node): fm.Key.ed25519_public(bytes.fromhex(text)) for node, text in listed.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        expected = f"readable files of keys in {IDENTITY} and {IDENTITIES}"
        raise fm.ArgumentError("configuration of the node", expected, "others") from None
    return {"identity": identity, "identities": public}
