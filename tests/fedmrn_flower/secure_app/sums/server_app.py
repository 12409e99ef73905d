"""The server: FedMRN with secure aggregation; it writes metrics, models and what it receives to files."""

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from fedmrn_flower import FedMRN, SecAgg

OUT = Path(os.environ["FEDMRN_TEST_OUT"])
app = ServerApp()


class Keeping(FedMRN):
    """Writes the metrics of each round, and the records and types of all replies, to files."""

    def aggregate_train(self, server_round, replies):
        """Write the metrics of the training."""
        replies = list(replies)
        types = [
            array.stype
            for reply in replies
            if not reply.has_error()
            for record in reply.content.array_records.values()
            for array in record.values()
        ]
        arrays, metrics = super().aggregate_train(server_round, replies)
        (OUT / f"round{server_round}.json").write_text(json.dumps({**metrics, "types": types}))
        return arrays, metrics


def keep(server_round, arrays):
    """Write the global model to a file."""
    np.savez(OUT / f"model{server_round}.npz", **{name: array.numpy() for name, array in arrays.items()})


@app.main()
def main(grid, context):
    """Run all rounds. Flower itself detects, after a minute, that a node has stopped."""
    inner = FedAvg(min_train_nodes=2, min_available_nodes=2, fraction_evaluate=0.0)
    model = {
        "weight": np.random.default_rng(0).normal(0, 0.05, (64, 100)).astype(np.float32),
        "bias": np.zeros(64, np.float32),
        "steps": np.array(0),
    }
    Keeping(inner, secure=SecAgg(threshold=2)).start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in model.items()}),
        num_rounds=context.run_config["num-server-rounds"],
        timeout=300,
        evaluate_fn=keep,
    )
