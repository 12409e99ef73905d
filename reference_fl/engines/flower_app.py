"""The clients as a Flower app, which runs in the worker processes of Flower's simulation engine.

A message holds the broadcast and an assignment; a reply holds the method's message. The state of a client is
in the state of its context, which Flower keeps for it; the settings of the run are in the run config.
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
    """Train one client; any exception becomes an error reply."""
    try:
        config = context.run_config
        clients = _clients(str(config["settings"]), str(config["data_root"]), str(config["expected"]))
        fields = json.loads(_entry(message.content, "assignment", str))
        broadcast = _entry(message.content, "broadcast", bytes)
        reply = clients.answer(broadcast, Assignment(**fields, memory=load_memory(context)))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
    save_memory(context, reply.memory)
    return Message(RecordDict({RECORD: ConfigRecord({"message": reply.message})}), reply_to=message)


def question(broadcast: bytes, assignment: Assignment, node: int) -> Message:
    """The message that sends an assignment to a node."""
    fields = {name: value for name, value in vars(assignment).items() if name != "memory"}
    record = ConfigRecord({"broadcast": broadcast, "assignment": json.dumps(fields)})
    return Message(RecordDict({RECORD: record}), node, "train")


def answer(client: int, message: Message, context: Context) -> Reply:
    """The reply in the message and context of a node."""
    return Reply(client, _entry(message.content, "message", bytes), load_memory(context))


def _entry(records: RecordDict, name: str, kind: type[T]) -> T:
    """An entry of this app's record, of the type that the other side has stored."""
    value = records.config_records[RECORD][name]
    assert isinstance(value, kind), f"{name}: expected {kind.__name__}, got {type(value).__name__}"
    return value


def load_memory(context: Context) -> dict[str, torch.Tensor]:
    """The state of the client to which a context belongs."""
    if RECORD not in context.state:
        return {}
    return safetensors.torch.load(_entry(context.state, "memory", bytes))


def save_memory(context: Context, memory: dict[str, torch.Tensor]) -> None:
    """Store the state of the client to which a context belongs."""
    if memory:
        context.state[RECORD] = ConfigRecord({"memory": safetensors.torch.save(memory)})


def run_config(settings: Settings, samples: data.Dataset, root: Path | None) -> dict[str, Any]:
    """The run config for the workers. `root` is as in `data.load`; without it, a worker uses its default."""
    given = root or os.environ.get(ENVIRONMENT)
    return {
        "settings": json.dumps(asdict(settings)),
        "data_root": str(Path(given).resolve()) if given else "",
        "expected": json.dumps(identity(samples)),
    }


def identity(samples: data.Dataset) -> dict[str, str]:
    """The values that must be equal in all processes for equal bits."""
    digest = hashlib.sha256()
    for tensor in (samples.train_x, samples.train_y):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return {"fedmrn_codec": fm.__version__, "torch": torch.__version__, "training data": digest.hexdigest()}


@cache
def _clients(settings: str, root: str, expected: str) -> Clients:
    """The clients of a run, made once in each process, which loads the data set.

    Raises
    ------
    ValueError
        The data set, torch or this package differs from the server's.
    """
    chosen = Settings(**json.loads(settings))
    samples = data.load(chosen.dataset, root or None)
    got = identity(samples)
    for what, value in json.loads(expected).items():
        if got[what] != value:
            where = f"{what} of a worker on {socket.gethostname()}"
            raise ValueError(f"{where}: expected {value}, got {got[what]}")
    return Clients(chosen, samples)
