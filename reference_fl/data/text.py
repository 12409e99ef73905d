"""Samples for next-character prediction from a plain text, grouped by speaker or by chunk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .files import DataFileError

CONTEXT = 80  # characters in the input of a prediction (McMahan et al., AISTATS 2017)
STEP = 10  # a sample begins at every tenth character
TRAIN_SHARE = 0.8  # the first part of each group's text is for training
CHUNK = 10_000  # characters in a group of a text without roles
FEWEST = 2  # training samples of a group; a group with fewer is left out

ROLES, CHUNKS = "speaking roles", f"chunks of {CHUNK:,} characters"

# A line that names who speaks: "First Citizen:", or in capitals "HAMLET.", alone at the head of a paragraph.
SPEAKER = re.compile(r"([A-Z][A-Za-z' ,&-]{0,40}):|([A-Z][A-Z' ,&-]{0,40})\.")


class TextError(DataFileError):
    """A text is not UTF-8, or too short to give samples."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Windows of `CONTEXT` tokens, each with the token that follows and the number of its group."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    groups: NDArray[np.int64]


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with any line ending read as a newline.

    Raises
    ------
    TextError
        The file is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        got = error.object[error.start]
        raise TextError(f"{path}: byte {error.start}: expected UTF-8, got 0x{got:02x}") from None


def split_groups(text: str) -> tuple[str, list[str]]:
    """Split a text into groups: the speaking roles of a play, or chunks of any other text.

    A text is a play if at least half of its paragraphs begin with a line that names the speaker: "First
    Citizen:", or "HAMLET." in capitals. Paragraphs without such a line are then left out. Roles of the same
    name in two plays are one group.

    Returns
    -------
    (str, list of str)
        `ROLES` or `CHUNKS`, and the text of each group; roles are in the order of their first appearance.
    """
    paragraphs = [part for part in re.split(r"\n\s*\n", text.strip()) if part]
    roles: dict[str, list[str]] = {}
    spoken = 0
    for paragraph in paragraphs:
        head, _, speech = paragraph.lstrip().partition("\n")
        if speech and (match := SPEAKER.fullmatch(head.strip())):
            roles.setdefault(match[1] or match[2], []).append(speech + "\n")
            spoken += 1
    if 2 * spoken >= len(paragraphs) and len(roles) > 1:
        return ROLES, ["".join(speeches) for speeches in roles.values()]
    return CHUNKS, [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]


def make_samples(path: Path, texts: Sequence[str]) -> tuple[Samples, Samples, str]:
    """Make training samples, test samples and the alphabet from the texts of the groups.

    The first four fifths of each text are for training, the rest is for test: the label of a test sample lies
    in the rest, its context may begin earlier. Groups with fewer than `FEWEST` training samples are left out.
    A token is the index of a character in the alphabet, the sorted characters of all texts.

    Raises
    ------
    TextError
        There is no sample for training or for test.
    """
    alphabet = "".join(sorted(set().union(*texts)))
    code = {ord(character): place for place, character in enumerate(alphabet)}
    parts: tuple[list[Samples], list[Samples]] = ([], [])
    kept = 0
    for text in texts:
        tokens = np.array([code[ord(character)] for character in text], np.int64)
        ends = np.arange(CONTEXT, len(tokens), STEP)
        in_train = ends < int(TRAIN_SHARE * len(tokens))
        if in_train.sum() < FEWEST:
            continue
        for samples, chosen in zip(parts, (ends[in_train], ends[~in_train]), strict=True):
            x = sliding_window_view(tokens, CONTEXT)[chosen - CONTEXT]
            samples.append(Samples(x, tokens[chosen], np.full(len(chosen), kept)))
        kept += 1
    if not sum(len(samples.y) for samples in parts[1]):
        longest = max(map(len, texts), default=0)
        raise TextError(
            f"{path}: characters in the longest group: expected at least about 130, got {longest}"
        )
    return _joined(parts[0]), _joined(parts[1]), alphabet


def _joined(parts: Sequence[Samples]) -> Samples:
    return Samples(*(np.concatenate([getattr(p, field) for p in parts]) for field in ("x", "y", "groups")))
