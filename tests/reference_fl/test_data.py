import gzip
import hashlib
import shutil
import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from reference_fl import data
from reference_fl.data import fashion_mnist, registry

TRAIN, TEST = 7, 3


def idx_bytes(array):
    """Unsigned bytes as an idx file."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(1)
    out = {}
    for split, n in (("train", TRAIN), ("t10k", TEST)):
        out[f"{split}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28))
        out[f"{split}-labels-idx1-ubyte"] = rng.integers(0, 10, n)
    return out


@pytest.fixture
def unchecked(monkeypatch):
    """Generated files are not the official ones."""
    monkeypatch.setenv("FEDMRN_DATA_UNCHECKED", "1")


@pytest.fixture(params=["plain", "gzip"])
def folder(tmp_path, arrays, unchecked, request):
    for name, array in arrays.items():
        if request.param == "plain":
            (tmp_path / name).write_bytes(idx_bytes(array))
        else:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return tmp_path


# The registry.


def test_names_and_unknown():
    assert data.names() == sorted(data.names())
    assert {"digits", "fashion-mnist"} <= set(data.names())
    with pytest.raises(ValueError, match=r"data set: expected one of .*digits.*, got 'mnits'"):
        data.load("mnits")


def test_second_registration_is_refused(monkeypatch):
    monkeypatch.setattr(registry, "_LOADERS", dict(registry._LOADERS))
    digits = data.load("digits")
    data.register("again")(lambda root: digits)
    assert data.load("again") is digits
    with pytest.raises(ValueError, match="data set: expected an unused name, got 'again'"):
        data.register("again")(lambda root: digits)


# Dataset.


def good():
    x, y = torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 1, 0])
    return {"name": "toy", "train_x": x, "train_y": y, "test_x": x[:2], "test_y": y[:2], "classes": 2}


def test_dataset_in_shape_and_frozen():
    dataset = data.Dataset(**good())
    assert dataset.in_shape == (1, 2, 2)
    with pytest.raises(AttributeError):
        dataset.classes = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_x": torch.zeros(4, 1, 2, 2, dtype=torch.float64)},
            "toy train samples: expected torch.float32 of 4 .*, got torch.float64 of 4",
        ),
        (
            {"train_x": torch.zeros(4, 2, 2)},
            "toy train samples: expected torch.float32 of 4 .*, got torch.float32 of 3",
        ),
        (
            {"test_y": torch.tensor([0, 1, 1])},
            r"toy test labels: expected torch.int64 of shape \(2,\), got torch.int64 of shape \(3,\)",
        ),
        (
            {"test_y": torch.tensor([0, 1], dtype=torch.int32)},
            r"toy test labels: expected torch.int64 of shape \(2,\), got torch.int32",
        ),
        ({"train_y": torch.tensor([0, 1, 2, 0])}, r"toy train labels: expected 0\.\.1, got 0\.\.2"),
        ({"train_y": torch.tensor([0, 1, -1, 0])}, r"toy train labels: expected 0\.\.1, got -1\.\.1"),
        (
            {"test_x": torch.zeros(2, 1, 3, 2)},
            r"shape of toy test images: expected \(1, 2, 2\), .*, got \(1, 3, 2\)",
        ),
        (
            {"test_x": torch.zeros(0, 1, 2, 2), "test_y": torch.zeros(0, dtype=torch.int64)},
            "toy test samples: expected at least 1 .*, got 0 samples of 0 values",
        ),
    ],
)
def test_dataset_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        data.Dataset(**(good() | change))


def sequences():
    x, y = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([0, 1])
    return {"name": "toy", "train_x": x, "train_y": y, "test_x": x, "test_y": y, "classes": 3}


def test_a_dataset_of_sequences():
    dataset = data.Dataset(**sequences(), groups=torch.tensor([0, 1]))
    assert dataset.is_sequence
    assert dataset.in_shape == (3,)
    assert not data.Dataset(**good()).is_sequence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_x": torch.tensor([[0, 1, 3], [1, 2, 0]])},
            r"toy train tokens: expected 0\.\.2, got 0\.\.3",
        ),
        ({"test_x": torch.tensor([[0, -1, 1], [1, 2, 0]])}, r"toy test tokens: expected 0\.\.2, got -1\.\."),
        ({"train_x": torch.zeros(2, 3)}, "toy train samples: expected .*, got torch.float32 of 2"),
        (
            {"test_x": torch.zeros(2, 4, dtype=torch.int64)},
            r"shape of toy test sequences: expected \(3,\), .*, got \(4,\)",
        ),
        (
            {"train_x": torch.zeros(2, 0, dtype=torch.int64)},
            "toy train samples: expected at least 1 .*, got 2 samples of 0 values",
        ),
        (
            {"groups": torch.tensor([0])},
            r"toy groups: expected torch.int64 of shape \(2,\), got torch.int64 of shape \(1,\)",
        ),
        ({"groups": torch.tensor([1, 0])}, "toy groups: expected ascending numbers, got a smaller one"),
    ],
)
def test_a_dataset_of_sequences_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        data.Dataset(**(sequences() | change))


def test_normalise_each_channel():
    images = np.array([[[[0, 255]], [[51, 102]]]], np.uint8)
    got = data.normalise(images, 255, (0.5, 0.2), (0.5, 0.1))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor([[[[-1.0, 1.0]], [[0.0, 2.0]]]]), rtol=0, atol=1e-6)


# digits.


def test_digits():
    first, second = data.load(), data.load("digits", root="/nowhere")
    assert first.name == "digits"
    assert first.classes == 10
    assert first.in_shape == (1, 8, 8)
    assert (len(first.train_y), len(first.test_y)) == (1442, 355)
    for part in ("train_x", "train_y", "test_x", "test_y"):
        assert torch.equal(getattr(first, part), getattr(second, part))
        assert getattr(first, part).is_contiguous()
    assert abs(float(first.train_x.mean())) < 1e-3
    assert abs(float(first.train_x.std()) - 1) < 1e-3
    whole = torch.bincount(first.train_y) + torch.bincount(first.test_y)
    assert torch.equal(torch.bincount(first.test_y), whole // 5)  # stratified


def test_digits_split_every_image_once():
    got = data.load("digits")
    pixels = torch.cat([got.train_x, got.test_x]).flatten(1) * 0.3761 + 0.3053
    ours = sorted(map(tuple, (pixels * 16).round().int().tolist()))
    assert ours == sorted(map(tuple, load_digits().data.astype(int).tolist()))


# Fashion-MNIST from generated files.


def check(dataset, arrays):
    for split, x, y in (
        ("train", dataset.train_x, dataset.train_y),
        ("t10k", dataset.test_x, dataset.test_y),
    ):
        want = (arrays[f"{split}-images-idx3-ubyte"][:, None] / 255 - 0.2860) / 0.3530
        assert x.is_contiguous()
        np.testing.assert_allclose(x.numpy(), want, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(y.numpy(), arrays[f"{split}-labels-idx1-ubyte"])


def test_fashion_mnist_from_root(folder, arrays):
    check(data.load("fashion-mnist", root=folder), arrays)
    check(data.load("fashion-mnist", root=str(folder)), arrays)


def test_environment_and_subfolder(folder, arrays, monkeypatch):
    monkeypatch.setenv("FEDMRN_DATA", str(folder))
    check(data.load("fashion-mnist"), arrays)
    inner = folder / "fashion-mnist"
    inner.mkdir()
    for path in folder.glob("*ubyte*"):
        shutil.move(path, inner)
    check(data.load("fashion-mnist"), arrays)


def test_root_wins_over_environment(folder, arrays, monkeypatch):
    monkeypatch.setenv("FEDMRN_DATA", str(folder / "nowhere"))
    check(data.load("fashion-mnist", root=folder), arrays)


def test_missing_files_are_all_named(folder, monkeypatch):
    monkeypatch.delenv("FEDMRN_DATA", raising=False)
    for path in folder.glob("t10k-*"):
        path.unlink()
    with pytest.raises(data.DataMissingError) as caught:
        data.load("fashion-mnist", root=folder)
    message = str(caught.value)
    for name, state in (("train-images-idx3", "found"), ("t10k-labels-idx1", "not found")):
        assert f"{folder / name}-ubyte: {state}" in message
        assert f"{folder / 'fashion-mnist' / name}-ubyte: not found" in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "FEDMRN_DATA" in message


def test_missing_default_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDMRN_DATA", raising=False)
    monkeypatch.setattr(fashion_mnist, "FOLDER", tmp_path / "none")
    with pytest.raises(FileNotFoundError) as caught:
        data.load("fashion-mnist")
    assert str(tmp_path / "none" / "train-images-idx3-ubyte") in str(caught.value)


def test_folders_are_not_mixed(folder):
    inner = folder / "fashion-mnist"
    inner.mkdir()
    for path in folder.glob("t10k-*"):
        shutil.move(path, inner)
    with pytest.raises(data.DataMissingError):
        data.load("fashion-mnist", root=folder)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "train-labels-idx1-ubyte",
            np.zeros(TRAIN - 1),
            "size of dimension 0, byte 4: expected 7, got 6",
        ),
        ("t10k-labels-idx1-ubyte", np.array([0, 10, 3]), r"label, byte 9: expected 0\.\.9, got 10"),
        (
            "t10k-images-idx3-ubyte",
            np.zeros((TEST, 28, 27)),
            "size of dimension 2, byte 12: expected 28, got 27",
        ),
        (
            "train-images-idx3-ubyte",
            np.zeros((TRAIN, 28)),
            "magic, byte 0: expected 00 00 08 03, got 00 00 08 02",
        ),
    ],
)
def test_fashion_mnist_wrong_contents(tmp_path, arrays, unchecked, name, array, message):
    for each, values in (arrays | {name: array}).items():
        (tmp_path / each).write_bytes(idx_bytes(values))
    with pytest.raises(data.IdxError, match=message) as caught:
        data.load("fashion-mnist", root=tmp_path)
    assert name in str(caught.value)


def test_other_files_are_refused_by_their_checksum(folder, arrays, monkeypatch):
    monkeypatch.delenv("FEDMRN_DATA_UNCHECKED")
    expected = "f4a8712d7a061bf5bd6d2ca38dc4d50a"
    want = idx_bytes(arrays["train-images-idx3-ubyte"])
    got = hashlib.md5(want, usedforsecurity=False).hexdigest()
    with pytest.raises(data.ChecksumError, match=f"MD5: expected {expected}, .*, got {got}") as caught:
        data.load("fashion-mnist", root=folder)
    assert "train-images-idx3-ubyte" in str(caught.value)
    assert "FEDMRN_DATA_UNCHECKED=1" in str(caught.value)
    monkeypatch.setattr(fashion_mnist, "MD5", {**fashion_mnist.MD5, "train-images-idx3-ubyte": got})
    with pytest.raises(data.ChecksumError, match=r"train-labels-idx1-ubyte(.gz)?: MD5: expected 9018921c"):
        data.load("fashion-mnist", root=folder)


# The idx reader.

GOOD = idx_bytes(np.arange(6).reshape(2, 3))
BAD = {
    "empty": (b"", "magic, byte 0: expected 00 00 08 02, got nothing"),
    "magic cut": (GOOD[:3], "magic, byte 0: expected 00 00 08 02, got 00 00 08$"),
    "type int32": (b"\0\0\x0c\x02" + GOOD[4:], "magic, byte 0: expected 00 00 08 02, got 00 00 0c 02"),
    "nonzero start": (b"\1" + GOOD[1:], "magic, byte 0: expected 00 00 08 02, got 01 00 08 02"),
    "one dimension": (idx_bytes(np.arange(6)), "magic, byte 0: expected 00 00 08 02, got 00 00 08 01"),
    "sizes cut": (GOOD[:9], "header length, byte 0: expected 12, got 9"),
    "other size": (
        GOOD[:8] + struct.pack(">I", 4) + GOOD[12:],
        "size of dimension 1, byte 8: expected 3, got 4",
    ),
    "data cut": (GOOD[:-1], "data length, byte 12: expected 6, got 5"),
    "no data": (GOOD[:12], "data length, byte 12: expected 6, got 0"),
    "trailing byte": (GOOD + b"\0", "data length, byte 12: expected 6, got more than 6"),
    "huge claim": (
        GOOD[:4] + b"\xff" * 4 + GOOD[8:],
        r"sizes, byte 4: expected at most 1073741824 elements, got 4294967295 \* 3",
    ),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_read_idx(tmp_path, pack):
    path = tmp_path / "any-name"
    path.write_bytes(pack(GOOD))
    got = data.read_idx(path, (None, 3))
    assert got.dtype == np.uint8
    assert got.tolist() == [[0, 1, 2], [3, 4, 5]]
    got[0, 0] = 9  # a new, writable array


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("case", BAD)
def test_read_idx_refuses(tmp_path, case, pack):
    contents, message = BAD[case]
    path = tmp_path / "bad"
    path.write_bytes(pack(contents))
    with pytest.raises(data.IdxError, match=message):
        data.read_idx(path, (None, 3))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda z: z[:-9],
        lambda z: z[:5],
        lambda z: z[:-8] + b"\0" * 8,
        lambda z: z + b"junk",
        lambda z: z[:10] + b"\xff" * (len(z) - 10),
    ],
    ids=["cut", "header cut", "wrong checksum", "junk after", "not deflate"],
)
def test_read_idx_refuses_broken_gzip(tmp_path, spoil):
    path = tmp_path / "bad.gz"
    path.write_bytes(spoil(gzip.compress(GOOD)))
    with pytest.raises(data.IdxError, match=r"bad.gz: expected a gzip stream, got a damaged one: "):
        data.read_idx(path, (None, 3))


# The real files.


def test_fashion_mnist_real():
    try:
        dataset = data.load("fashion-mnist")
    except data.DataMissingError as error:
        pytest.skip(str(error))
    assert dataset.train_x.shape == (60000, 1, 28, 28)
    assert dataset.test_x.shape == (10000, 1, 28, 28)
    assert torch.bincount(dataset.train_y).tolist() == [6000] * 10
    assert torch.bincount(dataset.test_y).tolist() == [1000] * 10
    assert abs(float(dataset.train_x.mean())) < 1e-3
    assert abs(float(dataset.train_x.std()) - 1) < 1e-3
