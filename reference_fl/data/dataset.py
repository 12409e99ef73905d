"""A data set: samples and labels, split into train and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""Returns a random variation of a batch of training samples; the input is unchanged."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images or sequences of tokens, and their labels, split into train and test.

    Attributes
    ----------
    name : str
        The name under which it was loaded.
    train_x, test_x : torch.Tensor
        Images: float32, shape (samples, channels, height, width), normalised, contiguous. Sequences: int64,
        shape (samples, length), each token in 0..classes-1; the label is the token that follows.
    train_y, test_y : torch.Tensor
        int64, shape (samples,), each in 0..classes-1.
    classes : int
        Number of classes; for sequences also the number of different tokens.
    augment : callable, optional
        Applied to each training batch.
    groups : torch.Tensor, optional
        int64, shape (train samples,), ascending: the natural client that each sample belongs to.
    group_kind : str
        What a group is, in the plural, such as "speaking roles".

    Raises
    ------
    ValueError
        A shape, dtype, token, label or group is not as described above.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: int
    augment: Augment | None = None
    groups: torch.Tensor | None = None
    group_kind: str = ""

    def __post_init__(self) -> None:
        _check_split(f"{self.name} train", self.train_x, self.train_y, self.classes)
        _check_split(f"{self.name} test", self.test_x, self.test_y, self.classes)
        kind = "sequence" if self.is_sequence else "image"
        if self.train_x.shape[1:] != self.test_x.shape[1:] or self.train_x.dtype != self.test_x.dtype:
            expected, got = tuple(self.train_x.shape[1:]), tuple(self.test_x.shape[1:])
            raise ValueError(
                f"shape of {self.name} test {kind}s: expected {expected}, as of the train {kind}s, got {got}"
            )
        if self.groups is not None:
            _check_groups(self.name, self.groups, len(self.train_y))

    @property
    def is_sequence(self) -> bool:
        """Whether the samples are sequences of tokens."""
        return self.train_x.dtype == torch.int64

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Channels, height and width of one image; the length of a sequence."""
        return tuple(self.train_x.shape[1:])


def _check_split(what: str, x: torch.Tensor, y: torch.Tensor, classes: int) -> None:
    if (x.dtype, x.ndim) not in ((torch.float32, 4), (torch.int64, 2)):
        expected = "torch.float32 of 4 dimensions for images or torch.int64 of 2 for sequences"
        raise ValueError(f"{what} samples: expected {expected}, got {x.dtype} of {x.ndim}")
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        expected = f"torch.int64 of shape {tuple(x.shape[:1])}"
        raise ValueError(f"{what} labels: expected {expected}, got {y.dtype} of shape {tuple(y.shape)}")
    if len(y) == 0 or x.numel() == 0:
        got = f"{len(y)} samples of {x[:1].numel()} values"
        raise ValueError(f"{what} samples: expected at least 1 of at least 1 value, got {got}")
    _check_range(f"{what} labels", y, classes)
    if x.dtype == torch.int64:
        _check_range(f"{what} tokens", x, classes)


def _check_range(what: str, values: torch.Tensor, classes: int) -> None:
    least, most = (int(v) for v in torch.aminmax(values))
    if least < 0 or most >= classes:
        raise ValueError(f"{what}: expected 0..{classes - 1}, got {least}..{most}")


def _check_groups(name: str, groups: torch.Tensor, samples: int) -> None:
    if groups.dtype != torch.int64 or groups.shape != (samples,):
        got = f"{groups.dtype} of shape {tuple(groups.shape)}"
        raise ValueError(f"{name} groups: expected torch.int64 of shape ({samples},), got {got}")
    if bool((groups[1:] < groups[:-1]).any()):
        raise ValueError(f"{name} groups: expected ascending numbers, got a smaller one after a larger one")
