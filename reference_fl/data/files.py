"""Finding the files of a data set, and checking that they are the official ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

ENVIRONMENT = "FEDMRN_DATA"  # a folder to read instead of the default folder
UNCHECKED = "FEDMRN_DATA_UNCHECKED"  # "1": accept files whose checksum is not the official one


class DataMissingError(FileNotFoundError):
    """Files of a data set are in none of the folders that were searched."""


class DataFileError(ValueError):
    """A file of a data set fails a check; the message says file, field, expected and got."""


class ChecksumError(DataFileError):
    """A file is not the official one."""


def find_files(
    name: str, files: Sequence[str], root: Path | None, default: Path, how_to_get: str
) -> dict[str, Path]:
    """Find all files of a data set in one folder, each plain or with ``.gz``.

    Only one location is searched: `root` if given, else the folder named by the environment variable
    FEDMRN_DATA if it is set, else `default`. In the first two, a subfolder called `name` is searched too.
    Files of two folders are never mixed.

    Returns
    -------
    dict of str to Path
        The path of each entry of `files`.

    Raises
    ------
    DataMissingError
        No folder has all the files.
    """
    return find_either(name, [files], root, default, how_to_get, zipped=True)


def find_either(
    name: str,
    choices: Sequence[Sequence[str]],
    root: Path | None,
    default: Path,
    how_to_get: str,
    *,
    zipped: bool = False,
) -> dict[str, Path]:
    """Find the files of a data set that is published in several forms; the first complete form is taken.

    Parameters
    ----------
    name, root, default, how_to_get
        The folders to search, as in `find_files`; `how_to_get` is advice for the error message.
    choices : sequence of sequence of str
        For each form its files, as paths below the folder.
    zipped : bool
        Whether each name may be followed by ``.gz``.

    Returns
    -------
    dict of str to Path
        The path of every file of the form found.

    Raises
    ------
    DataMissingError
        No folder has all the files of a form. The message lists the files of the first form, and of any other
        form that is incomplete.
    """
    given = root if root is not None else os.environ.get(ENVIRONMENT) or None
    folders = [default] if given is None else [Path(given), Path(given) / name]
    lines = [f"data set {name!r}: expected these files{' (.gz may follow each name)' if zipped else ''}"]
    for folder in folders:
        for number, files in enumerate(choices):
            found = {file: _existing(folder / file, zipped) for file in files}
            paths = {file: path for file, path in found.items() if path is not None}
            if len(paths) == len(files):
                return paths
            if paths or number == 0:
                lines += _states(folder, found)
    lines.append(f"{how_to_get}; or name a folder that holds the files: root=... or {ENVIRONMENT}=...")
    raise DataMissingError("\n".join(lines))


def _existing(path: Path, zipped: bool) -> Path | None:
    forms = (path, path.with_name(path.name + ".gz")) if zipped else (path,)
    return next((p for p in forms if p.is_file()), None)


def _states(folder: Path, found: dict[str, Path | None]) -> Iterator[str]:
    for file, path in found.items():
        yield f"  {folder / file}: {'not found' if path is None else 'found'}"


def read_checked(path: Path, md5: str) -> bytes:
    """Read a file and check its MD5; errors as in `check_md5`."""
    data = path.read_bytes()
    check_md5(path, hashlib.md5(data, usedforsecurity=False).hexdigest(), md5)
    return data


def check_md5(path: Path, got: str, expected: str) -> None:
    """Refuse a file with another MD5 than the official one, unless FEDMRN_DATA_UNCHECKED is 1.

    The publishers state MD5 checksums. They detect damaged and mistaken files, not an attacker's; the readers
    check the contents themselves.

    Raises
    ------
    ChecksumError
        The two differ.
    """
    if got != expected and os.environ.get(UNCHECKED) != "1":
        raise ChecksumError(
            f"{path}: MD5: expected {expected}, that of the official file, got {got}; "
            f"set {UNCHECKED}=1 to accept other files"
        )
