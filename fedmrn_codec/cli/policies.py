"""Policies on the command line: read from a file, and applied to frames that are files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import PurePath

from .. import errors
from ..face.intake import Intake
from ..face.policy import Policy
from ..format.checked import CheckedFrame
from . import files
from .problems import FileProblem, UsageError, about


def load(path: str | None, stated: Mapping[str, object]) -> Intake | None:
    """The intake of a policy in a file of TOML; None without a path.

    Parameters
    ----------
    path : str, optional
    stated : mapping of str to object
        The options that state what a policy states, and their values.

    Raises
    ------
    UsageError
        One of the options is given as well.
    FileProblem
        The file cannot be read, or is no TOML.
    InFile
        The policy is wrong.
    """
    if path is None:
        return None
    if given := [option for option, value in stated.items() if value is not None]:
        raise UsageError(f"{given[0]}: expected none, since --policy states it, got a value")
    try:
        text = files.read(path).decode() + "\n"
        tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileProblem(path, f"not valid TOML: {error}") from error
    with about(path):
        return Intake(Policy.from_toml(text))


def read_size(intake: Intake | None) -> int:
    """The most bytes to read of a frame: enough to see that it is too long; -1 means all."""
    return -1 if intake is None else intake.policy.frame_bytes + 1


def accept(intake: Intake, path: str, data: bytes, weight: int = 1) -> CheckedFrame:
    """Check the frame in a file; the client is the file's name without its suffix.

    Raises
    ------
    FrameError
        As in `Intake.accept`; the message about an unknown client says where its name comes from.
    """
    client = PurePath(path).stem
    try:
        return intake.accept(client, data, weight)
    except errors.UnknownClientError as error:
        expected = f"{error.expected} (the client is the file name without its suffix)"
        raise errors.UnknownClientError(error.field, expected, error.got) from None
