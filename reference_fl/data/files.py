"""Finding the files of a data set, and seeing that they are the official ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

ENVIRONMENT = "FEDMRN_DATA"  # a folder to read instead of a data set's default one
UNCHECKED = "FEDMRN_DATA_UNCHECKED"  # "1": take files whose checksum is not the official one


class DataMissingError(FileNotFoundError):
    """Files of a data set are not where they were looked for."""


class DataFileError(ValueError):
    """A file of a data set is not what is required; says file, field, found and required."""


class ChecksumError(DataFileError):
    """A file is not the official one."""


def find_files(
    name: str, files: Sequence[str], root: Path | None, default: Path, how_to_get: str
) -> dict[str, Path]:
    """Find all files of a data set in one folder, each plain or with ``.gz``.

    An explicit `root` is the only place looked at; without one, FEDMRN_DATA if set; else `default`. Under the
    first two a subfolder called `name` counts too. Files of two folders are never mixed.

    Returns
    -------
    dict of str to Path
        The path of every entry of `files`.

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
    """Find the files of one of several forms in which a data set comes, the first that is there.

    Parameters
    ----------
    name, root, default, how_to_get
        As `find_files`.
    choices : sequence of sequence of str
        Each form's files, as paths below the folder.
    zipped : bool
        Whether ``.gz`` may follow each name.

    Returns
    -------
    dict of str to Path
        The path of every file of the form found.

    Raises
    ------
    DataMissingError
        No folder has all the files of a form. The message names the files of the first form, and of those
        others of which a part is there.
    """
    given = root if root is not None else os.environ.get(ENVIRONMENT) or None
    folders = [default] if given is None else [Path(given), Path(given) / name]
    lines = [f"data set {name!r}: files are missing" + (" (each may also end in .gz)" if zipped else "")]
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
    """A file's bytes, if their MD5 is the official one.

    Raises
    ------
    ChecksumError
        It is another, and FEDMRN_DATA_UNCHECKED is not 1.
    """
    data = path.read_bytes()
    check_md5(path, hashlib.md5(data, usedforsecurity=False).hexdigest(), md5)
    return data


def check_md5(path: Path, found: str, required: str) -> None:
    """Refuse a file by its MD5, unless FEDMRN_DATA_UNCHECKED is 1.

    MD5, because that is what the publishers state. It finds damaged and mistaken files; against an attacker
    the readers have checks of their own.

    Raises
    ------
    ChecksumError
        The two differ.
    """
    if found != required and os.environ.get(UNCHECKED) != "1":
        raise ChecksumError(
            f"{path}: MD5: found {found}, required {required}, that of the official file; "
            f"{UNCHECKED}=1 takes other files"
        )
