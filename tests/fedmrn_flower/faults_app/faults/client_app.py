"""Clients of three roles: honest; attacker, which tampers in rounds 2 to 4; victim, which stops in 5."""

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedmrn_flower import mod
from fedmrn_flower.records import from_frame, to_frame

WEIGHTS = {"honest": 30, "attacker": 50, "victim": 20}


def attacker(msg, context, call_next):
    """A mod outside of fedmrn_flower.mod, which can therefore replace frames."""
    number = msg.content["config"]["server-round"]
    attacks = context.node_config["role"] == "attacker"
    if attacks and number == 4:  # another seed
        msg.content["config"]["fedmrn.seed"] ^= 1
    reply = call_next(msg, context)
    if not attacks:
        return reply
    if number == 1:
        frame = to_frame(reply.content["arrays"])
        context.state["old"] = ConfigRecord({"frame": frame})
    if number == 2:
        reply.content["arrays"] = from_frame(os.urandom(4096))
    if number == 3:
        reply.content["arrays"] = from_frame(context.state["old"]["frame"])
    return reply


app = ClientApp(mods=[attacker, mod])


@app.train()
def train(msg, context):
    """Add small random values to every weight, which depend on role and round."""
    role, number = context.node_config["role"], msg.content["config"]["server-round"]
    if role == "victim" and number == 5:
        Path(os.environ["FEDMRN_TEST_OUT"], "victim-trains").touch()
        time.sleep(600)
    rng = np.random.default_rng([WEIGHTS[role], number])
    arrays = {
        name: Array(array.numpy() + rng.normal(0, 0.003, array.shape).astype(np.float32))
        for name, array in msg.content["arrays"].items()
    }
    metrics = MetricRecord({"num-examples": WEIGHTS[role], "loss": 1.0 / number})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=msg)
