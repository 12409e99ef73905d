"""The client's mod: it replaces the trained arrays of a reply by a frame."""

from __future__ import annotations

from flwr.app import Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode

import fedmrn_codec as fm

from .checks import only
from .records import Loaded, from_frame, is_frame
from .request import Request


def mod(msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Encode trained minus received arrays, for clients whose training is unchanged.

    For `ClientApp(mods=[mod, ...])`. It must be the first mod, so that it encodes the reply that the others
    have changed. Messages without a request, replies with an error, and replies that hold a frame already
    (`fedmrn_flower.arrays`) pass unchanged. The mask bits come from the operating system's random numbers
    (spec 4.3), the noise from the seed that the server assigned.

    An update that cannot be encoded (a NaN, a missing array, another shape or dtype) results in an error
    reply with the code MOD_FAILED_PRECONDITION.
    """
    reply = call_next(msg, context)
    try:
        request = Request.find(msg)
        if request is None or reply.has_error():
            return reply
        key, trained = only(reply.content.array_records, "ArrayRecords in the reply")
        if not is_frame(trained):
            _, received = only(msg.content.array_records, "ArrayRecords in the message")
            update = fm.difference(Loaded(trained), Loaded(received), request.schema)
            reply.content[key] = from_frame(request.encode(update))
    except fm.CodecError as error:
        return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, f"fedmrn: {error}"), reply_to=msg)
    return reply
