"""Arguments of encode and encode_bits that do not fit the schema or are out of range."""

import re

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import errors


def good_update():
    return {"w": np.zeros((2, 3), np.float32), "n": np.int64(3)}


GOOD_SCHEMA = fm.Schema([fm.Tensor("w", (2, 3), masked=True), fm.Tensor("n", (), dtype="int64")])


SHAPE = "shape of 'w': expected (2, 3), as in the schema"
DTYPE = "dtype of 'w': expected float32, as in the schema"
NOISES = "noise: expected one for each masked tensor, got ['v', 'w'] missing or unknown"
NON_FINITE = "'w': expected finite values, got a NaN or an infinity"
DRAWS = "draws of 'w': expected integers from 0 to 2^24 - 1"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"w": None}, fm.UpdateError, f"{SHAPE}, got ()"),
        ({"w": np.zeros((3, 2), np.float32)}, fm.UpdateError, f"{SHAPE}, got (3, 2)"),
        (
            {"w": np.zeros((2, 3))},
            fm.UpdateError,
            f"{DTYPE}, got float64",
        ),
        ({"w": np.full((2, 3), np.nan, np.float32)}, errors.UpdateNonFiniteError, NON_FINITE),
        ({"w": np.full((2, 3), -np.inf, np.float32)}, errors.UpdateNonFiniteError, NON_FINITE),
        ({"n": np.float32(3)}, fm.UpdateError, "dtype of 'n': expected int64, as in the schema, got float32"),
        ({"extra": np.zeros(3)}, fm.UpdateError, "update: expected only names of the schema, got ['extra']"),
    ],
)
def test_updates_that_do_not_fit(change, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        fm.encode({**good_update(), **change}, GOOD_SCHEMA, seed=1, noise=fm.Uniform(0.1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed: expected 0 to 2^64 - 1, got -1"),
        ({"seed": 2**64}, "seed: expected 0 to 2^64 - 1, got 18446744073709551616"),
        ({"seed": 1.5}, "seed: expected an integer, got 1.5"),
        ({"round": 2**32}, "round: expected 0 to 2^32 - 1, got 4294967296"),
        ({"base_model": 2**64}, "base_model: expected 0 to 2^64 - 1, got 18446744073709551616"),
        ({"mask": "ternary"}, "mask: expected one of binary, signed, got 'ternary'"),
        ({"noise": 0.1}, "noise: expected Uniform, Gaussian or Bernoulli, got 0.1"),
        (
            {"noise": {"v": 0.1}},
            "noise: expected one for each masked tensor, got ['v', 'w'] missing or unknown",
        ),
        ({"private_seed": 1}, "private_seed: expected a value other than the public seed, got 1"),
        ({"draws": {"w": np.full((2, 3), 2**24)}}, f"{DRAWS}, got 16777216 to 16777216"),
        ({"draws": {"w": np.arange(-1, 5).reshape(2, 3)}}, f"{DRAWS}, got -1 to 4"),
        ({"draws": {"w": np.zeros((2, 3))}}, f"{DRAWS}, got float64"),
        ({"draws": {}}, "draws: expected an array for each masked tensor, got nothing for 'w'"),
        ({"backend": "abacus"}, "backend: expected one of numba, numpy, torch, onnx, got 'abacus'"),
    ],
)
def test_arguments_out_of_range(change, message):
    with pytest.raises(fm.ArgumentError, match=f"^{re.escape(message)}$"):
        fm.encode(good_update(), GOOD_SCHEMA, **{"seed": 1, "noise": fm.Uniform(0.1), **change})


def test_missing_tensors_and_arguments_that_are_no_mapping():
    with pytest.raises(
        fm.UpdateError, match=r"^update: expected every name of the schema, got nothing for \['n'\]$"
    ):
        fm.encode({"w": good_update()["w"]}, GOOD_SCHEMA, seed=1, noise=fm.Uniform(0.1))
    with pytest.raises(fm.UpdateError, match=r"^update: expected a mapping of names to arrays, got list$"):
        fm.encode([1, 2], GOOD_SCHEMA, seed=1, noise=fm.Uniform(0.1))
    with pytest.raises(fm.UpdateError, match=r"^bits of 'w': expected bool, got float64$"):
        fm.encode_bits(
            {"w": np.zeros((2, 3))}, GOOD_SCHEMA, seed=1, noise=fm.Uniform(0.1), dense={"n": np.int64(1)}
        )
