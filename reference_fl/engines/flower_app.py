"""The clients as a Flower app: what runs in the worker processes of Flower's simulation engine.

A message holds the broadcast and an assignment, a reply the method's message; what a client remembers is in
its context's state, which Flower keeps for it, and the run's settings are in its run config.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

import fedmrn_codec as fm

from .. import data
from ..data.files import ENVIRONMENT
from ..settings import Settings
from . import Assignment, Reply
from .clients import Clients

RECORD = "fedmrn"
app = ClientApp()
T = TypeVar("T", bytes, str)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one client; whatever goes wrong becomes an error reply."""
    try:
        config = context.run_config
        clients = _clients(str(config["settings"]), str(config["data_root"]), str(config["required"]))
        fields = json.loads(_entry(message.content, "assignment", str))
        broadcast = _entry(message.content, "broadcast", bytes)
        reply = clients.answer(broadcast, Assignment(**fields, memory=load_memory(context)))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
    save_memory(context, reply.memory)
    return Message(RecordDict({RECORD: ConfigRecord({"message": reply.message})}), reply_to=message)


def question(broadcast: bytes, assignment: Assignment, node: int) -> Message:
    """The message that asks a node for a reply."""
    fields = {name: value for name, value in vars(assignment).items() if name != "memory"}
    record = ConfigRecord({"broadcast": broadcast, "assignment": json.dumps(fields)})
    return Message(RecordDict({RECORD: record}), node, "train")


def answer(client: int, message: Message, context: Context) -> Reply:
    """The reply in a node's message and context."""
    return Reply(client, _entry(message.content, "message", bytes), load_memory(context))


def _entry(records: RecordDict, name: str, kind: type[T]) -> T:
    """An entry of this app's record, whose type is known from what the other side has put there."""
    value = records.config_records[RECORD][name]
    assert isinstance(value, kind), f"{name}: expected {kind.__name__}, got {type(value).__name__}"
    return value


def load_memory(context: Context) -> dict[str, torch.Tensor]:
    """What the client of this context remembers."""
    if RECORD not in context.state:
        return {}
    return safetensors.torch.load(_entry(context.state, "memory", bytes))


def save_memory(context: Context, memory: dict[str, torch.Tensor]) -> None:
    """Remember it."""
    if memory:
        context.state[RECORD] = ConfigRecord({"memory": safetensors.torch.save(memory)})


def run_config(settings: Settings, samples: data.Dataset, root: Path | None) -> dict[str, Any]:
    """What a worker needs to know of a run; `root` as `data.load`. Without one, a worker's default counts."""
    given = root or os.environ.get(ENVIRONMENT)
    return {
        "settings": json.dumps(asdict(settings)),
        "data_root": str(Path(given).resolve()) if given else "",
        "required": json.dumps(identity(samples)),
    }


def identity(samples: data.Dataset) -> dict[str, str]:
    """What must be the same in every process, for the bits to be."""
    digest = hashlib.sha256()
    for tensor in (samples.train_x, samples.train_y):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return {"fedmrn_codec": fm.__version__, "torch": torch.__version__, "training data": digest.hexdigest()}


@cache
def _clients(settings: str, root: str, required: str) -> Clients:
    """The clients of a run: made once a process, where the data set is loaded.

    Raises
    ------
    ValueError
        The data set, torch or this package is another than the server's.
    """
    chosen = Settings(**json.loads(settings))
    samples = data.load(chosen.dataset, root or None)
    found = identity(samples)
    for what, value in json.loads(required).items():
        if found[what] != value:
            raise ValueError(
                f"{what} of a worker on {socket.gethostname()}: found {found[what]}, required {value}"
            )
    return Clients(chosen, samples)
