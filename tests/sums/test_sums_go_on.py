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


def check_mean(server, values):
    """The mean of the aggregator is that of fractions, rounded once (ties to even), bit for bit."""
    exact = [sum((Fraction(float(v[i])) for v in values), Fraction(0)) / len(values) for i in range(10)]
    mean = server.mean()
    assert np.concatenate([mean["a"], mean["b"]]).tobytes() == np.array([*map(float, exact)]).tobytes()


def played(sums, add, steps):
    """The sums after frames, each followed by a way to make them anew; and the values that are in them."""
    values = []
    for places, way in steps:
        one, frame = spread_frame(places)
        add(sums, frame)
        values.append(one)
        if way == "bytes":
            sums = type(sums).from_bytes(sums.to_bytes(), FLOATS)
        elif way == "itself":
            sums.merge(sums)
            values = values * 2
        elif way == "other":
            other = type(sums)(FLOATS)
            other.merge(sums)
            sums = other
    return sums, values


def steps_of(most, *ways):
    return st.lists(st.tuples(SPREAD, st.sampled_from(ways)), min_size=1, max_size=most)


@given(steps_of(8, "bytes", "itself", "other", "nothing"))
def test_exact_sums_go_on_after_every_way_to_make_them(steps):
    check_mean(*played(fm.Aggregator(FLOATS), lambda server, frame: server.add(frame, 1), steps))


@given(steps_of(6, "bytes", "itself", "nothing"))
def test_tallies_go_on_after_every_way_to_make_them(steps):
    tally, values = played(fm.Tally(FLOATS), fm.Tally.add, steps)
    server = fm.Aggregator(FLOATS)
    server.add_tally(tally)
    check_mean(server, values)
