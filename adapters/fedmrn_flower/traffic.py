"""Bytes of a round in both directions, and numbers of replies, as entries of a MetricRecord."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import MetricRecord

from fedmrn_codec.adapter_api.secagg import STEPS

from .checks import CheckedReply
from .downlink import Sender
from .request import PREFIX
from .rounds import Replies

if TYPE_CHECKING:
    from .secure_round import MaskedReply, SecureRound


def traffic(replies: Replies[CheckedReply]) -> MetricRecord:
    """Uplink bytes, in total and per client, and the nodes without an accepted reply: `silent` without any.

    The bytes are the lengths of the frames; Flower adds some hundred per message. client-bytes and
    client-nodes have the same order. Empty lists are omitted.
    """
    frames = [reply.frame for reply in replies.checked]
    numbers: dict[str, int | list[int]] = {
        "clients": len(frames),
        "refused": len(replies.refused),
        "failed": len(replies.failed),
        "silent": len(replies.silent),
        "uplink-mask-bytes": sum(frame.mask_bytes for frame in frames),
        "uplink-dense-bytes": sum(frame.dense_bytes for frame in frames),
        "uplink-header-bytes": sum(frame.header_bytes for frame in frames),
        "uplink-bytes": sum(frame.frame_bytes for frame in frames),
        "client-bytes": [frame.frame_bytes for frame in frames],
        "client-nodes": [reply.node for reply in replies.checked],
        "refused-nodes": [reply.metadata.src_node_id for reply, _ in replies.refused],
        "failed-nodes": [reply.metadata.src_node_id for reply in replies.failed],
        "silent-nodes": replies.silent,
    }
    return MetricRecord({PREFIX + name: value for name, value in numbers.items() if value != []})


def downlink(sender: Sender) -> MetricRecord:
    """Downlink bytes, in total and per client, and the number of frames with the whole model.

    The bytes are those of the arrays in the messages: the lengths of frames, and of a schema beside each
    frame of the whole model, or all arrays without frames. Without messages the record is empty.
    """
    if not sender.nodes:
        return MetricRecord()
    numbers = {
        "downlink-bytes": sender.bytes,
        "downlink-bytes-per-client": sender.bytes / sender.nodes,
        "downlink-whole": sender.whole,
    }
    return MetricRecord({PREFIX + name: value for name, value in numbers.items()})


def secure(current: SecureRound, replies: Replies[MaskedReply], sender: Sender, lost: int) -> MetricRecord:
    """Bytes in both directions, of all steps of secure aggregation, and the numbers of nodes.

    `uplink-bytes` are those of the messages of the protocol, also from nodes that dropped out, and
    `downlink-bytes` those of the model and of the protocol. `lost` is the number of lost rounds so far.
    """
    beyond = [reply.beyond for reply in replies.checked]
    down, protocol = sender.bytes + current.down.total(), current.down.total()
    numbers: dict[str, int | float | list[int]] = {
        "clients": len(beyond),
        "survivors": len(beyond),
        "threshold": current.threshold,
        "lost-rounds": lost,
        "lost-step": current.lost,
        "secure-clipped": sum(beyond),
        "refused": len(replies.refused),
        "failed": len(replies.failed),
        "silent": len(replies.silent),
        **{f"uplink-{step}-bytes": current.up[step] for step in STEPS},
        "uplink-bytes": current.up.total(),
        "client-bytes": [current.node_up[reply.node] for reply in replies.checked],
        "client-nodes": [reply.node for reply in replies.checked],
        "refused-nodes": [reply.metadata.src_node_id for reply, _ in replies.refused],
        "failed-nodes": [reply.metadata.src_node_id for reply in replies.failed],
        "silent-nodes": replies.silent,
        "downlink-bytes": down,
        "downlink-protocol-bytes": protocol,
        "downlink-bytes-per-client": down / current.nodes,
        "downlink-whole": sender.whole,
    }
    return MetricRecord({PREFIX + name: value for name, value in numbers.items() if value != []})
