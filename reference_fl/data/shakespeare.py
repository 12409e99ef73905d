"""Shakespeare: the next character, the task that is not of images."""

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
    """Next-character prediction on any plain text, after McMahan et al., AISTATS 2017: 80 characters seen.

    `root` is the text file, or a folder with it as ``shakespeare.txt``. There is no official file, so none is
    checked. Its groups are the speaking roles of a play; of any other text they are chunks of equal length.
    """
    if root is not None and root.is_file():
        path = root
    else:
        get = f"Put a plain text of the plays (UTF-8) there as {FILE}, or name the file itself as root"
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
