"""The four backends give the same bytes for any input."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from backend_cases import KINDS, VERBS, Case, cases
from hypothesis import given, settings

import fedmrn_codec as fm
from fedmrn_codec import backends, errors
from fedmrn_codec.backends.automatic import AutomaticBackend, AutomaticCoder
from fedmrn_codec.primitives.codes import MaskKind
from fedmrn_codec.primitives.noise import DISTRIBUTIONS

OTHERS = ["numba", "torch", "onnx"]
LARGE = [(1, 1, 3_000_001), (2, 2, 1_000_003), (3, 1, 2**21)]
NOISES = list(DISTRIBUTIONS.values())


@pytest.fixture(scope="module", params=OTHERS)
def other(request):
    if request.param not in backends.installed():
        pytest.skip(f"the packages {backends.MODULES[request.param]} are not installed")
    return request.param


@pytest.mark.parametrize("verb", VERBS)
@given(case=cases())
@settings(max_examples=60)
def test_any_input(other, verb, case):
    assert case.run(other, verb) == case.run("numpy", verb)


@cache
def large(code, kind, size):
    """A large case, and the results of the NumPy backend."""
    case = Case(DISTRIBUTIONS[code](0.01), kind, 2**63 + 5, 3, 2**34 + 5, size)
    return case, {verb: case.run("numpy", verb) for verb in VERBS}


@pytest.mark.parametrize(("code", "kind", "size"), LARGE)
def test_large_inputs(other, code, kind, size):
    case, results = large(code, kind, size)
    for verb, want in results.items():
        assert case.run(other, verb) == want, verb


@pytest.mark.parametrize("start", [2**34 - 1, 2**34 + 17, 2**63 - 50, 2**63 + 1, 2**64 - 100])
@pytest.mark.parametrize("noise", NOISES)
def test_far_starts(other, noise, start):
    case = Case(noise(0.01), seed=2**64 - 1, stream=2**64 - 1, start=start, size=100)
    for verb in ("words", "noise"):
        assert case.run(other, verb) == case.run("numpy", verb)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", NOISES)
def test_results_do_not_depend_on_block_size(other, noise, kind, monkeypatch):
    """With the least blocks, of 32 elements, of which an input of a few thousand has many."""
    module = backends.get(other)
    if other == "numba":
        monkeypatch.setattr(module, "SPLIT", module.TILE)
    for name in ("BLOCK", "ALONE_BLOCK"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, 32)
    case = Case(noise(0.01), kind, start=2**34 + 5, size=3001)
    for verb in VERBS:
        assert case.run(other, verb) == case.run("numpy", verb), verb


@pytest.mark.parametrize("threads", ["1", "3"])
def test_any_number_of_threads(other, threads, monkeypatch):
    monkeypatch.setenv("FEDMRN_THREADS", threads)
    case = Case(fm.Gaussian(0.01), size=600_001)
    for verb in VERBS:
        assert case.run(other, verb) == case.run("numpy", verb), verb


def test_calls_from_many_threads(other):
    case = Case(fm.Uniform(0.01), size=70_001)
    want = [case.run("numpy", verb) for verb in VERBS]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda verb: case.run(other, verb), VERBS * 4))
    assert got == want * 4


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("weights", ["alike", "different", "in runs"])
def test_accumulate_many(other, weights, noise):
    """The sums of `accumulate` for each; frames of one seed and one weight have sums of over 32 bits."""
    kernels, size, count = backends.get(other), 2500, 300 if weights == "alike" else 20
    rng = np.random.default_rng(0)
    payloads = rng.integers(0, 256, (count, (size + 7) // 8), np.uint8)
    payloads[:, -1] &= 15
    payloads[:150] = payloads[0]
    kinds = rng.integers(1, 3, count) if weights != "alike" else np.full(count, MaskKind.SIGNED)
    seeds = np.full(count, 2**64 - 5, np.uint64)
    given = {"alike": np.full(count, 600), "different": np.arange(count) + 2**31 - 10}
    chosen = given.get(weights, np.repeat([1, 2**38, 7, 1], count // 4))
    got = rng.integers(-(2**40), 2**40, size)
    want, reference = got.copy(), backends.get("numpy")
    backends.accumulate_many(kernels, noise(0.01), kinds, seeds, 3, payloads, chosen, got)
    for kind, payload, weight in zip(kinds, payloads, chosen, strict=True):
        reference.accumulate(noise(0.01), int(kind), 2**64 - 5, 3, payload, int(weight), want)
    assert got.tobytes() == want.tobytes()


def test_means_of_frames(other):
    """Through the whole codec: frames of both kinds, encoded, aggregated and averaged."""
    schema = fm.Schema([fm.Tensor("b", (3,)), fm.Tensor("w", (40, 30), masked=True)])
    noise = fm.Gaussian(0.01)
    made = {}
    for name in ("numpy", other):
        rng = np.random.default_rng(0)
        server = fm.Aggregator(schema, noise=noise, backend=name)
        for seed, kind in ((1, "binary"), (2, "signed"), (2**64 - 1, "binary")):
            update = {
                "b": rng.normal(size=3).astype("f4"),
                "w": rng.normal(0, 0.01, (40, 30)).astype("f4"),
            }
            frame = fm.encode(update, schema, seed=seed, noise=noise, mask=kind, private_seed=5, backend=name)
            server.add(frame, weight=100 + seed % 7)
        made[name] = {key: array.tobytes() for key, array in server.mean().items()}, server.to_bytes()
    assert made["numpy"] == made[other]


def test_the_default_is_numba_or_numpy(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None if name == "numba" else name)
    assert backends.installed() == ["numpy", "torch", "onnx"]
    assert backends.get() is backends.get("numpy")
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None if name == "onnx" else name)
    assert backends.installed() == ["numba", "numpy", "torch"]
    assert isinstance(backends.get(), AutomaticBackend)
    assert isinstance(backends.coder(), AutomaticCoder)


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_a_missing_package_names_the_extra(name, monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(backends, "_load", missing)
    expected = rf"its packages \(pip install 'fedmrn-codec\[{name}\]'\)"
    message = f"^backend '{name}': expected {expected}, got No module named '{name}'$"
    with pytest.raises(errors.BackendError, match=message):
        backends.get(name)
