"""Data sets for the reference training, registered by name.

A loader takes an optional folder and returns a `Dataset`: normalised float32 images or int64 tokens, int64
labels, and a train/test split that is the same on every machine. ``load("digits")`` needs no download.
"""

from . import cifar, digits, fashion_mnist, shakespeare, svhn  # noqa: F401  (each module registers its loaders)
from .cifar_pickle import CifarError
from .dataset import Augment, Dataset
from .files import (
    ENVIRONMENT,
    UNCHECKED,
    ChecksumError,
    DataFileError,
    DataMissingError,
    find_either,
    find_files,
)
from .idx import IdxError, read_idx
from .images import CropAndFlip, crop_and_flip, normalise
from .registry import Loader, load, names, register
from .svhn import MatError
from .text import TextError

__all__ = [
    "ENVIRONMENT",
    "UNCHECKED",
    "Augment",
    "ChecksumError",
    "CifarError",
    "CropAndFlip",
    "DataFileError",
    "DataMissingError",
    "Dataset",
    "IdxError",
    "Loader",
    "MatError",
    "TextError",
    "crop_and_flip",
    "find_either",
    "find_files",
    "load",
    "names",
    "normalise",
    "read_idx",
    "register",
]
