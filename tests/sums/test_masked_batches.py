"""Packed masks wait for a full batch, and their memory is freed on demand."""

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.primitives.codes import MaskKind
from fedmrn_codec.sums.state import BATCH, MaskedSum


def test_masks_wait_for_a_full_batch_and_release_frees_it():
    backend, noise = backends.get("numpy"), fm.Uniform(0.01)
    state, payload = MaskedSum(80, noise), np.full(10, 255, np.uint8)
    one = np.zeros(80, np.int64)
    state.reserve(len(payload))
    backend.accumulate(noise, MaskKind.BINARY, 5, 2, payload, 3, one)
    for count in range(1, BATCH):
        state.add(backend, 2, MaskKind.BINARY, 5, payload, 3)
        assert state._pending == count
        assert not state.sums.any()
    state.add(backend, 2, MaskKind.BINARY, 5, payload, 3)
    assert state._pending == 0
    assert state.sums.tolist() == (BATCH * one).tolist()
    state.add(backend, 2, MaskKind.BINARY, 5, payload, 3)
    state.release(backend, 2)
    assert state.sums.tolist() == ((BATCH + 1) * one).tolist()
    assert state._masks.nbytes == 0
