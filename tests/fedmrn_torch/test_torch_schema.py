"""The schema of a module, differences of its tensors, and adding an update to it."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import fedmrn_codec as fm
from fedmrn_torch import PSM, apply_, schema
from fedmrn_torch.schema import difference, to_numpy


class Zoo(nn.Module):
    """Convolution, BatchNorm, tied and frozen weights, 0-d tensors, rare dtypes, a non-persistent buffer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.low = nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
        self.register_buffer("flag", torch.tensor([True, False]))
        self.register_buffer("scratch", torch.ones(4), persistent=False)

    def set_extra_state(self, state):
        pass

    def get_extra_state(self):
        return torch.ones(2)


ZOO = [
    ("gain", (), False, "float32"),
    ("low", (2, 2), True, "float32"),
    ("flag", (2,), False, "bool"),
    ("conv.weight", (2, 1, 3, 3), True, "float32"),
    ("conv.bias", (2,), False, "float32"),
    ("norm.weight", (2,), False, "float32"),
    ("norm.bias", (2,), False, "float32"),
    ("norm.running_mean", (2,), False, "float32"),
    ("norm.running_var", (2,), False, "float32"),
    ("norm.num_batches_tracked", (), False, "int64"),
    ("embed.weight", (5, 4), True, "float32"),
    ("head.bias", (5,), False, "float32"),
]


def test_the_default_schema():
    assert schema(Zoo()) == fm.Schema(fm.Tensor(*line) for line in ZOO)


def test_a_server_and_a_client_agree():
    model = Zoo()
    for masked in (None, ["conv.weight"], lambda name, _: "conv" in name):
        psm = PSM(model, seed=7, noise=fm.Uniform(0.01), steps=1, masked=masked)
        assert psm.schema == schema(Zoo(), masked)
        psm.restore()


@pytest.mark.parametrize(
    ("masked", "names"),
    [
        (["conv.weight", "gain"], {"gain", "conv.weight"}),
        ({"head.weight"}, {"embed.weight"}),  # a tied parameter by its second name
        (lambda name, p: p.dim() == 1, {"conv.bias", "norm.weight", "norm.bias", "head.bias"}),
        ([], set()),
    ],
)
def test_choosing_the_masked_parameters(masked, names):
    assert {t.name for t in schema(Zoo(), masked) if t.masked} == names


def test_a_dense_bfloat16_keeps_its_dtype():
    assert fm.Tensor("low", (2, 2), dtype="bfloat16") in schema(Zoo(), ["gain"]).tensors


@pytest.mark.parametrize("name", ["nonsense", "frozen", "flag", "norm.running_mean", "scratch"])
def test_names_that_cannot_be_masked_are_refused(name):
    expected = f"masked: expected names of trainable floating-point parameters, got ['{name}']"
    with pytest.raises(fm.ArgumentError, match=re.escape(expected)):
        schema(Zoo(), ["conv.weight", name])


def test_a_string_is_not_a_collection_of_names():
    with pytest.raises(fm.ArgumentError, match=r"^masked: expected a collection of names, got 'conv.weight'"):
        schema(Zoo(), "conv.weight")


def test_a_dtype_that_the_format_does_not_have():
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(
        fm.SchemaError, match=r"^dtype of 'weight': expected one of float32, .*, got 'complex64'"
    ):
        schema(model)


def test_a_module_under_psm_is_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    psm = PSM(model[0], seed=7, noise=fm.Uniform(0.01), steps=1)
    for verb in (
        lambda: schema(model),
        lambda: apply_(model, {}),
        lambda: PSM(model, seed=8, noise=fm.Uniform(0.01), steps=1),
    ):
        with pytest.raises(RuntimeError, match="expected one without an active PSM"):
            verb()
    psm.restore()
    schema(model)


DTYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool,
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip


@pytest.mark.parametrize("shape", [(), (3, 2), (0,)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_difference_of_any_dtype_comes_back(dtype, shape):
    ends = torch.tensor([[0, 1], [1, 0], [1, 1]]), torch.tensor([[1, 1], [0, 0], [1, 0]])
    start, now = (end.to(dtype)[: shape[0]] if shape else end[0, 0].to(dtype) for end in ends)
    start, now = start.reshape(shape).clone(), now.reshape(shape).clone()
    model = nn.Module()
    model.register_buffer("x", start.clone())
    (tensor,) = schema(model)
    delta = difference(now, start)
    frame = fm.encode({"x": delta}, fm.Schema([tensor]), seed=1, noise={}, mask={})
    apply_(model, fm.decode(frame, fm.Schema([tensor])))
    assert to_numpy(model.x).tobytes() == to_numpy(now).tobytes()
    assert to_numpy(model.x).dtype == to_numpy(now).dtype


def test_apply_adds_in_place_and_leaves_the_arrays():
    model = Zoo()
    objects = [*map(id, model.parameters()), *map(id, model.buffers())]
    before = {name: value.clone() for name, value in model.state_dict().items() if name != "_extra_state"}
    arrays = {
        "conv.weight": np.full((2, 1, 3, 3), 0.1, np.float32),
        "low": np.full((2, 2), 2**-8, np.float32),  # to a bfloat16: half of its last place
        "norm.num_batches_tracked": np.array(3, np.int64),
        "embed.weight": np.ones((5, 4), ">f4"),
        "gain": np.array(1, np.float32),
    }
    for array in arrays.values():
        array.flags.writeable = False
    copies = {name: array.copy() for name, array in arrays.items()}
    apply_(model, arrays)
    assert torch.equal(model.conv.weight, before["conv.weight"] + torch.full((2, 1, 3, 3), 0.1))
    assert model.low.tolist() == [[1, 1], [1, 1]]
    assert int(model.norm.num_batches_tracked) == 3
    assert float(model.gain.detach()) == 2.5
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.head.weight, before["embed.weight"] + 1)
    assert torch.equal(model.head.bias, before["head.bias"])
    assert objects == [*map(id, model.parameters()), *map(id, model.buffers())]
    for name, array in arrays.items():
        assert array.tobytes() == copies[name].tobytes()


@pytest.mark.parametrize(
    ("name", "array", "field", "expected", "got"),
    [
        ("nonsense", np.zeros(2, np.float32), "update", "names of the module's tensors", "['nonsense']"),
        (  # tied to embed.weight, and known by that name only
            "head.weight",
            np.zeros((5, 4), np.float32),
            "update",
            "names of the module's tensors",
            "['head.weight']",
        ),
        ("conv.bias", np.zeros(3, np.float32), "shape of 'conv.bias'", "(2,), as in the module", "(3,)"),
        ("conv.bias", np.zeros(2, np.float64), "dtype of 'conv.bias'", "float32", "float64"),
        (
            "norm.num_batches_tracked",
            np.zeros((), np.float32),
            "dtype of 'norm.num_batches_tracked'",
            "int64",
            "float32",
        ),
        ("low", np.zeros((2, 2), np.float16), "dtype of 'low'", "float32 or uint16", "float16"),
    ],
)
def test_a_wrong_update_changes_nothing(name, array, field, expected, got):
    model = Zoo()
    before = model.gain.detach().clone()
    with pytest.raises(fm.UpdateError, match=re.escape(f"{field}: expected {expected}, got {got}")):
        apply_(model, {"gain": np.ones((), np.float32), name: array})
    assert torch.equal(model.gain, before)
