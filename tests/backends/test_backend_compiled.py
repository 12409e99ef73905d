"""The cache of compiled code: used by the next process, invalid after a change, and never required."""

import errno
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba")

from numba.core import caching, config
from numba.core.caching import FunctionCache, NullCache

from fedmrn_codec.backends import compiled


def double(x):
    return 2 * x


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def call_new_kernel():
    """The result of a new kernel, and how often it was loaded and compiled."""
    kernel = compiled.jit(double)
    result = kernel(21)
    return result, sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())


def test_code_is_kept(folder):
    assert call_new_kernel() == (42, 0, 1)
    assert list(folder.rglob("*double*.nbc"))
    assert call_new_kernel() == (42, 1, 0)


def test_a_change_in_any_kernel_file_compiles_anew(folder, monkeypatch):
    assert call_new_kernel() == (42, 0, 1)
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "sources", lambda: "another digest")
        assert call_new_kernel() == (42, 0, 1)
        assert call_new_kernel() == (42, 1, 0)
    assert call_new_kernel() == (42, 0, 1)


def test_the_digest_is_of_every_backend_file(tmp_path, monkeypatch):
    for name in ("compiled.py", "tiles.py"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    digests = {compiled.sources.__wrapped__()}
    for name in ("compiled.py", "tiles.py"):
        (tmp_path / name).write_text("changed")
        digests.add(compiled.sources.__wrapped__())
    assert len(digests) == 3


@pytest.mark.parametrize("suffix", ["nbc", "nbi"])
@pytest.mark.parametrize("content", [b"", b"no pickle"])
def test_damaged_files_are_written_again(folder, suffix, content):
    call_new_kernel()
    (path,) = folder.rglob(f"*double*.{suffix}")
    path.write_bytes(content)
    assert call_new_kernel() == (42, 0, 1)
    assert call_new_kernel() == (42, 1, 0)


def test_without_a_writable_directory_each_process_compiles(monkeypatch):
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert isinstance(compiled.jit(double)._cache, NullCache)
    assert compiled.cache_directory(compiled.jit(double)) is None
    assert call_new_kernel() == (42, 0, 1)
    assert call_new_kernel() == (42, 0, 1)


def test_a_full_disk_is_no_error(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FunctionCache, "save_overload", full)
    assert call_new_kernel() == (42, 0, 1)


class OtherCache:
    """A cache of another version of Numba, without the attributes that `KernelCache` uses."""

    def __init__(self, function):
        pass


def without_file_attribute(patch):
    patch.setattr(FunctionCache, "__init__", OtherCache.__init__)


def with_other_arguments(patch):
    patch.setattr(FunctionCache, "__init__", lambda self: None)


def without_runtime(patch):
    patch.setattr(compiled, "rtsys", None)


def without_loader(patch):
    patch.delattr(caching.Cache, "_load_overload")


def with_another_runtime(patch):
    patch.setattr(compiled, "rtsys", object())


@pytest.mark.parametrize("change", [without_file_attribute, with_other_arguments, without_runtime])
def test_with_another_cache_each_process_compiles(folder, monkeypatch, change):
    with monkeypatch.context() as patch:
        change(patch)
        assert compiled.cache_directory(compiled.jit(double)) is None
        assert call_new_kernel() == (42, 0, 1)
        assert call_new_kernel() == (42, 0, 1)
    assert not list(folder.rglob("*double*"))


@pytest.mark.parametrize("change", [without_loader, with_another_runtime])
def test_code_that_cannot_be_loaded_is_compiled_again(folder, monkeypatch, change):
    assert call_new_kernel() == (42, 0, 1)
    change(monkeypatch)
    assert call_new_kernel() == (42, 0, 1)


def test_kernels_compile_where_numba_has_no_such_modules(folder, monkeypatch):
    monkeypatch.delattr(caching, "FunctionCache")
    spec = importlib.util.spec_from_file_location("other_compiled", compiled.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel = module.jit(double)
    assert kernel(21) == 42
    assert module.cache_directory(kernel) is None


def test_no_attribute_is_added_to_a_kernel_without_a_cache(folder, monkeypatch):
    monkeypatch.setattr(compiled, "njit", lambda function, **_: function)  # as NUMBA_DISABLE_JIT does
    kernel = compiled.jit(double)
    assert kernel(21) == 42
    assert not hasattr(kernel, "_cache")
    assert compiled.cache_directory(kernel) is None


SECOND = """
import sys
import numpy as np
import fedmrn_codec as fm
from fedmrn_codec.backends import numba, numba_rans

noise, payload = fm.Gaussian(0.01), np.arange(125, dtype=np.uint8)
out, sums = np.empty(1000, np.float32), np.zeros(1000, np.int64)
numba.decode(noise, 2, 7, 0, payload, out)
numba.accumulate(noise, 1, 7, 0, payload, 600, sums)
bits = numba.sample(noise, 1, 7, 0, out, 5)
words = numba.words(7, 0, 3, 9)
print(*(array.tobytes().hex() for array in (out, sums, bits, words)))
kernels = numba._decode, numba._accumulate, numba._sample, numba.fill
print(*(sum(k.stats.cache_misses.values()) for k in kernels), "numba.np.linalg" in sys.modules)
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    lines = []
    for _ in range(2):
        command = [sys.executable, "-W", "error", "-c", SECOND]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        lines.append(result.stdout.splitlines())
    (first, compiled_first), (second, compiled_second) = lines
    assert first == second
    assert compiled_first.split()[:4] == ["1", "1", "1", "1"]
    assert compiled_second == "0 0 0 0 False"
    assert np.frombuffer(bytes.fromhex(first.split()[1]), np.int64).any()
