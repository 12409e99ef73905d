"""The server: FedAvg over all nodes, and a test of the global model after each round."""

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from fedmrn_flower import FedMRN
from quickstart import task

app = ServerApp()


@app.main()
def main(grid, context):
    """Train for some rounds."""
    settings = context.run_config
    model = task.Net()
    nodes = settings["num-nodes"]

    def evaluate(server_round, arrays):
        model.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": task.test(model)})

    strategy = FedAvg(min_train_nodes=nodes, min_available_nodes=nodes, fraction_evaluate=0.0)
    strategy = FedMRN(strategy)
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        train_config=ConfigRecord({"lr": settings["lr"]}),
        num_rounds=settings["num-server-rounds"],
        evaluate_fn=evaluate,
    )
