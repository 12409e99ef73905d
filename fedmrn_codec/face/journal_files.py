"""The files of a journal: one for each round, chained by digests (docs/journal.md)."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .. import errors
from ..primitives import atomic

FORMAT, VERSION = "fedmrn-journal", 1
HEAD = "head.json"
NO_DIGEST = "0" * 64
"""What the first entry has in place of the digest of the one before."""

DIGEST_BYTES = 32
NAME = re.compile(r"round-(\d{6,10})\.fmrj")
LAST = re.compile(rb'{"round": (\d{1,10}), "sha256": "[0-9a-f]{64}"}\n')


@dataclass(frozen=True)
class Entry:
    """One round of a journal; round 0 is what was there before the first round.

    Attributes
    ----------
    round : int
    digest : str
        The last 32 bytes of the file in hexadecimal digits: the SHA-256 of all bytes before them.
    about : dict
        The JSON of the first line.
    frames : list of bytes
        The accepted frames, in the order of `about["frames"]`.
    downlink, arrays : bytes
        The frame for the clients, and the frame of arrays that a replay cannot compute; empty if there is
        none.
    """

    round: int
    digest: str
    about: dict[str, Any]
    frames: list[bytes]
    downlink: bytes
    arrays: bytes

    @property
    def file(self) -> str:
        """The name of the file."""
        return file_name(self.round)

    @property
    def size(self) -> int:
        """The bytes of all frames in the entry."""
        return sum(map(len, (*self.frames, self.downlink, self.arrays)))


def file_name(round: int) -> str:
    """The name of the file of a round."""
    return f"round-{round:06}.fmrj"


def write(
    folder: str,
    round: int,
    former: str,
    about: Mapping[str, Any],
    frames: Sequence[bytes],
    downlink: bytes,
    arrays: bytes,
) -> str:
    """Write the file of a round, then the head; the digest of the round.

    If this is stopped at any moment, the journal is as before, or has the whole round.

    Parameters
    ----------
    about : mapping
        The JSON of the first line but format, version, round, former digest, and lengths of `downlink` and
        `arrays`, which are added to it. The items of its "frames" have the length of each frame.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    head = {"format": FORMAT, "version": VERSION, "round": round, "former": former, **about}
    lengths = {"downlink": len(downlink), "arrays": len(arrays)}
    digest = hashlib.sha256()
    with atomic.replacing(os.path.join(folder, file_name(round))) as file:
        for part in (json.dumps(head | lengths).encode() + b"\n", *frames, downlink, arrays):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())
    write_head(folder, round, digest.hexdigest())
    return digest.hexdigest()


def write_head(folder: str, round: int, digest: str) -> None:
    """Write the file that names the last round."""
    atomic.write(os.path.join(folder, HEAD), _head(round, digest))


def entries(folder: str) -> Iterator[Entry]:
    """The entries of a journal, oldest first, each after all checks of the files so far.

    Another process may append to the journal at the same time.

    Raises
    ------
    JournalError
        A file is damaged, missing, or not part of the journal. What has been yielded before is sound.
    OSError
        The folder or a file cannot be read.
    """
    head, rounds = listing(folder)
    if head is None:
        raise errors.JournalError("last round", f"the file {HEAD}", "none", file=HEAD)
    if rounds[:1] != [0]:
        raise errors.JournalError("round 0", "the file of the journal's start", "none", file=file_name(0))
    former, heads = NO_DIGEST, []
    for number in rounds:
        entry = _read(folder, number)
        if entry.about["former"] != former:
            expected = f"{former}, that of the file before"
            raise _error(number, "digest of the round before", expected, repr(entry.about["former"])[:80])
        former = entry.digest
        heads.append(_head(number, former))
        yield entry
    if head not in heads[-2:]:  # the last but one: an append was stopped before it wrote the head
        raise _head_error(head, rounds[-1], heads[-1])


def listing(folder: str) -> tuple[bytes | None, list[int]]:
    """The bytes of the head, or None if there is none; and the rounds that have a file, in their order.

    Raises
    ------
    JournalError
        There is a file that is not part of a journal. Names that begin with a dot are ignored.
    """
    while True:
        head = _bytes(folder, HEAD)
        names = os.listdir(folder)
        if head == _bytes(folder, HEAD):  # else the journal grew meanwhile
            break
    rounds = []
    for name in names:
        match = NAME.fullmatch(name)
        if match and name == file_name(int(match[1])):
            rounds.append(int(match[1]))
        elif name != HEAD and not name.startswith("."):
            expected = f"{HEAD} or a name such as {file_name(1)}"
            raise errors.JournalError("file name", expected, repr(name), file=name)
    return head, sorted(rounds)


def discard_after(folder: str, round: int, digest: str) -> None:
    """Remove rounds after this one, whose `append` has failed.

    If this is stopped, the journal is as before, or has one such round, or none.
    """
    if later := [number for number in listing(folder)[1] if number > round]:
        write_head(folder, round, digest)
        for number in later:
            os.unlink(os.path.join(folder, file_name(number)))
        atomic.sync_folder(folder)


def remove_temporary(folder: str) -> None:
    """Remove what a process that was stopped during an append has left."""
    for name in os.listdir(folder):
        if name.startswith(atomic.PREFIX) and name.endswith(atomic.SUFFIX):
            os.unlink(os.path.join(folder, name))


def _read(folder: str, number: int) -> Entry:
    with open(os.path.join(folder, file_name(number)), "rb") as file:
        data = memoryview(file.read())
    body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:].hex()
    computed = hashlib.sha256(body).hexdigest()
    if computed != digest:
        raise _error(number, "digest", f"{computed}, the SHA-256 of the bytes before it", digest or "none")
    try:
        line = bytes(body).partition(b"\n")[0]
        about = json.loads(line)
        if (about["format"], about["version"]) != (FORMAT, VERSION):
            raise ValueError(f"format {about['format']!r}, version {about['version']!r}")
        if about["round"] != number:
            raise ValueError(f"round {about['round']!r}")
        about["former"], about["frames"] = str(about["former"]), list(about["frames"])
        lengths = [each["bytes"] for each in about["frames"]] + [about["downlink"], about["arrays"]]
        if not all(type(length) is int and length >= 0 for length in lengths):
            raise ValueError(f"lengths {lengths}")
        if len(line) + 1 + sum(lengths) != len(body):
            raise ValueError(f"{len(body)} bytes with a sum of lengths {sum(lengths)}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        expected = f"version {VERSION} of {FORMAT}, round {number}, with its frames"
        raise _error(number, "first line", expected, f"{type(error).__name__}: {error}") from None
    parts, at = [], len(line) + 1
    for length in lengths:
        parts.append(bytes(body[at : at + length]))
        at += length
    return Entry(number, digest, about, parts[:-2], parts[-2], parts[-1])


def _bytes(folder: str, name: str) -> bytes | None:
    with suppress(FileNotFoundError), open(os.path.join(folder, name), "rb") as file:
        return file.read()
    return None


def _head(round: int, digest: str) -> bytes:
    return json.dumps({"round": round, "sha256": digest}).encode() + b"\n"


def _error(number: int, what: str, expected: object, got: object) -> errors.JournalError:
    return errors.JournalError(f"round {number}, {what}", expected, got, file=file_name(number))


def _head_error(head: bytes, last: int, expected: bytes) -> errors.JournalError:
    """What differs between a head and the files."""
    match = LAST.fullmatch(head)
    if match and int(match[1]) > last:
        return _error(int(match[1]), "file", f"one, since {HEAD} names it", "none")
    return errors.JournalError(f"round {last}, the last one", repr(expected), repr(head[:200]), file=HEAD)
