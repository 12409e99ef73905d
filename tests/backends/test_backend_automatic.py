"""The default backend: NumPy first, then Numba, with the same bits; and the message before a compilation."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.backends import automatic
from fedmrn_codec.backends.automatic import Automatic
from fedmrn_codec.format.codings import ENTROPY

pytest.importorskip("numba")

from numba.core import config

from fedmrn_codec.backends import compiled

PLACE = fm.Uniform(0.01), 1, 7, 0
PAYLOAD = np.arange(5, dtype=np.uint8)


@pytest.fixture
def limits(monkeypatch):
    """A default that is new: NumPy for 100 elements, or 1,000 if nothing is compiled."""
    monkeypatch.setattr(Automatic, "served", 0)
    monkeypatch.setattr(automatic, "LOAD", 100)
    monkeypatch.setattr(automatic, "COMPILE", 1000)


def calls(backend, monkeypatch, has_code):
    """The modules that successive calls of 40 elements choose."""
    monkeypatch.setattr(compiled, "has_code", lambda kernel: has_code)
    return [backend.choose("decode", 40).__name__.rpartition(".")[2] for _ in range(30)]


def test_compiled_code_is_loaded_when_it_is_worth_it(limits, monkeypatch):
    found = calls(automatic.AutomaticBackend(), monkeypatch, True)
    assert found == 2 * ["numpy"] + 28 * ["numba"]


def test_nothing_is_compiled_for_few_elements(limits, monkeypatch):
    found = calls(automatic.AutomaticBackend(), monkeypatch, False)
    assert found == 25 * ["numpy"] + 5 * ["numba"]


def test_a_large_first_call_is_numbas(limits):
    assert automatic.AutomaticBackend().choose("sample", 1001).__name__.endswith(".numba")
    for coding in ENTROPY:
        chosen = automatic.AutomaticCoder(coding).choose("encode", 1001)
        assert chosen.__name__.endswith(f".numba_{coding.label}")


@pytest.mark.parametrize(
    "default", [automatic.AutomaticBackend(), *(automatic.AutomaticCoder(coding) for coding in ENTROPY)]
)
def test_every_function_has_its_kernel(default):
    for function, (module, kernel) in default._kernels.items():
        assert callable(getattr(default, function))
        assert hasattr(automatic._module(module), kernel)
        assert hasattr(automatic._module(default._compiled), function)
        assert hasattr(automatic._module(default._plain), function)


def test_all_functions_have_the_bits_of_both(limits, monkeypatch):
    made = []
    for limit in (0, 10**9):  # Numba at once; NumPy
        monkeypatch.setattr(automatic, "LOAD", limit)
        monkeypatch.setattr(automatic, "COMPILE", limit)
        default, sums, out = automatic.AutomaticBackend(), np.zeros(40, np.int64), np.empty(40, np.float32)
        default.decode(*PLACE, PAYLOAD, out)
        default.accumulate(*PLACE, PAYLOAD, 600, sums)
        two = np.array([1, 2]), np.array([8, 9], np.uint64)
        default.accumulate_many(PLACE[0], *two, 0, np.stack([PAYLOAD] * 2), np.array([5, 6]), sums)
        bits = default.sample(*PLACE, out, 99)
        noise, words = default.noise(PLACE[0], 7, 0, 3, 30), default.words(7, 0, 3, 30)
        made.append([array.tobytes() for array in (out, sums, bits, noise, words)])
    assert made[0] == made[1]


@pytest.mark.parametrize("coding", ENTROPY)
@pytest.mark.parametrize("limit", [0, 10**9])
def test_the_entropy_coder_has_the_bits_of_both(limits, monkeypatch, limit, coding):
    monkeypatch.setattr(automatic, "LOAD", limit)
    monkeypatch.setattr(automatic, "COMPILE", limit)
    monkeypatch.setattr(backends, "_automatic_coder", automatic.AutomaticCoder)
    schema = fm.Schema([fm.Tensor("w", (100, 100), masked=True)])
    bits = {"w": np.random.default_rng(0).random((100, 100)) < 0.1}
    made = {"seed": 7, "noise": fm.Uniform(0.01), "coding": coding}
    frame = fm.encode_bits(bits, schema, **made)
    assert frame == fm.encode_bits(bits, schema, **made, backend="numpy")
    assert np.array_equal(fm.decode_bits(frame, schema)["w"], bits["w"])


def test_a_small_first_frame_imports_no_numba():
    code = """
import sys
import numpy as np
import fedmrn_codec as fm
schema = fm.Schema([fm.Tensor("w", (100, 100), masked=True)])
update = {"w": np.full((100, 100), 0.003, np.float32)}
frame = fm.encode(update, schema, seed=7, noise=fm.Uniform(0.01), coding="rans")
server = fm.Aggregator(schema)
server.add(frame, weight=1)
fm.decode(frame, schema), server.mean()
assert "numba" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- the message -------------------------------------------------------------------------------------


def double(x):
    return 2 * x


def compile_twice(caplog):
    """The messages of two compilations."""
    compiled.announce.cache_clear()
    with caplog.at_level(logging.WARNING, "fedmrn_codec"):
        for value in (21, 1.5):  # two types, two compilations
            assert compiled.jit(double)(value) == 2 * value
    return [record.getMessage() for record in caplog.records]


def test_a_compilation_is_announced_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    (said,) = compile_twice(caplog)
    assert said.startswith("compiling the functions of the backend numba, which takes some seconds")
    caplog.clear()
    assert compile_twice(caplog) == []  # the code is on the disk
    kernel = compiled.jit(double)
    assert compiled.has_code(kernel)


def test_without_a_cache_it_is_announced_too(monkeypatch, caplog):
    monkeypatch.setattr(compiled.KernelCache, "__init__", no_folder)
    assert len(compile_twice(caplog)) == 1
    kernel = compiled.jit(double)
    assert not compiled.has_code(kernel)
    kernel(21)
    assert compiled.has_code(kernel)


def no_folder(*_):
    raise RuntimeError("no locator available")


BROKEN = """
import logging, sys
import numpy as np
import fedmrn_codec as fm
logging.basicConfig(stream=sys.stdout, format="%(message)s")
schema = fm.Schema([fm.Tensor("w", (2**22,), masked=True)])
frame = fm.encode_bits({"w": np.zeros(2**22, bool)}, schema, seed=1, noise=fm.Bernoulli(1.0))
server = fm.Aggregator(schema)
for seed in range(4):
    server.add(frame, 1)
assert not server.mean()["w"].any()
try:
    fm.decode(frame, schema, backend="numba")
except fm.BackendError as error:
    print("refused:", error)
"""


def test_a_numba_that_cannot_be_imported_leaves_numpy(tmp_path):
    """Numba's versions refuse the versions of NumPy that they do not know, with an ImportError."""
    (tmp_path / "numba").mkdir()
    said = "Numba needs NumPy 2.1 or less. Got NumPy 9.9."
    (tmp_path / "numba" / "__init__.py").write_text(f"raise ImportError({said!r})\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == f"Numba is installed and cannot be imported; NumPy is used, which is slower: {said}"
    assert second.startswith("refused: backend 'numba': expected its packages")
