"""A Flower app for tests: its clients misbehave in the way that their node's role and the round say."""
