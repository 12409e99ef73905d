"""A client: trains the masks of the model in each task."""

import argparse

import nvflare.client as flare
import torch
from net import Net, accuracy, train_loader

import fedmrn_nvflare


def main():
    """Run tasks until the job ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--clients", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(1)
    flare.init()
    number = int(flare.get_site_name().removeprefix("site-")) - 1
    loader = train_loader(number, args.clients, batch_size=32)
    while flare.is_running():
        received = flare.receive()
        model = Net()
        model.load_state_dict(received.params)
        metrics = {"accuracy": accuracy(model)}  # of the global model; NVFlare selects the best model by it
        psm = fedmrn_nvflare.psm(model, received, steps=args.epochs * len(loader))
        train(model, loader, args.epochs, args.lr, psm)
        meta = {"NUM_STEPS_CURRENT_ROUND": len(loader.dataset)}  # the client's weight in the mean
        flare.send(fedmrn_nvflare.result(psm, metrics=metrics, meta=meta))


def train(model, loader, epochs, lr, psm):
    """Plain local training, plus one call of `psm.step()` per step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            psm.step()


if __name__ == "__main__":
    main()
