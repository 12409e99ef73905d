"""A Flower app for tests: it writes down what clients receive, and waits between two rounds."""
