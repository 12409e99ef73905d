"""SVHN and CIFAR from small files in the official formats."""

import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch
from scipy.io import savemat

from reference_fl import data, loop
from reference_fl.data import cifar, cifar_pickle, svhn
from reference_fl.settings import defaults

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Generated files are not the official ones."""
    monkeypatch.setenv("FEDMRN_DATA_UNCHECKED", "1")


def normalised(images, mean, std):
    shape = (1, 3, 1, 1)
    return (images / 255 - np.reshape(mean, shape)) / np.reshape(std, shape)


# SVHN.


@pytest.fixture
def digits(tmp_path):
    """Two files as published: X is (32, 32, 3, n), and the digit 0 has the label 10."""
    rng, images = np.random.default_rng(1), {}
    for split, n in (("train", 12), ("test", 3)):
        x = rng.integers(0, 256, (32, 32, 3, n), np.uint8)
        y = np.arange(n).reshape(-1, 1).astype(np.uint8) % 10 + 1
        savemat(tmp_path / f"{split}_32x32.mat", {"X": x, "y": y}, do_compression=True)
        images[split] = x.transpose(3, 2, 0, 1), y[:, 0] % 10
    return images


def test_svhn(tmp_path, digits):
    got = data.load("svhn", tmp_path)
    for split, x, y in (("train", got.train_x, got.train_y), ("test", got.test_x, got.test_y)):
        want_x, want_y = digits[split]
        np.testing.assert_allclose(x.numpy(), normalised(want_x, [0.4496] * 3, [0.1995] * 3), atol=1e-5)
        assert y.tolist() == want_y.tolist()
        assert x.is_contiguous()
    assert 0 in got.train_y
    assert (got.in_shape, got.classes, got.augment) == ((3, 32, 32), 10, None)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2))}, "expected a MATLAB file with X and y, got KeyError"),
        (
            {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))},
            r"X: expected uint8 \(32, 32, 3, samples\), got float64",
        ),
        (
            {"X": np.zeros((32, 32, 1, 2), np.uint8), "y": np.ones((2, 1))},
            r"X: expected uint8 \(32, 32, 3, samples\), got uint8 \(32, 32, 1, 2\)",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1), np.uint8)},
            r"y: expected integers \(2, 1\), got uint8 \(3, 1\)",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((2, 1))},
            r"y: expected integers \(2, 1\), got float64",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [1]])},
            r"y: expected 1\.\.10, got 0\.\.1",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[11], [1]])},
            r"y: expected 1\.\.10, got 1\.\.11",
        ),
    ],
)
def test_svhn_refuses(tmp_path, digits, arrays, message):
    savemat(tmp_path / "test_32x32.mat", arrays)
    with pytest.raises(data.MatError, match=message):
        data.load("svhn", tmp_path)


def test_svhn_refuses_what_is_no_mat_file(tmp_path, digits):
    whole = (tmp_path / "train_32x32.mat").read_bytes()
    for spoilt in (b"", b"no MATLAB file", whole[:-100]):
        (tmp_path / "train_32x32.mat").write_bytes(spoilt)
        with pytest.raises(
            data.MatError, match=r"train_32x32.mat: expected a MATLAB file with X and y, got "
        ):
            data.load("svhn", tmp_path)


def test_svhn_names_files_and_source(tmp_path, digits):
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(data.DataMissingError) as caught:
        data.load("svhn", tmp_path)
    for words in ("train_32x32.mat: found", "test_32x32.mat: not found", svhn.SOURCE):
        assert words in str(caught.value)


# CIFAR.


def old_string(text):
    """A string as pickled by Python 2, which has no encoding."""
    return (b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<I", len(text))) + text


def old_batch(pixels, labels, key, fortran=False):
    """A batch as published: written by Python 2's pickle, protocol 2, with an old NumPy."""
    raw = pixels.tobytes(order="F" if fortran else "C")
    rows = b"J" + struct.pack("<i", len(pixels))
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
        + (b"(K\x01" + rows + b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\0K\x01\x87R")
        + (b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb" + (b"\x88" if fortran else b"\x89"))
        + (old_string(raw) + b"tb")
    )
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    return (
        (b"\x80\x02}(" + old_string(b"batch_label") + old_string(b"testing batch 1 of 1"))
        + (old_string(key) + b"](" + numbers + b"e" + old_string(b"data") + array)
        + (old_string(b"filenames") + b"](" + old_string(b"leptodactylus_s_000004.png") + b"eu.")
    )


@pytest.fixture(params=["cifar10", "cifar100"])
def release(request):
    return cifar.CIFAR10 if request.param == "cifar10" else cifar.CIFAR100


@pytest.fixture
def batches(release):
    """Pixels, labels and bytes of each file."""
    rng, out = np.random.default_rng(2), {}
    for number, file in enumerate([*release.train, *release.test]):
        pixels = rng.integers(0, 256, (3 + number, 3072), np.uint8)
        labels = rng.integers(0, release.classes, len(pixels))
        out[file] = pixels, labels, old_batch(pixels, labels.tolist(), release.labels, fortran=number % 2)
    return out


def write_folder(folder, batches):
    folder.mkdir(parents=True, exist_ok=True)
    for file, (_, _, contents) in batches.items():
        (folder / file).write_bytes(contents)


def write_archive(path, inner, batches):
    with tarfile.open(path, "w:gz") as archive:
        for file, (_, _, contents) in {**batches, "readme.html": (0, 0, b"<p>")}.items():
            entry = tarfile.TarInfo(f"{inner}/{file}")
            entry.size = len(contents)
            archive.addfile(entry, io.BytesIO(contents))


def check(got, release, batches):
    for files, x, y in ((release.train, got.train_x, got.train_y), (release.test, got.test_x, got.test_y)):
        pixels = np.concatenate([batches[file][0] for file in files]).reshape(-1, 3, 32, 32)
        np.testing.assert_allclose(x.numpy(), normalised(pixels, release.mean, release.std), atol=1e-5)
        assert y.tolist() == np.concatenate([batches[file][1] for file in files]).tolist()
        assert x.is_contiguous()
    assert (got.name, got.in_shape, got.classes) == (release.name, (3, 32, 32), release.classes)
    assert isinstance(got.augment, data.CropAndFlip)


def test_cifar_from_each_form(tmp_path, release, batches):
    write_folder(tmp_path / "outer" / release.folder, batches)
    write_archive(tmp_path / release.archive, release.folder, batches)
    for root in (tmp_path, tmp_path / "outer", tmp_path / "outer" / release.folder):
        check(data.load(release.name, root), release, batches)


def test_the_generated_batches_are_true_pickles(release, batches):
    """NumPy and pickle read the batches that the tests write."""
    for pixels, labels, contents in batches.values():
        found = pickle.loads(contents, encoding="bytes")
        assert np.array_equal(found[b"data"], pixels)
        assert found[release.labels] == labels.tolist()


def test_cifar10_is_normalised_as_imagenet():
    assert (cifar.CIFAR10.mean, cifar.CIFAR10.std) == IMAGENET
    assert sum(map(len, (cifar.CIFAR10.train, cifar.CIFAR10.test))) == 6


def test_cifar_checksums(tmp_path, release, batches, monkeypatch):
    monkeypatch.delenv("FEDMRN_DATA_UNCHECKED")
    write_folder(tmp_path / release.folder, batches)
    first = next(iter(release.train))
    with pytest.raises(
        data.ChecksumError, match=f"{first}: MD5: expected {release.train[first]}, .* got [0-9a-f]{{32}}"
    ):
        data.load(release.name, tmp_path)
    write_archive(tmp_path / release.archive, release.folder, batches)
    with pytest.raises(
        data.ChecksumError,
        match=f"{release.archive}: MD5: expected {release.archive_md5}, .* got [0-9a-f]{{32}}",
    ):
        data.load(release.name, tmp_path)


def test_cifar_files_that_are_missing(tmp_path, release, batches):
    with pytest.raises(data.DataMissingError) as caught:
        data.load(release.name, tmp_path)
    assert f"{tmp_path / release.archive}: not found" in str(caught.value)
    assert f"unpacked folder {release.folder}" in str(caught.value)
    write_folder(tmp_path / release.folder, batches)
    (tmp_path / release.folder / next(iter(release.test))).unlink()
    with pytest.raises(data.DataMissingError, match=f"{next(iter(release.test))}: not found"):
        data.load(release.name, tmp_path)


def test_cifar_archives_that_are_broken(tmp_path, release, batches, monkeypatch):
    path = tmp_path / release.archive
    write_archive(path, release.folder, {**batches, next(iter(release.test)): (0, 0, b"")})
    with pytest.raises(data.CifarError, match="expected a pickled batch, got EOFError"):
        data.load(release.name, tmp_path)
    write_archive(path, "other-folder", batches)
    with pytest.raises(
        data.CifarError,
        match=r"expected .*test.* in the archive, got none of that name",
    ):
        data.load(release.name, tmp_path)
    write_archive(path, release.folder, batches)
    monkeypatch.setattr(cifar, "MAX_MEMBER", 100)
    with pytest.raises(data.CifarError, match=r"size of .*: expected at most 100 bytes, got [0-9]+"):
        data.load(release.name, tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    monkeypatch.setattr(cifar, "MAX_MEMBER", 1 << 20)
    with pytest.raises(data.CifarError, match="expected a gzipped tar archive, got a damaged one: "):
        data.load(release.name, tmp_path)


# The reader of pickles.

PIXELS = np.arange(2 * 3072, dtype=np.uint16).astype(np.uint8).reshape(2, 3072)
GOOD = old_batch(PIXELS, [1, 9], b"labels")


def read(contents):
    return cifar_pickle.read_batch("file", io.BytesIO(contents), b"labels", 10)


def test_a_pickle_that_calls_a_function_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    for hostile in (Hostile(), {b"data": Hostile(), b"labels": [1]}):
        with pytest.raises(data.CifarError, match=r"expected NumPy's array or dtype, got .*open"):
            read(pickle.dumps(hostile, protocol=4))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "expected a pickled batch, got EOFError"),
        (GOOD[:-1], "expected a pickled batch, got EOFError"),
        (GOOD[:1000], "expected a pickled batch, got UnpicklingError"),
        (b"\x80\x02K\x05.", "keys: expected data and labels, got int"),
        (b"\x80\x02}.", r"keys: expected data and labels, got \[\]"),
        (old_batch(PIXELS, [1, 9], b"fine_labels"), "keys: expected data and labels, got .*fine_labels"),
        (old_batch(PIXELS, [1], b"labels"), "labels: expected a list of 2, got 1"),
        (old_batch(PIXELS, [1, 10], b"labels"), r"label: expected 0\.\.9, got 10"),
        (GOOD.replace(b"u1", b"u2"), "data: expected b'u1' of shape .*, got b'u2' of shape"),
        (
            GOOD.replace(b"M\x00\x0c", b"M\x00\x0d"),
            r"expected b'u1' of shape \(samples, 3072\), got b'u1' of shape \(2, 3328\)",
        ),
        (GOOD.replace(b"J\2\0\0\0", b"J\3\0\0\0", 1), "bytes of data: expected 9216, got 6144"),
        (
            GOOD.replace(b"cnumpy\nndarray", b"cnumpy\nfromfile"),
            "expected NumPy's array or dtype, got numpy.fromfile",
        ),
        (
            GOOD.replace(b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R", b"N"),
            "expected a pickled batch, got .*state is not a dictionary",
        ),
    ],
)
def test_read_batch_refuses(contents, message):
    assert contents != GOOD
    with pytest.raises(data.CifarError, match=message):
        read(contents)


@pytest.mark.parametrize("position", range(0, 400, 7))
def test_damaged_pickles_are_read_or_refused(position):
    """A damaged byte gives two images or a `CifarError`, nothing else."""
    spoilt = bytearray(GOOD)
    spoilt[position] ^= 0x5A
    try:
        x, y = read(bytes(spoilt))
    except data.CifarError:
        return
    assert x.shape == (len(y), 3072)


# Augmentation.


def images(n=300):
    return torch.randn(n, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def crops(image, fill, pad=4):
    """Every crop of one padded image, with and without flip, computed in a simple way."""
    padded = torch.stack([torch.full((8 + 2 * pad, 6 + 2 * pad), value) for value in fill])
    padded[:, pad:-pad, pad:-pad] = image
    windows = [padded[:, a : a + 8, b : b + 6] for a in range(2 * pad + 1) for b in range(2 * pad + 1)]
    return [w for window in windows for w in (window, window.flip(2))]


def test_crop_and_flip_gives_every_crop_and_nothing_else():
    x, fill = images(), (-2.0, -1.5, -1.0)
    out = data.CropAndFlip(fill)(x, torch.Generator().manual_seed(1))
    assert (out.shape, out.dtype, out.is_contiguous()) == (x.shape, x.dtype, True)
    used = set()
    for image, got in zip(x, out, strict=True):
        (which,) = (i for i, crop in enumerate(crops(image, fill)) if torch.allclose(crop, got, atol=1e-6))
        used.add(which)
    assert len(used) > 120  # of 162: all crops, with and without flip
    assert {which % 2 for which in used} == {0, 1}
    assert torch.equal(x, images())


def test_augmentation_follows_its_generator_alone():
    augment, before = data.crop_and_flip(*IMAGENET), torch.get_rng_state()
    first, again, other = (augment(images(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_border_is_black():
    mean, std = IMAGENET
    black = data.normalise(np.zeros((5, 3, 32, 32), np.uint8), 255, mean, std)
    out = data.crop_and_flip(mean, std)(black, torch.Generator().manual_seed(0))
    torch.testing.assert_close(out, black)


@pytest.mark.parametrize(("method", "mask"), [("fedavg", None), ("fedmrn", "signed")])
def test_the_loop_augments_what_clients_train_on_and_repeats(method, mask, tmp_path):
    x = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 4
    calls = []

    def augment(batch, generator):
        calls.append(len(batch))
        return data.crop_and_flip(*IMAGENET)(batch, generator)

    def losses(folder, augment):
        toy = data.Dataset("toy", x, y, x[:8], y[:8], 4, augment)
        given = {"model": "cnn2", "clients": 4, "clients_per_round": 2, "epochs": 2, "rounds": 2}
        settings = defaults("toy", method, mask, **given, batch_size=5, threads=1)
        return [line["loss"] for line in loop.run(settings, toy, tmp_path / folder)]

    first, second, plain = losses("first", augment), losses("second", augment), losses("plain", None)
    assert calls == [5] * (2 * 2 * 2 * 2) * 2  # batches, epochs, clients, rounds; two runs
    assert first == second
    assert first != plain
