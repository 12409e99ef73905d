"""A Flower app for tests: secure aggregation, with a node that is killed between two steps of a round."""
