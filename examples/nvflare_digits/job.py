"""The job: FedAvg of two clients, which send frames, in NVFlare's simulator."""

import argparse
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main():
    """Run the job, and test the global model that it saves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--workspace", default="runs/nvflare")
    args = parser.parse_args()
    workspace = Path(args.workspace).resolve()
    os.chdir(HERE)  # NVFlare looks for the scripts in the current folder

    import torch
    from net import Net, accuracy
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.recipe.sim_env import SimEnv

    import fedmrn_nvflare

    torch.manual_seed(0)
    recipe = FedAvgRecipe(
        name="digits",
        model=Net(),
        min_clients=args.clients,
        num_rounds=args.rounds,
        train_script="client.py",
        train_args=f"--epochs {args.epochs} --clients {args.clients}",
        aggregator=fedmrn_nvflare.ExactMean(),
    )
    fedmrn_nvflare.attach(recipe, output="FRAME")
    run = recipe.execute(SimEnv(num_clients=args.clients, workspace_root=str(workspace)))

    (saved,) = Path(run.get_result()).rglob("FL_global_model.pt")
    model = Net()
    model.load_state_dict(torch.load(saved, weights_only=False)["model"])
    print(f"test accuracy of the global model after {args.rounds} rounds: {accuracy(model):.4f}")


if __name__ == "__main__":
    main()
