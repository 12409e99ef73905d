"""What a round of frames cost, as entries of a MetricRecord."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import MetricRecord

from .checks import Sound
from .request import PREFIX
from .rounds import Sorted


def traffic(replies: Sorted) -> MetricRecord:
    """Bytes up, in all and for each client, and the nodes that were left out.

    The bytes are the frames' lengths; Flower adds a few hundred a message. Lists are left out when empty;
    client-bytes and client-nodes have one order.
    """
    sound = replies.sound
    numbers: dict[str, int | list[int]] = {
        "clients": len(sound),
        "refused": len(replies.refused),
        "failed": len(replies.errors),
        "uplink-mask-bytes": sum(reply.frame.mask_bytes for reply in sound),
        "uplink-dense-bytes": sum(reply.frame.dense_bytes for reply in sound),
        "uplink-header-bytes": sum(reply.frame.header_bytes for reply in sound),
        "uplink-bytes": sum(_bytes(sound)),
        "client-bytes": _bytes(sound),
        "client-nodes": [reply.node for reply in sound],
        "refused-nodes": [reply.metadata.src_node_id for reply, _ in replies.refused],
        "failed-nodes": [reply.metadata.src_node_id for reply in replies.errors],
    }
    return MetricRecord({PREFIX + name: value for name, value in numbers.items() if value != []})


def _bytes(sound: Sequence[Sound]) -> list[int]:
    return [reply.frame.frame_bytes for reply in sound]
