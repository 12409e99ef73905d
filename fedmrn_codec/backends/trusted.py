"""Which folders and files of compiled code are used: those that no other user can have written.

Whoever can write compiled code can run code as the user who loads it, so a folder that other users can write,
or replace, is not used. Users that are trusted are root, this user, and the owner of this package, whose code
is run anyway. On systems without user ids (Windows) nothing is checked.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

DIGEST_BYTES = hashlib.sha256().digest_size


@cache
def is_private(folder: str) -> bool:
    """Whether no untrusted user can write a folder or replace it; if one can, that is logged once."""
    path = Path(folder).resolve()
    safe = _is_ours(path.stat(), sticky=False) and all(_is_ours(p.stat(), sticky=True) for p in path.parents)
    if not safe:
        logging.getLogger("fedmrn_codec").warning(
            "other users can write or replace the folder %s, so no compiled code is kept there", folder
        )
    return safe


def read(folder: str, name: str) -> bytes | None:
    """The content of a file that `write` has written; None if it is missing, damaged or not private."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read() if _is_ours(os.fstat(file.fileno()), sticky=False) else b""
    except OSError:
        return None
    digest, content = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    return content if digest == _digest(name, content) else None


def sealed(name: str, content: bytes) -> bytes:
    """The bytes of a file of this name and content: a digest of both, and the content."""
    return _digest(name, content) + content


def protect(file: int) -> None:
    """Take the right to write an open file from all but its owner, whatever the umask."""
    if hasattr(os, "fchmod"):
        with suppress(OSError):
            os.fchmod(file, stat.S_IMODE(os.fstat(file).st_mode) & ~0o022)


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def _is_ours(status: os.stat_result, *, sticky: bool) -> bool:
    """Whether no untrusted user can write; with `sticky`, all may, as in /tmp, if they cannot replace."""
    if not hasattr(os, "getuid"):
        return True
    if status.st_uid not in {0, os.getuid(), os.stat(__file__).st_uid}:
        return False
    if sticky and status.st_mode & stat.S_ISVTX:
        return True
    if status.st_mode & stat.S_IWOTH:
        return False
    return not status.st_mode & stat.S_IWGRP or _is_own_group(status.st_gid)


def _is_own_group(group: int) -> bool:
    """Whether a group is that of this user alone, which some systems make for every user."""
    import grp
    import pwd

    with suppress(KeyError):
        found, user = grp.getgrgid(group), pwd.getpwuid(os.getuid()).pw_name
        return found.gr_name == user and set(found.gr_mem) <= {user}
    return False
