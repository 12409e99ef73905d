"""Compiled code that is damaged, exchanged, or that other users could have written is not run."""

import logging
import os
import pickle
import shutil

import pytest

pytest.importorskip("numba")

from numba.core import caching, config

from fedmrn_codec.backends import compiled, trusted

names = ("UserProvidedCacheLocator", "UserWideCacheLocator")
GIVEN, WIDE = (getattr(caching, name, None) or getattr(caching, f"_{name}") for name in names)
"""Numba's classes, whose names begin with an underscore in older releases."""

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="no user ids")


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The one folder for compiled code."""
    trusted.is_private.cache_clear()
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "code"))
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [GIVEN])
    yield tmp_path / "code"
    trusted.is_private.cache_clear()


def call(function=double):
    """The result of a new kernel, and how often it was loaded and compiled."""
    kernel = compiled.jit(function)
    result = kernel(21)
    return result, sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())


def files(folder, suffix, name="double"):
    (found,) = folder.rglob(f"*{name}*.{suffix}")
    return found


@pytest.mark.parametrize("suffix", ["nbc", "nbi"])
@pytest.mark.parametrize("place", [0, 31, 32, 40, -1])
def test_one_damaged_byte_is_noticed(folder, suffix, place):
    assert call() == (42, 0, 1)
    path = files(folder, suffix)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert call() == (42, 0, 1)
    assert call() == (42, 1, 0)


def test_a_file_that_is_cut_off_is_noticed(folder):
    call()
    path = files(folder, "nbc")
    path.write_bytes(path.read_bytes()[:-100])
    assert call() == (42, 0, 1)
    assert call() == (42, 1, 0)


def test_code_of_another_kernel_is_not_run(folder):
    assert (call(), call(triple)) == ((42, 0, 1), (63, 0, 1))
    shutil.copy(files(folder, "nbc", "triple"), files(folder, "nbc"))
    assert call() == (42, 0, 1)
    assert call() == (42, 1, 0)


class Harm:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", ["nbc", "nbi"])
def test_a_pickle_without_the_digest_is_not_read(folder, tmp_path, suffix):
    call()
    files(folder, suffix).write_bytes(pickle.dumps(Harm(tmp_path / "harm")))
    assert call() == (42, 0, 1)
    assert not (tmp_path / "harm").exists()


def code_folder(folder):
    call()
    return files(folder, "nbc").parent


@pytest.mark.parametrize("rights", [0o777, 0o757, 0o1777, 0o775])
def test_a_folder_that_others_can_write_is_not_used(folder, rights, monkeypatch, caplog):
    monkeypatch.setattr(trusted, "_is_own_group", lambda group: False)
    place = code_folder(folder)
    place.chmod(rights)
    trusted.is_private.cache_clear()
    with caplog.at_level(logging.WARNING, "fedmrn_codec"):
        for _ in range(2):
            assert call() == (42, 0, 1)
        assert compiled.cache_directory(compiled.jit(double)) is None
    assert caplog.text.count("other users can write or replace the folder") == 1
    place.chmod(0o755)
    trusted.is_private.cache_clear()
    assert call() == (42, 1, 0)


def test_a_folder_of_the_users_own_group_is_used(folder, monkeypatch):
    monkeypatch.setattr(trusted, "_is_own_group", lambda group: True)
    code_folder(folder).chmod(0o775)
    trusted.is_private.cache_clear()
    assert call() == (42, 1, 0)


@pytest.mark.parametrize(("rights", "hits"), [(0o777, 0), (0o1777, 1)])
def test_a_folder_that_others_can_replace_is_not_used(folder, rights, hits):
    code_folder(folder)
    folder.chmod(rights)
    trusted.is_private.cache_clear()
    assert call() == (42, hits, 1 - hits)


def test_the_next_folder_is_used(folder, tmp_path, monkeypatch):
    locators = [GIVEN, WIDE]
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", locators)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    folder.mkdir()
    folder.chmod(0o777)
    assert call() == (42, 0, 1)
    assert call() == (42, 1, 0)
    assert files(tmp_path / "home", "nbc")
    assert not list(folder.rglob("*.nbc"))


def test_a_file_that_others_can_write_is_not_used(folder):
    call()
    path = files(folder, "nbc")
    path.chmod(0o666)
    assert call() == (42, 0, 1)
    assert path.stat().st_mode & 0o777 == 0o644
    assert call() == (42, 1, 0)


def test_files_are_written_for_their_owner_alone_whatever_the_umask(folder):
    folder.mkdir()
    before = os.umask(0o000)
    try:
        (folder / "x").write_bytes(b"")
        with open(folder / "y", "wb") as file:
            trusted.protect(file.fileno())
    finally:
        os.umask(before)
    assert [(folder / name).stat().st_mode & 0o777 for name in "xy"] == [0o666, 0o644]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root")
@pytest.mark.parametrize("suffix", ["nbc", "nbi"])
def test_files_and_folders_of_other_users_are_not_used(folder, suffix):
    place = code_folder(folder)
    os.chown(files(folder, suffix), 54321, 54321)
    assert call() == (42, 0, 1)
    assert call() == (42, 1, 0)
    os.chown(place, 54321, 54321)
    trusted.is_private.cache_clear()
    assert call() == (42, 0, 1)
    assert compiled.cache_directory(compiled.jit(double)) is None


def test_without_user_ids_nothing_is_checked(folder, monkeypatch):
    code_folder(folder).chmod(0o777)
    trusted.is_private.cache_clear()
    monkeypatch.delattr(os, "getuid")
    assert call() == (42, 1, 0)
