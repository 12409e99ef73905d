"""What clients lose that share the seed of their Bernoulli noise (spec 11.4)."""

import numpy as np
import pytest

import fedmrn_codec as fm

UPDATES = (0.001, 0.002, -0.0015, 0.0005)
SCALE, ELEMENTS = 0.01, 400_000
SCHEMA = fm.Schema([fm.Tensor("w", (ELEMENTS,), masked=True)])


def mean_of(mask, shared):
    """The mean of clients each of which has the same update in all elements."""
    server = fm.Aggregator(SCHEMA, noise=fm.Bernoulli(SCALE))
    for client, update in enumerate(UPDATES):
        frame = fm.encode(
            {"w": np.full(ELEMENTS, update, np.float32)},
            SCHEMA,
            seed=7 if shared else client + 1,
            noise=fm.Bernoulli(SCALE),
            mask=mask,
            private_seed=1000 + client,
        )
        server.add(frame, weight=1)
    return server.mean()["w"].astype(np.float64)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mask", ["signed", "binary"])
def test_the_variance_of_the_mean(mask, shared):
    u, n = np.array(UPDATES), len(UPDATES)
    if mask == "signed":
        expectation, variance = u.mean(), (SCALE**2 - (u**2).mean()) / n
    else:
        expectation = u.mean() / 2
        variance = (SCALE * np.abs(u).mean() / 2 - (u**2).mean() / 4) / n
        if shared:
            variance += (np.abs(u).mean() ** 2 - (u**2).mean() / n) / 4
    got = mean_of(mask, shared)
    assert got.var() == pytest.approx(variance, rel=0.02)
    assert got.mean() == pytest.approx(expectation, abs=4 * (variance / ELEMENTS) ** 0.5)
