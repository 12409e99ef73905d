"""A Flower app: FedAvg of a convolutional network."""
