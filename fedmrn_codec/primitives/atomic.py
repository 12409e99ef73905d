"""Writing a file so that it is replaced as a whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

PREFIX, SUFFIX = ".fedmrn-", ".tmp"
"""Of the names of temporary files, which remain only if the process or the machine stops meanwhile."""


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file whose bytes replace the file `target` when the `with` block ends.

    The bytes are written to a temporary file in the same folder, synced to the disk, and renamed. If the
    block raises an error, the temporary file is removed and an existing `target` stays as it was. The new
    file has the permissions of the umask, without those that an existing `target` did not give.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    folder = os.path.dirname(target)
    beside = os.path.join(folder, f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:  # before the file exists, since an interrupt may come at any moment
        with os.fdopen(os.open(beside, flags, 0o666), "wb") as file:  # the umask applies
            _restrict(file.fileno(), target)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
    sync_folder(folder)


def write(target: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file by these bytes, or leave it as it was; errors as in `replacing`."""
    with replacing(target) as file:
        file.write(data)


def sync_folder(folder: str) -> None:
    """Write the folder's entries to the disk, so that a power failure keeps the new name; where possible."""
    with suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _restrict(descriptor: int, target: str | os.PathLike[str]) -> None:
    """Take away the permissions that the file to be replaced does not give, such as those of other users."""
    if hasattr(os, "fchmod"):
        with suppress(FileNotFoundError):
            given = os.stat(target).st_mode & os.fstat(descriptor).st_mode
            os.fchmod(descriptor, stat.S_IMODE(given))
