"""Shakespeare: prediction of the next character."""

from __future__ import annotations

from pathlib import Path

import torch

from .dataset import Dataset
from .files import find_either
from .registry import register
from .text import make_samples, read_text, split_groups

FILE = "shakespeare.txt"


@register("shakespeare")
def _shakespeare(root: Path | None) -> Dataset:
    """Next-character prediction from 80 characters of a plain text, after McMahan et al., AISTATS 2017.

    `root` is the text file, or a folder that holds it as ``shakespeare.txt``. There is no official file, so
    no checksum is compared. The groups are the speaking roles of a play, or chunks of equal length of any
    other text.
    """
    if root is not None and root.is_file():
        path = root
    else:
        get = f"Put a plain text of the plays (UTF-8) there as {FILE}, or give the path of the file as root"
        path = find_either("shakespeare", [[FILE]], root, Path("data/shakespeare"), get)[FILE]
    kind, texts = split_groups(read_text(path))
    train, test, alphabet = make_samples(path, texts)
    return Dataset(
        "shakespeare",
        torch.from_numpy(train.x),
        torch.from_numpy(train.y),
        torch.from_numpy(test.x),
        torch.from_numpy(test.y),
        classes=len(alphabet),
        groups=torch.from_numpy(train.groups),
        group_kind=kind,
    )
