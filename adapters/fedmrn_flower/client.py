"""The client's mod: a reply with trained arrays becomes a reply with a frame."""

from __future__ import annotations

from flwr.app import Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode

import fedmrn_codec as fm

from .checks import only
from .records import Loaded, from_frame, is_frame
from .request import Request


def mod(msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Post-training masking for clients that train as ever: encode trained minus received arrays.

    For `ClientApp(mods=[mod, ...])`: the first, so that it sees what all others have made of the reply.
    Messages of a server without `FedMRN`, evaluations, replies with an error, and replies that hold a frame
    already (`fedmrn_flower.arrays`) pass as they are. The masks' bits come from the operating system's random
    numbers (spec 4.3), the noise from the seed that the server assigned.

    What cannot be encoded (a NaN, an array missing or of another shape or dtype) becomes an error reply with
    the code MOD_FAILED_PRECONDITION.
    """
    reply = call_next(msg, context)
    try:
        request = Request.find(msg)
        if request is None or reply.has_error():
            return reply
        key, trained = only(reply.content.array_records, "ArrayRecord of the reply")
        if not is_frame(trained):
            _, received = only(msg.content.array_records, "ArrayRecord of the message")
            update = fm.difference(Loaded(trained), Loaded(received), request.schema)
            reply.content[key] = from_frame(request.encode(update))
    except fm.CodecError as error:
        return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, f"fedmrn: {error}"), reply_to=msg)
    return reply
