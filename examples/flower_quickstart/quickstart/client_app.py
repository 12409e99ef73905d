"""The client: trains on its part of the data."""

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import fedmrn_flower
from quickstart import task

app = ClientApp(mods=[fedmrn_flower.mod])


@app.train()
def train(msg, context):
    """Train the model in the message, and reply with the result."""
    settings, node = context.run_config, context.node_config
    model = task.Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    loader = task.train_loader(node["partition-id"], node["num-partitions"], settings["batch-size"])

    epochs = settings["local-epochs"]
    psm = fedmrn_flower.psm(model, msg, steps=epochs * len(loader))
    loss = task.train(model, loader, epochs, msg.content["config"]["lr"], psm)

    arrays = fedmrn_flower.arrays(psm)
    return reply(msg, arrays, {"train-loss": loss, "num-examples": len(loader.dataset)})


def reply(msg: Message, arrays: ArrayRecord, metrics: dict) -> Message:
    """A reply as Flower's strategies expect it: the arrays, and metrics with the number of samples."""
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=msg)
