"""A Flower app for tests: the role of a node and the round determine how its client misbehaves."""
