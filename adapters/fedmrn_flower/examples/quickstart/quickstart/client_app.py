"""The client: trains on its share of the data."""

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import fedmrn_flower
from quickstart import task

app = ClientApp()


@app.train()
def train(msg, context):
    """Train the model that the message brings, and reply with the result."""
    settings = context.run_config
    model = task.build_model(settings["dataset"])
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())

    place = context.node_config["partition-id"], context.node_config["num-partitions"]
    loader = task.train_loader(settings["dataset"], *place, settings["batch-size"])

    epochs = settings["local-epochs"]
    psm = fedmrn_flower.psm(model, msg, steps=epochs * len(loader))
    loss = task.train(model, loader, epochs, msg.content["config"]["lr"], psm)

    arrays = fedmrn_flower.arrays(psm)
    return reply(msg, arrays, {"train-loss": loss, "num-examples": len(loader.dataset)})


def reply(msg: Message, arrays: ArrayRecord, metrics: dict) -> Message:
    """What a strategy of Flower expects: the arrays, and metrics with the number of samples."""
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=msg)
