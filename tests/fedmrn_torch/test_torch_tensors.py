"""Decoding frames to tensors on a device, and adding an update to a module in place."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import fedmrn_codec as fm
import fedmrn_torch
from fedmrn_codec import errors
from fedmrn_codec.primitives.dtypes import DTYPES
from fedmrn_torch.schema import to_numpy


class Everything(nn.Module):
    """Masked parameters of every float type and layout, and a buffer of every dtype of the format."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        for name in DTYPES:
            values = torch.randint(0, 100, (3, 5), generator=generator)
            values = values % 2 == 1 if name == "bool" else values.to(getattr(torch, name))
            self.register_buffer(f"dense_{name}", values)
        plain = torch.randn(4, 3, 5, 5, generator=generator)
        self.plain = nn.Parameter(plain)
        self.strided = nn.Parameter(plain.to(memory_format=torch.channels_last))
        self.narrow = nn.Parameter(plain.bfloat16())
        self.wide = nn.Parameter(plain.double())
        self.empty = nn.Parameter(torch.zeros(0, 9).half())


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return request.param


@pytest.fixture(scope="module")
def schema():
    return fedmrn_torch.schema(Everything())


@pytest.fixture(scope="module", params=["binary", "signed"])
def frame(request, schema):
    rng, update = np.random.default_rng(0), {}
    for t in schema:
        raw = rng.integers(0, 256, (*t.shape, t.type.numpy.itemsize), np.uint8)
        if t.dtype == "bool":
            raw &= 1
        elif t.type.is_float:
            raw[..., -1] &= 0xBF  # finite
        update[t.name] = raw.view(t.type.numpy).reshape(t.shape)
        if t.masked:
            update[t.name] = rng.normal(0, 0.01, t.shape).astype(np.float32)
    noise = fm.Gaussian(0.01)
    return fm.encode(update, schema, seed=5, noise=noise, mask=request.param, round=3, embed_schema=True)


def contents(model):
    return {name: to_numpy(tensor).tobytes() for name, tensor in model.state_dict().items()}


def test_decode_gives_the_bits_of_the_codec(frame, schema, device):
    want = fm.decode(frame, schema)
    for known in (schema, None):
        got = fedmrn_torch.decode(frame, known, device=device, round=3, seed=5)
        assert list(got) == list(want)
        for tensor in schema:
            mine = got[tensor.name]
            assert to_numpy(mine).tobytes() == want[tensor.name].tobytes()
            assert mine.dtype == getattr(torch, tensor.dtype)
            assert (tuple(mine.shape), mine.device.type) == (tensor.shape, device)


def test_decode_into_given_tensors(frame, schema, device):
    want = fm.decode(frame, schema)
    given = {
        "plain": torch.full((4, 3, 5, 5), torch.nan, device=device, requires_grad=True),
        "strided": torch.full((4, 3, 5, 5), torch.nan, device=device).to(memory_format=torch.channels_last),
        "dense_bfloat16": torch.ones((3, 5), dtype=torch.bfloat16, device=device),
    }
    got = fedmrn_torch.decode(frame, schema, out=given, names=[*given, "wide"])
    assert set(got) == {*given, "wide"}
    for name, tensor in given.items():
        assert got[name] is tensor
        assert to_numpy(tensor).tobytes() == want[name].tobytes()


def test_add_is_apply_of_decode(frame, schema, device):
    model = Everything()
    expected = copy.deepcopy(model)
    fedmrn_torch.apply_(expected, fm.decode(frame, schema))
    model.to(device)
    objects = [*map(id, model.parameters())]
    fedmrn_torch.add_(model, frame, schema)
    assert contents(model) == contents(expected)
    assert objects == [*map(id, model.parameters())]


def test_add_with_a_scale(frame, schema, device):
    model = Everything().to(device)
    before = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
    fedmrn_torch.add_(model, frame, schema, scale=0.3)
    for name, update in fedmrn_torch.decode(frame, schema).items():
        if not update.is_floating_point():
            continue
        want = (before[name] + update * torch.tensor(np.float32(0.3)).item()).to(before[name].dtype)
        assert to_numpy(model.state_dict()[name]).tobytes() == to_numpy(want).tobytes(), name


def test_nothing_changes_when_anything_is_wrong(frame, schema):
    model = Everything()
    before = contents(model)
    damaged = bytearray(frame)
    damaged[-9] ^= 1
    smaller = copy.deepcopy(model)
    smaller.dense_int8 = torch.zeros(2, dtype=torch.int8)
    lacking = copy.deepcopy(model)
    del lacking.dense_int8
    with pytest.raises(errors.ChecksumError, match=r"^checksum, byte \d+: expected 0x"):
        fedmrn_torch.add_(model, damaged, schema)
    with pytest.raises(errors.RoundError, match=r"^round, byte 24: expected 4, got 3"):
        fedmrn_torch.add_(model, frame, schema, round=4)
    with pytest.raises(fm.ArgumentError, match=r"^scale: expected a finite float32, got inf"):
        fedmrn_torch.add_(model, frame, schema, scale=float("inf"))
    for other, message in (
        (smaller, r"^shape of 'dense_int8': expected \(2,\), as in the module, got \(3, 5\)"),
        (lacking, r"^update: expected names of the module's tensors, got \['dense_int8'\]"),
    ):
        held = contents(other)
        with pytest.raises(fm.UpdateError, match=message):
            fedmrn_torch.add_(other, frame, schema)
        assert contents(other) == held
    assert contents(model) == before
    out = {"plain": torch.full((4, 3, 5, 5), 9.0), "wide": torch.zeros(4, 3, 5, 5).double()}
    with pytest.raises(
        fm.ArgumentError, match=r"^out of 'wide': expected float32 \(4, 3, 5, 5\), got torch.float64"
    ):
        fedmrn_torch.decode(frame, schema, out=out)
    with pytest.raises(fm.ArgumentError, match=r"^out: expected names of decoded tensors, got \['nowhere'\]"):
        fedmrn_torch.decode(frame, schema, out={"nowhere": torch.zeros(1)})
    with pytest.raises(fm.ArgumentError, match=r"^names: expected names of the schema, got \['nowhere'\]"):
        fedmrn_torch.decode(frame, schema, names=["nowhere"])
    assert (out["plain"] == 9).all()
