"""The model that a node holds: kept between two messages, and moved by each frame (spec 6.12)."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

import fedmrn_codec as fm

from .records import is_model_frame, to_model_frame

HELD = "fedmrn.held"
"""Key of the model's id in the metrics of a reply, and of the model in the node's state."""

IN_STATE = 8 * 2**20
"""The bytes of the longest frame that is kept in the node's state.

Flower passes the state to the client app and back with each message; a longer frame is kept in a file."""

FOLDER = "fedmrn-folder"
"""Key in the node's configuration of the folder for such files; by default that for temporary files."""

LOST = "fedmrn: the node needs the whole model: "
"""How the reason of an error reply begins that asks for the whole model."""


@dataclass(frozen=True)
class Held:
    """The model that a node holds.

    Attributes
    ----------
    id : int
        Its id (spec 1.7).
    schema : bytes
        Of all its arrays (spec 5.1).
    frame : bytes
        The whole model as a frame.
    """

    id: int
    schema: bytes
    frame: bytes

    @classmethod
    def load(cls, context: Context) -> Held | None:
        """The model in a node's state, or in the file that the state names; None if there is none."""
        record = context.state.config_records.get(HELD)
        if record is None:
            return None
        with suppress(OSError, KeyError):
            frame = record["frame"] if "frame" in record else Path(str(record["file"])).read_bytes()
            held, schema = record[HELD], record["schema"]
            if isinstance(held, int) and isinstance(schema, bytes) and isinstance(frame, bytes):
                return cls(held, schema, frame)
        return None

    def save(self, context: Context) -> None:
        """Keep the model in a node's state, or in a file that replaces the one before at once.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        record = ConfigRecord({HELD: self.id, "schema": self.schema})
        if len(self.frame) <= IN_STATE:
            record["frame"] = self.frame
        else:
            folder = Path(str(context.node_config.get(FOLDER, tempfile.gettempdir())))
            path = folder / f"fedmrn-{context.run_id}-{context.node_id}.frame"
            _replace(path, self.frame)
            record["file"] = str(path)
        context.state[HELD] = record


def follow(msg: Message, context: Context, model_id: int | None) -> Held | None:
    """Replace the frame in a message by the arrays of the model, as a server without frames sends them.

    Parameters
    ----------
    msg : flwr.app.Message
        Its content is replaced.
    context : flwr.app.Context
        It is not changed.
    model_id : int, optional
        The id that the model must have: the request's base model.

    Returns
    -------
    Held or None
        The new model. None: the message holds no frame.

    Raises
    ------
    fedmrn_codec.CodecError
        The node does not hold the model that the frame changes, a frame is damaged, or the new model has
        another id: the node needs the whole model.
    """
    found = [key for key, record in msg.content.array_records.items() if is_model_frame(record)]
    if not found:
        return None
    (key,) = found
    frame, schema = to_model_frame(msg.content.array_records[key])
    before = None
    if schema is None:  # the difference of two versions
        before = Held.load(context)
        if before is None:
            raise fm.ArgumentError("model that the node holds", "one, for a frame of differences", "none")
        schema = before.schema
    replica = fm.Replica(fm.Schema.from_bytes(schema))
    if before is not None:
        replica.apply(before.frame, before.id)
    arrays = replica.apply(frame, model_id)
    full = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    msg.content = RecordDict({**dict(msg.content), key: full})
    if before is None:
        return Held(replica.model_id, schema, frame)
    return before if replica.model_id == before.id else Held(replica.model_id, schema, replica.to_bytes())


def lost(error: fm.CodecError, msg: Message) -> Message:
    """The reply of a node that asks for the whole model."""
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, f"{LOST}{error}"), reply_to=msg)


def is_lost(reply: Message) -> bool:
    """Whether a reply asks for the whole model."""
    return reply.has_error() and (reply.error.reason or "").startswith(LOST)


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
