"""The bounds of a noise scale (spec 3.5)."""

import re

import numpy as np
import pytest

import fedmrn_codec as fm


@pytest.mark.parametrize(("noise", "least", "largest"), [
    (fm.Uniform, 2.0**-102, float(np.finfo(np.float32).max)),
    (fm.Gaussian, 2.0**-105, 2.0**125),
    (fm.Bernoulli, 2.0**-126, float(np.finfo(np.float32).max)),
])  # fmt: skip
def test_scale_bounds_keep_noise_normal(noise, least, largest):
    for scale in (least, largest):
        values = np.abs(fm.noise(noise(scale), seed=1, count=1000))
        assert np.isfinite(values).all()
        assert (values >= np.finfo(np.float32).tiny).all()
        extreme = np.float32(1) * noise(scale).step
        assert extreme >= np.finfo(np.float32).tiny
    below = float(np.nextafter(np.float32(least), np.float32(0)))
    bounds = re.escape(f"expected {least:.6g} to {largest:.6g} for {noise.name} noise, got ")
    for scale in (0.0, -1.0, below, 2 * largest, float("nan"), float("inf"), None):
        with pytest.raises(fm.ScaleError, match=f"^noise scale: {bounds}{re.escape(str(scale))}$"):
            noise(scale)
    with pytest.raises(fm.ScaleError, match=r"^noise scale: expected a number, got 'wide'$"):
        noise("wide")
