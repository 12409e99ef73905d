import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from reference_fl import data, models, train


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(n=st.integers(0, 70), batch_size=st.integers(2, 20), epochs=st.integers(0, 4))
def test_batches_and_local_steps(n, batch_size, epochs):
    got = list(train.batches(n, batch_size, epochs, seeded()))
    assert len(got) == train.local_steps(n, batch_size, epochs)
    kept = n - (n % batch_size == 1)  # a single sample left over is dropped
    sizes = [batch_size] * (kept // batch_size) + [kept % batch_size] * (kept % batch_size > 0)
    assert [len(batch) for batch in got] == sizes * epochs
    for epoch in range(epochs if sizes else 0):
        seen = torch.cat(got[epoch * len(sizes) : (epoch + 1) * len(sizes)]).tolist()
        assert len(seen) == len(set(seen)) == kept
        assert set(seen) <= set(range(n))


def test_batches_are_reshuffled_and_follow_the_generator():
    first, second = (torch.cat(list(train.batches(50, 8, 2, seeded(3)))) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[:50], first[50:])
    assert not torch.equal(first, torch.cat(list(train.batches(50, 8, 2, seeded(4)))))


def test_each_epoch_drops_another_single_sample():
    epochs = torch.cat(list(train.batches(9, 4, 50, seeded()))).view(50, 8)
    assert set(epochs.flatten().tolist()) == set(range(9))


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    list(train.batches(50, 8, 2, seeded()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("n", "batch_size", "epochs", "message"),
    [
        (-1, 2, 1, "n: expected at least 0, got -1"),
        (5, 1, 1, "batch_size: expected at least 2, got 1"),
        (5, 2, -1, "epochs: expected at least 0, got -1"),
    ],
)
def test_arguments_out_of_range(n, batch_size, epochs, message):
    with pytest.raises(ValueError, match=message):
        train.local_steps(n, batch_size, epochs)
    with pytest.raises(ValueError, match=message):
        train.batches(n, batch_size, epochs, seeded())  # raised by the call, not by the first batch


def test_batch_norm_refuses_one_sample():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))


def toy(samples=9):
    x = torch.randn(samples, 1, 4, 4, generator=seeded(1))
    return x, torch.arange(samples) % 3, models.build("cnn2", (1, 4, 4), 3, seed=0)


def test_local_train_is_plain_sgd():
    x, y, model = toy(8)
    _, _, twin = toy(8)
    loss = train.local_train(
        model, torch.optim.SGD(model.parameters(), lr=0.1), x, y, batch_size=3, epochs=2, generator=seeded()
    )
    losses = []
    for index in train.batches(8, 3, 2, seeded()):
        twin.zero_grad()
        step_loss = F.cross_entropy(twin(x[index]), y[index])
        step_loss.backward()
        with torch.no_grad():
            for p in twin.parameters():
                p.sub_(0.1 * p.grad)
        losses += [step_loss.item()] * len(index)
    assert loss == pytest.approx(sum(losses) / 16, rel=1e-6)
    for got, want in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(got, want)


def test_local_train_counts_steps_and_sets_training_mode():
    x, y, model = toy()
    model.eval()
    steps = []
    train.local_train(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        x,
        y,
        batch_size=4,
        epochs=3,
        generator=seeded(),
        after_step=steps.append,
    )
    assert steps == list(range(1, train.local_steps(9, 4, 3) + 1))
    assert all(module.training for module in model.modules())
    assert int(model.features.bn1.num_batches_tracked) == len(steps)


def test_local_train_augments_each_batch_from_its_generator():
    x, y, model = toy(8)
    seen = []

    class Kept(nn.Module):
        def forward(self, batch):
            seen.append(batch.clone())
            return model(batch)

    def shift(batch, generator):
        return batch + torch.rand(len(batch), 1, 1, 1, generator=generator)

    def batches():
        seen.clear()
        settings = {"batch_size": 4, "epochs": 2, "generator": seeded(), "augment": shift}
        train.local_train(Kept(), torch.optim.SGD(model.parameters(), lr=0.1), x, y, **settings)
        return torch.cat(seen)

    first, second = batches(), batches()
    assert torch.equal(first, second)
    assert not any(torch.equal(image, clean) for image in first for clean in x)
    assert len(set(first.sum((1, 2, 3)).tolist())) == 16  # drawn again in each epoch


def test_local_train_refuses():
    x, y, model = toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(
        ValueError,
        match=r"batches of 1 samples, at most 4 each, over 3 epochs: expected at least 1 .*, got none",
    ):
        train.local_train(model, optimizer, x[:1], y[:1], batch_size=4, epochs=3, generator=seeded())
    with pytest.raises(ValueError, match="labels: expected 9, one for each sample, got 8"):
        train.local_train(model, optimizer, x, y[:8], batch_size=4, epochs=3, generator=seeded())


@pytest.mark.parametrize("batch", [1, 4, 9, 128])
def test_evaluate(batch):
    x, y, model = toy()
    model.features.bn1.eval()  # another mode than the rest, to be restored
    before = {key: value.clone() for key, value in model.state_dict().items()}
    accuracy, loss = train.evaluate(model, x, y, batch)
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes == {name: name != "features.bn1" for name in modes}
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.eval()
    scores = model(x)
    assert accuracy == int((scores.argmax(1) == y).sum()) / 9
    assert loss == pytest.approx(F.cross_entropy(scores, y).item(), rel=1e-5)


def test_evaluate_counts_hits():
    class Fixed(nn.Module):
        def forward(self, x):
            return F.one_hot(x.flatten().long(), 3).float()

    x = torch.tensor([0.0, 1.0, 2.0, 0.0]).view(4, 1, 1, 1)
    accuracy, _ = train.evaluate(Fixed(), x, torch.tensor([0, 1, 2, 2]), batch=3)
    assert accuracy == 0.75


def test_evaluate_refuses_and_restores():
    x, y, model = toy()
    with pytest.raises(ValueError, match="samples and batch: expected at least 1 each, got 0 and 128"):
        train.evaluate(model, x[:0], y[:0])
    with pytest.raises(ValueError, match="samples and batch: expected at least 1 each, got 9 and 0"):
        train.evaluate(model, x, y, batch=0)
    with pytest.raises(ValueError, match="labels: expected 9, one for each sample, got 8"):
        train.evaluate(model, x, y[:8])
    with pytest.raises(RuntimeError):
        train.evaluate(model, torch.zeros(9, 2, 4, 4), y)  # the wrong number of channels
    assert model.training


def test_digits_are_learnt():
    digits = data.load("digits")
    model = models.build("cnn2", digits.in_shape, digits.classes, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    before, _ = train.evaluate(model, digits.test_x, digits.test_y)
    train.local_train(
        model, optimizer, digits.train_x, digits.train_y, batch_size=64, epochs=5, generator=seeded()
    )
    after, loss = train.evaluate(model, digits.test_x, digits.test_y)
    assert before < 0.3
    assert after > 0.95
    assert loss < 0.3
