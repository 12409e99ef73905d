"""Dense tensors in files: safetensors and npz."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from . import files, npz, safetensor
from .dense import Dense
from .files import Bytes
from .problems import FileProblem


class Format(StrEnum):
    """A file format of dense tensors."""

    SAFETENSORS = "safetensors"
    NPZ = "npz"


@dataclass(frozen=True)
class TensorFile:
    """What a file of dense tensors holds.

    Attributes
    ----------
    tensors : dict of str to Dense
    format : Format
        Of the file it came from.
    metadata : dict of str to str
        The free text of a safetensors file, such as {"format": "pt"}.
    """

    tensors: dict[str, Dense]
    format: Format
    metadata: dict[str, str] = field(default_factory=dict)

    def with_arrays(self, arrays: dict[str, np.ndarray]) -> TensorFile:
        """The same file with other values for some of its tensors."""
        changed = {name: Dense(self.tensors[name].dtype, array) for name, array in arrays.items()}
        return replace(self, tensors=self.tensors | changed)


def load(path: str, format: Format | None = None) -> TensorFile:
    """Read a file of tensors, or stdin.

    Parameters
    ----------
    path : str
    format : Format, optional
        By default that of the suffix, or else of the first bytes.

    Raises
    ------
    FileProblem
        It is missing, of another format, damaged, or holds a dtype that spec 5.3 does not have.
    """
    return parse(path, files.read(path), format)


def parse(path: str, data: Bytes, format: Format | None = None) -> TensorFile:
    """The tensors in a file's bytes; the arguments and errors are those of `load`."""
    found = format or by_suffix(path) or _by_content(data[:9])
    if found is None:
        raise FileProblem(path, f"neither a safetensors nor an npz file{_hint(path)}")
    try:
        content = _parse(data, found)
        _check_bools(content)
    except (ValueError, OverflowError) as error:
        raise FileProblem(path, f"not a valid {found} file: {error}") from error
    return content


def save(path: str, content: TensorFile, format: Format | None = None) -> None:
    """Write a file of tensors, whole or not at all.

    Parameters
    ----------
    path : str
    content : TensorFile
        Its `format` plays no part.
    format : Format, optional
        By default that of the suffix; safetensors for stdout.

    Raises
    ------
    FileProblem
        It cannot be written.
    """
    chosen = format or output_format(path)
    try:
        with files.writing(path) as stream:
            if chosen is Format.NPZ:
                npz.save(stream, content.tensors)
            else:
                safetensor.save(stream, content.tensors, content.metadata)
    except ValueError as error:
        raise FileProblem(path, str(error)) from error


def output_format(path: str) -> Format:
    """The format of a file to be written, from its suffix; safetensors for stdout.

    Raises
    ------
    FileProblem
        The suffix is of neither.
    """
    found = Format.SAFETENSORS if path == files.PIPE else by_suffix(path)
    if found is None:
        raise FileProblem(path, "unknown suffix; required: .safetensors, .npz or --format")
    return found


def by_suffix(path: str) -> Format | None:
    """The format that a file's name says it has, if it does."""
    suffix = os.path.splitext(path)[1].lower()
    return next((f for f in Format if suffix == f".{f}"), None)


def _parse(data: Bytes, format: Format) -> TensorFile:
    if format is Format.NPZ:
        return TensorFile(npz.load(data), format)
    tensors, metadata = safetensor.load(bytes(data))
    return TensorFile(tensors, format, metadata)


def _check_bools(content: TensorFile) -> None:
    for name, (dtype, array) in content.tensors.items():
        if dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
            raise ValueError(f"tensor {name!r} is bool and holds a byte that is neither 0 nor 1")


def _by_content(start: bytes) -> Format | None:
    """An npz file is a zip file; a safetensors file has a JSON object after an 8-byte length."""
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return Format.NPZ
    return Format.SAFETENSORS if start[8:9] == b"{" else None


def _hint(path: str) -> str:
    if os.path.splitext(path)[1].lower() in (".pt", ".pth", ".bin", ".ckpt"):
        return " (PyTorch's own files can run code; save with safetensors.torch.save_file)"
    return ""
