"""A Flower app: FedAvg of a small convolutional network."""
