"""Reference federated training: data sets, models, methods, and the loop that runs the codec on real data."""
