"""Clients that write the id of the model that they receive; the role "steady" loses it before round 4."""

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import fedmrn_codec as fm
from fedmrn_flower import Request, mod

OUT = Path(os.environ["FEDMRN_TEST_OUT"])


def forgets(msg, context, call_next):
    """A mod around fedmrn_flower.mod that removes what a node holds."""
    if context.node_config["role"] == "steady" and msg.content["config"]["server-round"] == 4:
        context.state.pop("fedmrn.held", None)
    return call_next(msg, context)


app = ClientApp(mods=[forgets, mod])


def note(msg, context, base_model):
    """Write what arrived to a file; the app is called once for each message of a round."""
    kind, number = msg.metadata.message_type, msg.content["config"]["server-round"]
    path = OUT / f"{kind}{number}-{context.node_config['role']}-{context.node_id}.json"
    arrays = {name: array.numpy() for name, array in msg.content["arrays"].items()}
    about = {"id": fm.model_id(arrays), "base_model": base_model, "before": path.exists()}
    path.write_text(json.dumps(about))
    return arrays


@app.train()
def train(msg, context):
    """Add small random values to every weight."""
    arrays = note(msg, context, Request.of(msg).base_model)
    rng = np.random.default_rng([context.node_id % 2**32, msg.content["config"]["server-round"]])
    trained = {
        name: Array(np.asarray(array + rng.normal(0, 0.003, array.shape).astype(array.dtype)))
        for name, array in arrays.items()
    }
    metrics = MetricRecord({"num-examples": 10, "loss": 0.5})
    return Message(RecordDict({"arrays": ArrayRecord(trained), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg, context):
    """Reply with the mean of the weights."""
    arrays = note(msg, context, None)
    metrics = MetricRecord({"num-examples": 10, "mean": float(arrays["weight"].mean())})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
