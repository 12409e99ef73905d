"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file `target` when the block ends without an error.

    They are written to a file beside it, synced to the disk, and moved. After an error nothing is left
    behind, and a file that was there stays as it was.

    Raises
    ------
    OSError
        A file cannot be written there.
    """
    folder = os.path.dirname(target)
    beside = os.path.join(folder, f".fedmrn-{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:  # from before the file is there: a signal may come at any moment
        with os.fdopen(os.open(beside, flags, 0o666), "wb") as file:  # the umask applies
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
    _sync_folder(folder)


def write(target: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file by these bytes, or leave it as it was; errors as `replacing`."""
    with replacing(target) as file:
        file.write(data)


def _sync_folder(folder: str) -> None:
    """Make the new name last through a power failure, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
