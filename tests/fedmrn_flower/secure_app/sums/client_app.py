"""Clients that write the frame which they mask; the role "victim" stops in the step that a file names."""

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import fedmrn_codec as fm
from fedmrn_flower import Request, mod
from fedmrn_flower.records import Loaded, from_frame

OUT = Path(os.environ["FEDMRN_TEST_OUT"])
STEP = 2.0**-18
STOPS = {1: "masked", 2: "reveal"}
"""The step of the protocol in which the victim of a round stops."""


def stops(msg, context, call_next):
    """A mod around fedmrn_flower.mod: victims tell the test where they are, and wait to be killed."""
    number, record = msg.content["config"]["server-round"], msg.content.get("fedmrn.secagg")
    if context.node_config["role"] == f"victim{number}" and record and record["step"] == STOPS[number]:
        (OUT / f"victim{number}-waits").touch()
        time.sleep(600)
    return call_next(msg, context)


def keeps(msg, context, call_next):
    """A mod inside of fedmrn_flower.mod: it makes the frame, and writes it to a file."""
    reply, request = call_next(msg, context), Request.of(msg)
    update = fm.difference(Loaded(reply.content["arrays"]), Loaded(msg.content["arrays"]), request.schema)
    frame = request.encode(update)
    role, number = context.node_config["role"], msg.content["config"]["server-round"]
    (OUT / f"round{number}-{role}.fmrn").write_bytes(frame)
    reply.content["arrays"] = from_frame(frame)
    return reply


app = ClientApp(mods=[stops, mod, keeps])


@app.train()
def train(msg, context):
    """Add small random values to every weight, on a grid where they are not masked."""
    rng = np.random.default_rng([context.node_id % 2**32, msg.content["config"]["server-round"]])
    arrays = {name: array.numpy() for name, array in msg.content["arrays"].items()}
    weight = arrays["weight"] + rng.normal(0, 0.003, arrays["weight"].shape).astype(np.float32)
    bias = arrays["bias"] + (rng.integers(-99, 99, arrays["bias"].shape) * STEP).astype(np.float32)
    trained = {"weight": weight, "bias": bias, "steps": arrays["steps"] + 1}
    metrics = MetricRecord({"num-examples": 10, "loss": 0.5})
    new = ArrayRecord({name: Array(np.asarray(array)) for name, array in trained.items()})
    return Message(RecordDict({"arrays": new, "metrics": metrics}), reply_to=msg)
