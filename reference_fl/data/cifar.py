"""CIFAR-10 and CIFAR-100, from the official "python version": the archive or its unpacked folder."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .cifar_pickle import CifarError, read_batch
from .dataset import Dataset
from .files import check_md5, find_either, read_checked
from .images import crop_and_flip, normalise
from .registry import register

MAX_MEMBER = 256 << 20  # bytes; the largest official file has 155 million
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Release:
    """One of the two data sets as published; MD5s are the publisher's (archive) or torchvision's (files)."""

    name: str
    archive: str
    archive_md5: str
    folder: str
    train: dict[str, str]
    test: dict[str, str]
    labels: bytes
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CIFAR10 = Release(
    name="cifar10",
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    labels=b"labels",
    classes=10,
    mean=(0.485, 0.456, 0.406),  # of ImageNet
    std=(0.229, 0.224, 0.225),
)
CIFAR100 = Release(
    name="cifar100",
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    labels=b"fine_labels",
    classes=100,
    mean=(0.5071, 0.4865, 0.4409),  # of its own training images
    std=(0.2673, 0.2564, 0.2762),
)


@register("cifar10")
def _cifar10(root: Path | None) -> Dataset:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 training and 10,000 test images, 32x32, colour, 10 classes.

    Normalised by ImageNet's mean and standard deviation, and augmented by crop and flip (Li et al., ACM MM
    2024, main experiments).
    """
    return _load(CIFAR10, root)


@register("cifar100")
def _cifar100(root: Path | None) -> Dataset:
    """CIFAR-100 (Krizhevsky, 2009): 50,000 training and 10,000 test images, 32x32, colour, 100 fine classes.

    Normalised by its own mean and standard deviation, and augmented by crop and flip (Li et al., ACM MM
    2024).
    """
    return _load(CIFAR100, root)


def _load(release: Release, root: Path | None) -> Dataset:
    md5 = release.train | release.test
    unpacked = [f"{release.folder}/{file}" for file in md5]
    get = f"Put {release.archive} from {SOURCE} there, or its unpacked folder {release.folder}"
    choices = [[release.archive], unpacked, list(md5)]
    paths = find_either(release.name, choices, root, Path("data") / release.name, get)
    if release.archive in paths:
        path = paths[release.archive]
        contents = dict(_members(path, release.archive_md5, unpacked))
    else:
        contents = {p.name: read_checked(p, md5[p.name]) for p in paths.values()}
        path = next(iter(paths.values())).parent
    train_x, train_y = _join(release, path, contents, release.train)
    test_x, test_y = _join(release, path, contents, release.test)
    augment = crop_and_flip(release.mean, release.std)
    return Dataset(release.name, train_x, train_y, test_x, test_y, release.classes, augment)


def _members(path: Path, md5: str, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name, without folder, and bytes of each named file of an archive; write nothing to disk."""
    with path.open("rb") as file:
        check_md5(path, hashlib.file_digest(file, "md5").hexdigest(), md5)
    left = set(names)
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name in left and member.isfile():
                    if member.size > MAX_MEMBER:
                        what = f"{path}: size of {member.name}"
                        raise CifarError(f"{what}: expected at most {MAX_MEMBER} bytes, got {member.size}")
                    content = archive.extractfile(member)
                    assert content is not None
                    left.remove(member.name)
                    yield Path(member.name).name, content.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise CifarError(f"{path}: expected a gzipped tar archive, got a damaged one: {error}") from error
    if left:
        raise CifarError(f"{path}: expected {', '.join(sorted(left))} in the archive, got none of that name")


def _join(
    release: Release, path: Path, contents: dict[str, bytes], files: Iterable[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalised images and the labels of `files`, in that order: float32 (n, 3, 32, 32), int64 (n,)."""
    batches = [
        read_batch(f"{path}: {file}", io.BytesIO(contents.pop(file)), release.labels, release.classes)
        for file in files
    ]
    images = np.concatenate([x for x, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([y for _, y in batches])
    return normalise(images, 255, release.mean, release.std), torch.from_numpy(labels)
