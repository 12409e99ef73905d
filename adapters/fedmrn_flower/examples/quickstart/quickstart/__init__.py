"""A Flower app: a convolutional network, FedAvg, and frames of one bit a parameter."""
