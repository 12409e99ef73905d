"""The client's mod: it replaces the trained arrays of a reply by a frame."""

from __future__ import annotations

from collections.abc import Mapping
from logging import WARNING
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, Context, Error, Message, MessageType, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode
from flwr.supercore import log

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import Fit, fit_of
from fedmrn_codec.adapter_api.secagg import check_installed

from .checks import CLIPPED, only
from .order import check_mods
from .records import Loaded, from_frame, is_frame
from .replica import HELD, Held, follow, lost
from .request import Request
from .secagg import RECORD, check_threshold, forget_others, record_of

if TYPE_CHECKING:
    from .secure_client import Part

NO_REQUEST = (
    "the server does not ask for a frame, so the reply holds the whole model; wrap the server's strategy: "
    "FedMRN(strategy)"
)


def mod(msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Decode the server's model, and encode trained minus received arrays; the app sees arrays alone.

    For `ClientApp(mods=[mod, ...])`. It must be the first mod, so that the others see arrays too.

    A message of any type may hold a frame in place of the model: of the whole model, or of what has changed
    since the model that the node holds. The mod keeps the model in the node's `Context.state`, or in a file
    if its frame is longer than 8 MiB, and tells the server with each reply which model the node holds. A node
    that does not hold the model that a frame changes asks for the whole model by an error reply; the app is
    not called.

    Replies with an error, and replies that hold a frame already (`fedmrn_flower.arrays`) pass
    unchanged; so do replies to messages without a request, with a warning if they are of training. The mask
    bits come from the operating system's random numbers (spec 4.3), the noise from the seed that the server
    assigned.

    The share of masked elements beyond the scale of the noise is added to the reply's MetricRecord as
    "fedmrn.clipped". If the server has one noise for all tensors, which no rule sets, and it does not fit the
    update, the mod logs a warning.

    An update that cannot be encoded (a NaN, a missing array, another shape or dtype), and a mod of Flower
    around this one that changes arrays, result in an error reply with the code MOD_FAILED_PRECONDITION.

    Under secure aggregation (`SecAgg`) the mod answers the messages before and after that of the training
    without calling the app, with secrets that it keeps in `Context.state` for the round; the reply to the
    training has a masked vector in place of the frame. A node whose configuration has "fedmrn-threshold"
    sends no arrays without secure aggregation, or with a smaller threshold.
    """
    try:
        request = Request.find(msg)
        part = None if request is None else _part(request, msg, context)
        if part is not None and not part.trains:
            return Message(part.exchange(), reply_to=msg)
        if part is not None:
            part.check_order()
    except fm.CodecError as error:
        return _failed(error, msg)
    try:
        held = follow(msg, context, None if request is None else request.base_model)
    except fm.CodecError as error:
        return lost(error, msg)
    received = dict(msg.content.array_records)  # an app may answer with the content of the message
    reply = _encoded(msg, received, call_next(msg, context), request, part)
    if part is None and not reply.has_error() and reply.content.array_records:
        try:
            check_threshold(context, 0)
        except fm.CodecError as error:
            return _failed(error, msg)
    if held is not None and not reply.has_error():
        _keep(held, context, reply)
    return reply


def _part(request: Request, msg: Message, context: Context) -> Part | None:
    """The node's part in secure aggregation, if the message is one of it; the app does not see its record."""
    forget_others(context, request.round)
    record = record_of(msg)
    if record is None:
        return None
    check_installed()
    from .secure_client import Part

    msg.content = RecordDict({name: each for name, each in msg.content.items() if name != RECORD})
    return Part(request, record, context)


def _failed(error: fm.CodecError, msg: Message) -> Message:
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, f"fedmrn: {error}"), reply_to=msg)


def _keep(held: Held, context: Context, reply: Message) -> None:
    """Keep the model for the next message, and tell the server; if it cannot be written, log that."""
    try:
        held.save(context)
    except OSError as error:
        text = f"the model is not kept, and the server will send all of it again: {error}"
        _warn(context.run_id, text, HELD)
        return
    for metrics in reply.content.metric_records.values():
        metrics[HELD] = held.id


def _encoded(
    msg: Message,
    records: Mapping[str, ArrayRecord],
    reply: Message,
    request: Request | None,
    part: Part | None,
) -> Message:
    """The reply with a frame in place of its arrays, if the message requests one, or a masked vector.

    `records` are the message's ArrayRecords as the app received them.
    """
    try:
        if request is None or reply.has_error():
            if request is None and _is_training(msg, reply):
                _warn(msg.metadata.run_id, NO_REQUEST)
            return reply
        check_mods("[fedmrn_flower.mod, {}]")
        key, trained = only(reply.content.array_records, "ArrayRecords in the reply")
        if not is_frame(trained):
            _, received = only(records, "ArrayRecords in the message")
            update = fm.difference(Loaded(trained), Loaded(received), request.schema)
            reply.content[key] = from_frame(request.encode(update))
            _report(reply, fit_of(update, request.schema, request.noise), request, msg.metadata.run_id)
        if part is not None:
            part.mask(reply)
    except fm.CodecError as error:
        return _failed(error, msg)
    return reply


def _report(reply: Message, fit: Fit, request: Request, run: int) -> None:
    """Add the clipped share to the reply, and warn if a fixed noise does not fit; a rule corrects itself."""
    for metrics in reply.content.metric_records.values():
        metrics[CLIPPED] = fit.clipped
    misfit = fit.misfit()
    if misfit and isinstance(request.noise, fm.Noise):
        remedy = f"{misfit.remedy} in the server's FedMRN, or no noise, so that a rule sets it"
        _warn(run, f"{misfit.found}; {remedy}", misfit.remedy)


def _is_training(message: Message, reply: Message) -> bool:
    kind = message.metadata.message_type
    training = kind.partition(".")[0] == MessageType.TRAIN
    return training and not reply.has_error() and bool(reply.content.array_records)


_warned: set[tuple[int, str]] = set()


def _warn(run: int, text: str, kind: str = "") -> None:
    """Log a warning once in a run and process; `kind` stands for texts that differ in their numbers."""
    if (run, kind) not in _warned:
        _warned.add((run, kind))
        log(WARNING, "fedmrn: %s", text)
