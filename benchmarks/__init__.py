"""Benchmarks: `python -m benchmarks` runs those of the codec, `python -m benchmarks.NAME` the others."""
