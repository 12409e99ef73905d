"""SVHN, in the format of cropped digits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from .dataset import Dataset
from .files import DataFileError, find_either, read_checked
from .images import normalise
from .registry import register

# The MD5s that torchvision states.
MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
SOURCE = "http://ufldl.stanford.edu/housenumbers/"
MEAN, STD = (0.4496,) * 3, (0.1995,) * 3


class MatError(DataFileError):
    """A file is not the expected MATLAB file."""


@register("svhn")
def _svhn(root: Path | None) -> Dataset:
    """SVHN, format 2 (Netzer et al., 2011): 73,257 + 26,032 images of 32x32 in colour, 10 digits.

    Normalised with mean .4496 and standard deviation .1995 in each channel (Li et al., ACM MM 2024).
    """
    get = f"Put {' and '.join(MD5)} from {SOURCE} there"
    paths = find_either("svhn", [list(MD5)], root, Path("data/svhn"), get)
    (train_x, train_y), (test_x, test_y) = (_read(paths[file], md5) for file, md5 in MD5.items())
    return Dataset("svhn", train_x, train_y, test_x, test_y, 10)


def _read(path: Path, md5: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Read one file: X of shape (32, 32, 3, samples), y of shape (samples, 1), where 10 is the digit 0."""
    from scipy.io import loadmat

    data = read_checked(path, md5)
    try:
        arrays = loadmat(io.BytesIO(data), variable_names=["X", "y"])
        x, y = arrays["X"], arrays["y"]
    except Exception as error:  # scipy's reader can raise anything for a damaged file
        got = f"{type(error).__name__}: {error}"
        raise MatError(f"{path}: expected a MATLAB file with X and y, got {got}") from error
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != (32, 32, 3):
        raise MatError(f"{path}: X: expected uint8 (32, 32, 3, samples), got {x.dtype} {x.shape}")
    if y.dtype.kind not in "iu" or y.shape != (x.shape[3], 1):
        raise MatError(f"{path}: y: expected integers ({x.shape[3]}, 1), got {y.dtype} {y.shape}")
    if y.size and not (y.min() >= 1 and y.max() <= 10):
        raise MatError(f"{path}: y: expected 1..10, got {y.min()}..{y.max()}")
    labels = torch.from_numpy(y[:, 0].astype(np.int64) % 10)
    return normalise(x.transpose(3, 2, 0, 1), 255, MEAN, STD), labels
