"""Fuzzing: bytes that are nearly right, for every reader of the library and of the other decoders.

    PYTHONPATH=tests python -m fuzz --seconds 600        # `make fuzz`: all harnesses, one after the other
    PYTHONPATH=tests python -m fuzz --only partials      # some of them
    PYTHONPATH=tests python -m fuzz --repeat partials FILE

A harness (`harness.py`) has a function of bytes that raises an exception if a reader does what it must not.
Its inputs are those of the vectors and of `corpus/`, changed by a mutator that knows the structure
(`mutator.py`, `secagg_mutator.py`).
"""
