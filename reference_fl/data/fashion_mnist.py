"""Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .dataset import Dataset
from .files import find_files
from .idx import IdxError, read_idx
from .images import normalise
from .registry import register

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where the Debian package installs the files

# MD5 of the unpacked files: the compressed files of Debian and of the authors differ.
MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


@register("fashion-mnist")
def _fashion_mnist(root: Path | None) -> Dataset:
    """Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 images of 28x28, 10 classes.

    Normalised with mean .2860 and standard deviation .3530 (Li et al., ACM MM 2024, main experiments).
    """
    get = "On Debian and Ubuntu: apt-get install dataset-fashion-mnist"
    paths = find_files("fashion-mnist", list(MD5), root, FOLDER, get)
    train_x, train_y = _split(paths, "train")
    test_x, test_y = _split(paths, "t10k")
    return Dataset("fashion-mnist", train_x, train_y, test_x, test_y, 10)


def _split(paths: dict[str, Path], split: str) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"
    x = read_idx(paths[images], (None, 28, 28), MD5[images])
    y = read_idx(paths[labels], (len(x),), MD5[labels])
    if len(y) and y.max() > 9:
        at = int(np.argmax(y > 9))
        raise IdxError(f"{paths[labels]}: label, byte {8 + at}: expected 0..9, got {y[at]}")
    return normalise(x[:, None], 255, (0.2860,), (0.3530,)), torch.from_numpy(y.astype(np.int64))
