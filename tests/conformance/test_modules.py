"""Python modules under test: this project's backends, and changed faces of them."""

from types import ModuleType

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.conformance.module import ModuleTarget
from fedmrn_codec.conformance.request import PROFILES, Sample, Words
from fedmrn_codec.conformance.run import FAILED, PASSED, SKIPPED, run
from fedmrn_codec.conformance.suite import checks
from fedmrn_codec.conformance.target import Unsupported

BEYOND = [
    "philox/kat-ones:words",
    "philox/kat-pi:words",
    "many/across-2-64-of-stream-123456789abcdef:words",
    "many/last-of-stream-123456789abcdef:words",
    "frames/grid-mixed:encode",  # grids beside masks and other floats
    "frames/grid-mixed-embedded:encode",
]


@pytest.mark.parametrize("backend", ["numpy", "numba", None])
def test_this_project_passes(backend):
    target = ModuleTarget("fedmrn_codec", backend)
    assert target.profiles == tuple(PROFILES)
    records = list(run(target, checks(examples=8)))
    assert [r.message for r in records if r.status == FAILED] == []
    assert [r.id for r in records if r.status == SKIPPED] == BEYOND
    assert sum(r.status == PASSED for r in records) > 700


def changed(**names) -> ModuleTarget:
    """The face of this project with other functions in some places."""
    module = ModuleType("changed")
    module.__dict__.update({name: getattr(fm, name) for name in fm.__all__}, backends=backends, **names)
    return ModuleTarget(module, "numpy")


class Leaky(fm.Aggregator):
    """Keeps the weight of a frame that it refuses."""

    def add(self, data, weight, **more):
        before = self.weight
        try:
            return super().add(data, weight, **more)
        except fm.FrameError:
            self.weight = before + weight
            raise


def without(name):
    """`decode` that forgets one of its arguments."""

    def decode(*args, **kwargs):
        kwargs.pop(name)
        return fm.decode(*args, **kwargs)

    return decode


def twice_rounded(noise, **place):
    return fm.noise(noise, **place).astype(np.float16).astype(np.float32)


def roundless(*args, **kwargs):
    return fm.encode_bits(*args, **kwargs | {"round": 0})


def careless(*args, **kwargs):
    return {"x": np.zeros(3)}["y"]


@pytest.mark.parametrize(
    ("breaks", "names"),
    [
        ("A-05", {"Aggregator": Leaky}),
        ("F-05", {"decode": without("limits")}),
        ("F-12", {"decode": without("round")}),
        ("F-13", {"decode": without("base_model")}),
        ("F-14", {"decode": without("seed")}),
        ("N-04", {"noise": twice_rounded}),
        ("E-01", {"encode_bits": roundless}),
        ("M-01", {"decode": careless}),
    ],
)
def test_a_changed_module_is_caught(breaks, names):
    failure = next(r for r in run(changed(**names), checks()) if r.status == FAILED)
    assert failure.musts[0] == breaks
    if names.get("decode") is careless:
        assert "KeyError: 'y'" in failure.message


def test_a_module_offers_what_it_has():
    module = ModuleType("reader")
    module.__dict__.update({name: getattr(fm, name) for name in fm.__all__ if name != "Aggregator"})
    del module.encode
    assert ModuleTarget(module).profiles == ("decode",)


def test_what_a_module_cannot_be_asked_is_unsupported():
    target = changed()
    with pytest.raises(Unsupported):
        target.ask(Words(seed=0, stream=0, start=2**64, count=1))
    far = Sample(
        kind="binary", distribution="uniform", scale=0x3F800000, seed=1, stream=2**40, update=b"", draws=b""
    )
    assert target.ask(far) == {"mask": b""}
    del target.m.backends
    with pytest.raises(Unsupported, match="no schema reaches stream"):
        target.ask(far)
