"""The server: FedMRN around FedAvg; it writes the metrics of each round, and waits after the second."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from fedmrn_flower import FedMRN, Uniform

OUT = Path(os.environ["FEDMRN_TEST_OUT"])
app = ServerApp()


class Keeping(FedMRN):
    """Writes the metrics of each round to files."""

    def aggregate_train(self, server_round, replies):
        """Write the metrics of the training."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        (OUT / f"train{server_round}.json").write_text(json.dumps(dict(metrics)))
        return arrays, metrics

    def aggregate_evaluate(self, server_round, replies):
        """Write the metrics of the evaluation."""
        metrics = super().aggregate_evaluate(server_round, replies)
        (OUT / f"evaluate{server_round}.json").write_text(json.dumps(dict(metrics)))
        return metrics


def wait(server_round, arrays):
    """Write the mean of the weights; after round 2 wait until other nodes have joined."""
    (OUT / f"model{server_round}.json").write_text(json.dumps(float(arrays["weight"].numpy().mean())))
    end = time.monotonic() + 300
    while server_round == 2 and not (OUT / "joined").exists() and time.monotonic() < end:
        time.sleep(0.2)


@app.main()
def main(grid, context):
    """Run all rounds."""
    inner = FedAvg(min_train_nodes=2, min_available_nodes=2, min_evaluate_nodes=2)
    rng = np.random.default_rng(0)
    model = {
        "weight": rng.normal(0, 0.05, (64, 100)).astype(np.float32),
        "bias": np.zeros(64, np.float32),
        "steps": np.array(0),
    }
    Keeping(inner, noise=Uniform(0.01), mask="signed").start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in model.items()}),
        num_rounds=context.run_config["num-server-rounds"],
        timeout=300,
        evaluate_fn=wait,
    )
