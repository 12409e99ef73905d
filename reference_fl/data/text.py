"""From a plain text to the samples of next-character prediction, and whom they belong to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .files import DataFileError

CONTEXT = 80  # characters that a prediction sees (McMahan et al., AISTATS 2017)
STEP = 10  # a sample begins at every tenth character
TRAIN_SHARE = 0.8  # of each group's text, its beginning
CHUNK = 10_000  # characters of a group, in a text without roles
FEWEST = 2  # training samples of a group; one with fewer cannot train

ROLES, CHUNKS = "speaking roles", f"chunks of {CHUNK:,} characters"

# A line that names who speaks: "First Citizen:", or in capitals "HAMLET.", alone at the head of a paragraph.
SPEAKER = re.compile(r"([A-Z][A-Za-z' ,&-]{0,40}):|([A-Z][A-Z' ,&-]{0,40})\.")


class TextError(DataFileError):
    """A text that gives no samples."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Windows of `CONTEXT` tokens, each with the token that follows and the number of its group."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    groups: NDArray[np.int64]


def read_text(path: Path) -> str:
    """A text file in UTF-8, its lines ended by a newline each.

    Raises
    ------
    TextError
        It is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise TextError(f"{path}: byte {error.start}: found 0x{found:02x}, required UTF-8") from None


def split_groups(text: str) -> tuple[str, list[str]]:
    """Share a text out among its own clients: its speaking roles, or chunks if it is no play.

    It is a play if at least half of its paragraphs begin with a line that names who speaks: "First Citizen:",
    or "HAMLET." in capitals. Paragraphs without such a line are then left out. A role of the same name in two
    plays counts as one.

    Returns
    -------
    (str, list of str)
        `ROLES` or `CHUNKS`, and the text of each: roles in the order of their first words.
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
    """Training and test samples of these groups, and the alphabet.

    Of each group the first four fifths are for training and the rest is for test: a test sample's label lies
    in the rest, its context may begin before. Groups with fewer than `FEWEST` training samples are left out.
    Tokens are places in the alphabet: the sorted characters of all groups.

    Raises
    ------
    TextError
        Nothing is left for training or for test.
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
            f"{path}: found {longest} characters in the longest group, required some 130 and more"
        )
    return _joined(parts[0]), _joined(parts[1]), alphabet


def _joined(parts: Sequence[Samples]) -> Samples:
    return Samples(*(np.concatenate([getattr(p, field) for p in parts]) for field in ("x", "y", "groups")))
