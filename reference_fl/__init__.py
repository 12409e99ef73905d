"""Reference federated training: data, models, methods and the loop that proves the codec on real images."""
