"""Seed 0 is a seed like any other: it is not taken for "not given"."""

import numpy as np

import fedmrn_codec as fm

SCHEMA = fm.Schema([fm.Tensor("w", (40,), masked=True)])
NOISE = fm.Uniform(0.01)
BITS = {"w": np.arange(40) % 3 == 0}


def test_frames_and_arrays_of_seed_0_have_the_same_sum():
    frame = fm.encode_bits(BITS, SCHEMA, seed=0, noise=NOISE)
    by_frame, by_arrays = fm.Aggregator(SCHEMA), fm.Aggregator(SCHEMA, noise=NOISE)
    by_frame.add(frame, 3, seed=0)
    by_arrays.add_arrays({}, 3, bits=BITS, seed=0)
    assert by_arrays.to_bytes() == by_frame.to_bytes()
    kept = np.where(BITS["w"], fm.noise(NOISE, seed=0, stream=0, count=40), np.float32(0))
    assert by_frame.mean()["w"].tobytes() == kept.astype(np.float32).tobytes()
