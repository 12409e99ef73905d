"""Atomic files: the whole content or the old file, and no temporary file left behind."""

import os
import stat

import pytest

from fedmrn_codec.primitives.atomic import replacing, write


def test_a_file_is_made_and_replaced(tmp_path):
    target = tmp_path / "frame.fmrn"
    write(target, b"first")
    assert target.read_bytes() == b"first"
    with replacing(str(target)) as file:
        file.write(b"second")
        file.write(b" part")
        assert target.read_bytes() == b"first"
    assert target.read_bytes() == b"second part"
    assert os.listdir(tmp_path) == ["frame.fmrn"]


def test_a_name_without_a_folder_is_in_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("frame.fmrn", b"content")
    assert (tmp_path / "frame.fmrn").read_bytes() == b"content"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_error_in_the_block_leaves_the_old_file(tmp_path, error, old):
    target = tmp_path / "frame.fmrn"
    if old is not None:
        target.write_bytes(old)

    def write_half():
        with replacing(target) as file:
            file.write(b"half of the new")
            file.flush()
            raise error("in the block")

    with pytest.raises(error, match="in the block"):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["frame.fmrn"] * (old is not None)
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_an_error_of_the_system_leaves_the_old_file(tmp_path, monkeypatch, name):
    def full(*_):
        raise OSError(28, "No space left on device")

    target = tmp_path / "frame.fmrn"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="No space left"):
        write(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["frame.fmrn"]


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        write(tmp_path / "nowhere" / "frame.fmrn", b"content")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")
def test_permissions_follow_the_umask(tmp_path):
    target, before = tmp_path / "frame.fmrn", os.umask(0o027)
    try:
        write(target, b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
