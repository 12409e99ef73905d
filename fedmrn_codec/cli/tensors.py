"""Dense tensors in files: safetensors and npz."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from . import files, npz, safetensor
from .dense import Dense
from .problems import FileProblem


class Format(StrEnum):
    """A file format of dense tensors."""

    SAFETENSORS = "safetensors"
    NPZ = "npz"


@dataclass(frozen=True)
class TensorFile:
    """The content of a file of dense tensors.

    Attributes
    ----------
    tensors : dict of str to Dense
    format : Format
        The format of the file that was read.
    metadata : dict of str to str
        The metadata of a safetensors file, such as {"format": "pt"}.
    """

    tensors: dict[str, Dense]
    format: Format
    metadata: dict[str, str] = field(default_factory=dict)

    def with_arrays(self, arrays: dict[str, np.ndarray]) -> TensorFile:
        """The same content with new values for some of its tensors."""
        changed = {name: Dense(self.tensors[name].dtype, array) for name, array in arrays.items()}
        return replace(self, tensors=self.tensors | changed)


def load(path: str, format: Format | None = None) -> TensorFile:
    """Read a file of tensors, or stdin.

    Parameters
    ----------
    path : str
    format : Format, optional
        The default is that of the suffix, or else that of the first bytes.

    Raises
    ------
    FileProblem
        The file is missing, of another format, damaged, or holds a dtype that is not in spec 5.3.
    """
    return parse(path, files.read(path), format)


def parse(path: str, data: bytes, format: Format | None = None) -> TensorFile:
    """Parse the bytes of a file of tensors; `path`, which is not read, `format` and errors as in `load`."""
    chosen = format or by_suffix(path) or _by_content(data[:9])
    if chosen is None:
        raise FileProblem(path, f"expected a safetensors or npz file, got another format{_hint(path)}")
    try:
        if chosen is Format.NPZ:
            content = TensorFile(npz.load(data), chosen)
        else:
            tensors, metadata = safetensor.load(data)
            content = TensorFile(tensors, chosen, metadata)
        _check_bools(content)
    except (ValueError, OverflowError) as error:
        raise FileProblem(path, f"not a valid {chosen} file: {error}") from error
    return content


def save(path: str, content: TensorFile, format: Format | None = None) -> None:
    """Write a file of tensors, completely or not at all.

    Parameters
    ----------
    path : str
    content : TensorFile
        Its `format` is not used.
    format : Format, optional
        The default is that of the suffix, and safetensors for stdout.

    Raises
    ------
    FileProblem
        The file cannot be written.
    """
    chosen = format or output_format(path)
    try:
        with files.writing(path) as file:
            if chosen is Format.NPZ:
                npz.save(file, content.tensors)
            else:
                safetensor.save(file, content.tensors, content.metadata)
    except ValueError as error:
        raise FileProblem(path, str(error)) from error


def output_format(path: str) -> Format:
    """The format of a file to write, from its suffix; safetensors for stdout.

    Raises
    ------
    FileProblem
        The suffix is neither .safetensors nor .npz.
    """
    format = Format.SAFETENSORS if path == files.PIPE else by_suffix(path)
    if format is None:
        suffix = os.path.splitext(path)[1] or "none"
        raise FileProblem(path, f"suffix: expected .safetensors or .npz, or --format, got {suffix}")
    return format


def by_suffix(path: str) -> Format | None:
    """The format of a file's suffix; None for another suffix."""
    suffix = os.path.splitext(path)[1].lower()
    return next((f for f in Format if suffix == f".{f}"), None)


def _check_bools(content: TensorFile) -> None:
    for name, (dtype, array) in content.tensors.items():
        if dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
            raise ValueError(
                f"bool tensor {name!r}: expected bytes 0 and 1, got {array.view(np.uint8).max()}"
            )


def _by_content(start: bytes) -> Format | None:
    """The format of the first bytes: npz starts as a zip file, safetensors with a length and JSON."""
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return Format.NPZ
    return Format.SAFETENSORS if start[8:9] == b"{" else None


def _hint(path: str) -> str:
    if os.path.splitext(path)[1].lower() in (".pt", ".pth", ".bin", ".ckpt"):
        return " (PyTorch's own files can run code when loaded; save with safetensors.torch.save_file)"
    return ""
