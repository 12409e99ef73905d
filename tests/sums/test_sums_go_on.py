"""Sums that were read from bytes, or merged with others or themselves, go on with further frames, exactly."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import fedmrn_codec as fm

SPREAD = st.lists(
    st.tuples(st.integers(0, 9), st.integers(-3, 3), st.sampled_from([-300, -40, 0, 40, 300])), max_size=3
)
FLOATS = fm.Schema([fm.Tensor("a", (4,), dtype="float64"), fm.Tensor("b", (6,), dtype="float64")])


def spread_frame(places, seed=1):
    values = np.zeros(10)
    for at, factor, exponent in places:
        values[at] = factor * 2.0**exponent
    update = {"a": values[:4], "b": values[4:]}
    return values, fm.encode(update, FLOATS, seed=seed, noise=fm.Bernoulli(1.0))


def means(values, count):
    exact = [sum((Fraction(float(v[i])) for v in values), Fraction(0)) / count for i in range(10)]
    return [float(each) for each in exact]  # Fraction rounds to the nearest float64, ties to even


@given(
    st.lists(
        st.tuples(SPREAD, st.sampled_from(["bytes", "itself", "other", "nothing"])), min_size=1, max_size=8
    )
)
def test_exact_sums_go_on_after_every_way_to_make_them(steps):
    server, values = fm.Aggregator(FLOATS), []
    for places, way in steps:
        one, frame = spread_frame(places)
        server.add(frame, 1)
        values.append(one)
        if way == "bytes":
            server = fm.Aggregator.from_bytes(server.to_bytes(), FLOATS)
        elif way == "itself":
            server.merge(server)
            values = values * 2
        elif way == "other":
            other = fm.Aggregator(FLOATS)
            other.merge(server)
            server = other
    mean = server.mean()
    assert [*mean["a"], *mean["b"]] == means(values, len(values))


@given(st.lists(st.tuples(SPREAD, st.sampled_from(["bytes", "itself", "nothing"])), min_size=1, max_size=6))
def test_tallies_go_on_after_every_way_to_make_them(steps):
    tally, values = fm.Tally(FLOATS), []
    for places, way in steps:
        one, frame = spread_frame(places)
        tally.add(frame)
        values.append(one)
        if way == "bytes":
            tally = fm.Tally.from_bytes(tally.to_bytes(), FLOATS)
        elif way == "itself":
            tally.merge(tally)
            values = values * 2
    server = fm.Aggregator(FLOATS)
    server.add_tally(tally)
    mean = server.mean()
    assert [*mean["a"], *mean["b"]] == means(values, len(values))
