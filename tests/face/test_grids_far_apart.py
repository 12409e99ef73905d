"""Models and updates on grids whose steps differ by many powers of two: exact sums, or a refusal."""

import threading
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec.primitives.grid import BOUNDS

SCHEMA = fm.Schema([fm.Tensor("b", (3,))])
MOST = BOUNDS["float32"].largest

INTEGERS = st.lists(
    st.integers(-MOST, MOST) | st.integers(-3, 3) | st.sampled_from([0, 2**20, -(2**22), 3 * 2**21]),
    min_size=3,
    max_size=3,
)
EXPONENTS = st.integers(-120, 100) | st.integers(-60, 0)


def exact(integers, exponent):
    return [each * Fraction(2) ** exponent for each in integers]


def fits(values):
    """Whether integers within the bounds times one power of two give all of these."""
    if not any(values):
        return True
    step = Fraction(2) ** -300
    whole = [int(each / step) for each in values]
    together = whole[0] | whole[1] | whole[2]
    zeros = (together & -together).bit_length() - 1
    exponent = min(zeros - 300, BOUNDS["float32"].largest_exponent)
    return max(map(abs, whole)) >> (exponent + 300) <= MOST


@given(INTEGERS, EXPONENTS, INTEGERS, EXPONENTS)
@example([1, 0, 0], 0, [1, 0, 0], -50)  # the sum needs 51 bits
@example([-1, 0, 0], 0, [0, 0, 0], -90)
@example([1, 0, 0], 0, [2**20, 0, 0], -40)  # 40 powers of two apart, and 20 in the largest steps
@example([1, 1, 0], 60, [0, 0, 2**22], -20)
def test_a_replica_has_the_exact_sum_or_refuses_the_frame(whole, exponent, integers, own):
    replica = fm.Replica(SCHEMA)
    whole_model = {"b": np.array([float(each) for each in exact(whole, exponent)], np.float32)}
    replica.apply(fm.encode_grid(whole_model, SCHEMA, step=2.0**exponent))
    before = replica.model["b"].tobytes()
    update = {"b": np.array([float(each) for each in exact(integers, own)], np.float32)}
    frame = fm.encode_grid(update, SCHEMA, step=2.0**own, base_model=replica.model_id)
    total = [a + b for a, b in zip(exact(whole, exponent), exact(integers, own), strict=True)]
    if fits(total):
        replica.apply(frame)
        assert [Fraction(float(each)) for each in replica.model["b"]] == total
    else:
        with pytest.raises(fm.FrameError):
            replica.apply(frame)
        assert replica.model["b"].tobytes() == before


def test_a_downlink_takes_every_finite_model():
    schema = fm.Schema([fm.Tensor("w", (4, 4)), fm.Tensor("m", (4, 4), masked=True)])
    ones = {"w": np.ones((4, 4), np.float32), "m": np.ones((4, 4), np.float32)}
    down, replica = fm.Downlink(schema, ones), fm.Replica(schema)
    replica.apply(down.frame(), down.model_id)
    for scale in (1e20, 3e38, -3e38, 1e-30):
        down.advance({"w": ones["w"] * np.float32(scale), "m": ones["m"]})
        replica.apply(down.frame(replica.model_id), down.model_id)
        assert np.isfinite(replica.model["w"]).all()


def test_steps_are_those_of_the_dtype_that_the_model_has():
    schema = fm.Schema([fm.Tensor("m", (4,), masked=True)])
    half = {"m": np.full(4, 1e-4, np.float16)}
    for name in ("step", "first"):
        with pytest.raises(fm.ArgumentError, match=r"^step of 'm': expected .* its dtype is float16, got"):
            fm.Downlink(schema, half, **{name: 2.0**-30})
    fm.Downlink(schema, half, step=2.0**-24)
    fm.Downlink(schema, {"m": half["m"].astype(np.float32)}, step=2.0**-30)


def test_a_frame_that_is_computed_beside_an_advance_is_not_kept_for_the_next_version(monkeypatch):
    schema = fm.Schema([fm.Tensor("w", (8, 8), masked=True)])
    models = [{"w": np.full((8, 8), each, np.float32)} for each in (1.0, 2.0)]
    down = fm.Downlink(schema, models[0])
    former, inside, go_on = down.model_id, threading.Event(), threading.Event()
    original = type(down._held).whole_frame

    def slow(self, backend):
        inside.set()
        assert go_on.wait(10)
        return original(self, backend)

    monkeypatch.setattr(type(down._held), "whole_frame", slow)
    frames = []
    thread = threading.Thread(target=lambda: frames.append(down.frame()))
    thread.start()
    assert inside.wait(10)
    down.advance(models[1])
    go_on.set()
    thread.join(10)
    replica = fm.Replica(schema)
    replica.apply(frames[0], former)  # the version that was asked for
    replica = fm.Replica(schema)
    replica.apply(down.frame(), down.model_id)
