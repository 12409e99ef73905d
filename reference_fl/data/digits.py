"""scikit-learn's handwritten digits; no download is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .dataset import Dataset
from .images import normalise
from .registry import register

EQUAL = 140
"""Training images of each class in digits-equal: those of the rarest class."""


@register("digits")
def _digits(root: Path | None) -> Dataset:
    """scikit-learn's 8x8 handwritten digits: 1797 images, 10 classes. `root` is not used.

    Within each class, in the order of scikit-learn's file, every fifth image is a test image. The split uses
    no random generator, so it does not depend on the version of one.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = normalise(bunch.images.astype(np.uint8)[:, None], 16, (0.3053,), (0.3761,))
    y = bunch.target.astype(np.int64)
    is_test = np.zeros(len(y), bool)
    for label in range(10):
        is_test[np.flatnonzero(y == label)[4::5]] = True
    labels, test = torch.from_numpy(y), torch.from_numpy(is_test)
    return Dataset("digits", x[~test], labels[~test], x[test], labels[test], 10)


@register("digits-equal")
def _digits_equal(root: Path | None) -> Dataset:
    """The digits with the first 140 training images of each class, for the convergence experiment.

    With equal classes the partitions `iid` and `labels:K` can give clients of equal size. The mean over
    the clients of a round is then an unbiased estimate of the mean over all, as proofs assume.
    """
    full = _digits(root)
    labels = full.train_y.numpy()
    kept = np.sort(np.concatenate([np.flatnonzero(labels == label)[:EQUAL] for label in range(10)]))
    x, y = full.train_x[kept], full.train_y[kept]
    return Dataset("digits-equal", x, y, full.test_x, full.test_y, 10)
