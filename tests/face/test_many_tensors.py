"""Schemas of many tensors, and shapes of many dimensions: work in proportion to their bytes."""

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.face import decoding


def test_a_bound_of_the_norm_decodes_each_tensor_once(monkeypatch):
    count = 50
    schema = fm.Schema([fm.Tensor(f"t{n}", (2, 1), masked=n % 2 == 0) for n in range(count)])
    update = {tensor.name: np.full(tensor.shape, 0.01, np.float32) for tensor in schema}
    policy = fm.Policy(
        schema=schema,
        noise=fm.Bernoulli(0.02),
        round=1,
        base_model=0,
        seeds={"ann": 5},
        max_weight=1,
        max_norm=10.0,
    )
    frame = policy.request("ann").encode(update)
    looked_at, original = [], decoding.CheckedFrame.elements

    def elements(self, stream, backend=None):
        looked_at.append(stream)
        return original(self, stream, backend)

    monkeypatch.setattr(decoding.CheckedFrame, "elements", elements)
    policy.check(frame, client="ann", weight=1)
    assert sorted(looked_at) == list(range(count))


def test_a_shape_of_many_dimensions_is_refused_before_it_is_multiplied():
    with pytest.raises(fm.SchemaError, match=r"at most 32 dimensions .*, got 200000 dimensions"):
        fm.Schema.from_json([{"name": "a", "shape": [2**40] * 200_000, "dtype": "float32", "masked": False}])
    with pytest.raises(fm.SchemaError, match="got 33 dimensions"):
        fm.Tensor("a", (1,) * 33)
    assert fm.Tensor("a", (1,) * 32).size == 1


def test_integers_of_numpy_are_private_seeds():
    schema = fm.Schema([fm.Tensor("w", (64,), masked=True)])
    update = {"w": np.full(64, 0.005, np.float32)}
    frames = [
        fm.encode(update, schema, seed=kind(7), noise=fm.Uniform(0.01), private_seed=kind(3))
        for kind in (int, np.int64, np.uint64)
    ]
    assert frames[0] == frames[1] == frames[2]
