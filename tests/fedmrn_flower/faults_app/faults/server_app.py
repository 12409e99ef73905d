"""The server: FedMRN around FedAvg; it writes every reply and every global model to files for the test."""

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from fedmrn_flower import FedMRN, Uniform

OUT = Path(os.environ["FEDMRN_TEST_OUT"])
app = ServerApp()


class Keeping(FedMRN):
    """Writes what the server receives to files."""

    def aggregate_train(self, server_round, replies):
        """Write each frame to a file named by round and weight."""
        replies = list(replies)
        for reply in replies:
            if not reply.has_error():
                (frame,) = reply.content["arrays"].values()
                weight = reply.content["metrics"]["num-examples"]
                (OUT / f"round{server_round}-weight{weight}.fmrn").write_bytes(frame.data)
        arrays, metrics = super().aggregate_train(server_round, replies)
        (OUT / f"round{server_round}.json").write_text(json.dumps(dict(metrics)))
        return arrays, metrics


def keep(server_round, arrays):
    """Write the global model to a file."""
    np.savez(OUT / f"model{server_round}.npz", **{name: array.numpy() for name, array in arrays.items()})
    return MetricRecord({"kept": 1})


@app.main()
def main(grid, context):
    """Run all rounds. Flower itself detects, after a minute, that a node has stopped."""
    inner = FedAvg(min_train_nodes=2, min_available_nodes=2, fraction_evaluate=0.0)
    model = {"conv.weight": np.ones((40, 3, 3, 3), np.float32), "conv.bias": np.zeros(40, np.float32)}
    Keeping(inner, noise=Uniform(0.01), mask="signed").start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in model.items()}),
        num_rounds=context.run_config["num-server-rounds"],
        timeout=300,
        evaluate_fn=keep,
    )
