import numpy as np
import pytest
import torch
from torch import nn

from reference_fl import models

# The models of Li et al., ACM MM 2024: name, input, classes -> masked parameters, BatchNorm floats, bytes of
# the whole state in float32 (with BatchNorm's int64 counters of batches).
TABLE = [
    ("cnn4", (1, 28, 28), 10, 389_920, 1_920, 1_567_392),
    ("cnn4", (3, 32, 32), 10, 398_176, 1_920, 1_600_416),
    ("cnn8", (3, 32, 32), 10, 1_181_536, 3_840, 4_741_568),
    ("cnn8", (3, 32, 32), 100, 1_273_696, 3_840, 5_110_208),
]


@pytest.mark.parametrize(("name", "in_shape", "classes", "masked", "norm", "size"), TABLE)
def test_parameter_counts(name, in_shape, classes, masked, norm, size):
    state = models.build(name, in_shape, classes, seed=0).state_dict()
    assert sum(v.numel() for v in state.values() if v.ndim >= 2) == masked
    assert sum(v.numel() for v in state.values() if v.ndim == 1) == norm
    assert sum(v.numel() * v.element_size() for v in state.values()) == size
    assert all(v.is_contiguous() for v in state.values())


@pytest.mark.parametrize(
    ("name", "groups"),
    [("cnn2", [1, 1]), ("cnn4", [1, 1, 1, 1]), ("cnn8", [2, 2, 2, 2])],
)
def test_layers(name, groups):
    model = models.build(name, (1, 32, 32), 10, seed=0)
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    want = [kind for size in groups for kind in (*block * (size - 1), *block[:2], nn.MaxPool2d, nn.ReLU)]
    assert [type(layer) for layer in model.features] == want
    for layer in model.features:
        if isinstance(layer, nn.Conv2d):
            assert (layer.kernel_size, layer.padding, layer.stride) == ((3, 3), (1, 1), (1, 1))
            assert layer.bias is None
    assert model.linear.bias is None


def test_a_pool_before_relu_gives_the_bits_of_one_after_it():
    x = torch.randn((3, 5, 8, 8), generator=torch.Generator().manual_seed(1))
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    a = nn.functional.relu(nn.functional.max_pool2d(one, 2))
    b = nn.functional.max_pool2d(nn.functional.relu(other), 2)
    weights = torch.randn(a.shape, generator=torch.Generator().manual_seed(2))
    (a * weights).sum().backward()
    (b * weights).sum().backward()
    assert torch.equal(a, b)
    assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize(
    ("name", "in_shape", "classes"),
    [
        ("cnn2", (1, 8, 8), 10),
        ("cnn4", (1, 28, 28), 10),
        ("cnn4", (3, 17, 32), 3),
        ("cnn8", (3, 32, 32), 100),
    ],
)
def test_forward(name, in_shape, classes):
    model = models.build(name, in_shape, classes, seed=1)
    x = torch.randn(5, *in_shape, generator=torch.Generator().manual_seed(0))
    scores = model(x)
    assert scores.shape == (5, classes)
    assert scores.dtype == torch.float32
    scores.sum().backward()
    assert all(p.grad is not None and p.grad.is_contiguous() for p in model.parameters())


def test_channels_last_computes_the_same():
    model = models.build("cnn4", (1, 28, 28), 10, seed=1)
    x = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    plain = model.linear(model.features(x).flatten(1))
    torch.testing.assert_close(model(x), plain, rtol=1e-4, atol=1e-5)


def test_activations_are_channels_last():
    model = models.build("cnn4", (1, 28, 28), 10, seed=1)
    layouts = []
    for layer in model.features:
        layer.register_forward_hook(
            lambda module, args, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
        )
    model(torch.zeros(8, 1, 28, 28))
    assert layouts == [True] * len(model.features)


def test_initial_weights():
    model = models.build("cnn8", (3, 32, 32), 100, seed=3)
    for name, value in model.state_dict().items():
        if value.ndim >= 2:
            assert abs(float(value.std()) / 0.01 - 1) < 0.1, name
            assert abs(float(value.mean())) < 0.01 * 5 / value.numel() ** 0.5, name
        elif name.endswith(("weight", "running_var")):
            assert (value == 1).all(), name
        else:
            assert (value == 0).all(), name


def test_seed_decides_and_global_state_is_left_alone():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = models.build("cnn4", (1, 28, 28), 10, seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.manual_seed(2)
    again = models.build("cnn4", (1, 28, 28), 10, seed=7).state_dict()
    other = models.build("cnn4", (1, 28, 28), 10, seed=8).state_dict()
    assert all(first[key].numpy().tobytes() == again[key].numpy().tobytes() for key in first)
    assert not torch.equal(first["linear.weight"], other["linear.weight"])


def test_refusals():
    with pytest.raises(
        ValueError,
        match="model: expected one of cnn2, cnn4, cnn8, logistic, lstm, lstm-small, mlp-tanh, got 'cnn5'",
    ):
        models.build("cnn5", (1, 28, 28), 10, seed=0)
    with pytest.raises(ValueError, match="image size: expected at least 16x16 for 4 pools, got 8x32"):
        models.build("cnn4", (1, 8, 32), 10, seed=0)
    with pytest.raises(ValueError, match="'cnn4': expected images of 3 dimensions, got 1 dimensions"):
        models.build("cnn4", (80,), 10, seed=0)
    with pytest.raises(ValueError, match="'lstm': expected sequences of 1 dimensions, got 3 dimensions"):
        models.build("lstm", (1, 8, 8), 10, seed=0)
