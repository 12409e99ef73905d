"""How an update fits the scale of its noise, as clients measure it."""

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import Fit, fit_of

SCHEMA = fm.Schema(
    [fm.Tensor("w", (3, 4), masked=True), fm.Tensor("b", (2,)), fm.Tensor("v", (4,), masked=True)]
)


def update(w, v):
    return {"w": np.asarray(w).reshape(3, 4), "b": np.full(2, 99.0), "v": np.asarray(v)}


def test_the_shares_are_those_of_all_masked_elements():
    w = [0, 1, -1, 2, -2, 0.5, -0.5, 0, 0, 0, 0, 0]
    noise = {"w": fm.Uniform(1.0), "v": fm.Bernoulli(0.25)}
    got = fit_of(update(w, np.array([0.25, 0.5, 0, -np.inf], np.float16)), SCHEMA, noise)
    assert got == Fit(clipped=4 / 16, used=(4 + 1 + 3) / 9)
    assert fit_of({}, fm.Schema([fm.Tensor("b", (2,))]), fm.Uniform(1.0)) == Fit(0, 0)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (3.0, "about 100 % of the update's masked elements are larger than the scale of the noise and are "
              "clipped"),
        (1e-4, "the update's masked elements are on average 1e-04 of the scale of the noise, so nearly no "
               "mask bit depends on them"),
        (0.1, None),
        (0.0, None),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_its_number(size, text):
    misfit = fit_of(update(np.full(12, size), np.full(4, -size)), SCHEMA, fm.Uniform(1.0)).misfit()
    assert (misfit and misfit.found) == text
    if misfit:
        assert misfit.remedy == f"use a {'larger' if size > 1 else 'smaller'} scale"


def test_large_tensors_are_measured_on_a_sample():
    schema = fm.Schema([fm.Tensor("w", (1001, 1003), masked=True), fm.Tensor("v", (3,), masked=True)])
    w = np.random.default_rng(1).standard_normal((1001, 1003), np.float32)
    w[:300] = 0
    got = fit_of({"w": w, "v": np.ones(3)}, schema, fm.Bernoulli(2.0))
    assert got.clipped == pytest.approx((np.abs(w) > 2).mean(), rel=0.05)
    assert got.used == pytest.approx(np.minimum(np.abs(w[300:]) / 2, 1).mean(), rel=0.02)
