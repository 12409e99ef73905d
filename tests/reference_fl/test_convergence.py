"""The convergence experiment: falling learning rates, smooth problems, their objective, curves and slopes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fedmrn_codec as fm
import fedmrn_torch
from reference_fl import beside, data, loop, mask_counts, methods, models, presets, rates
from reference_fl.convergence import curves, report
from reference_fl.convergence.__main__ import main
from reference_fl.methods import scales
from reference_fl.methods.substitute import Substituted
from reference_fl.objective import Objective
from reference_fl.record import METRICS, ROUND_KEYS, read
from reference_fl.settings import defaults, split
from reference_fl.smooth import PENALTY, PROBLEMS

ROOT = Path(__file__).parents[2]
TINY = {"clients_per_round": 2, "rounds": 3, "threads": 1, "learning_rate_schedule": "inverse:2"}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits-equal")


def problem(digits, name, seed=0, **given):
    settings = defaults("digits-equal", "fedavg", None, model=name, seed=seed, **given)
    return models.build(name, digits.in_shape, digits.classes, seed), settings


def objective(digits, name="logistic", **given):
    model, settings = problem(digits, name, **given)
    return Objective(model, settings, digits)


@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        ("constant", [1, 1, 1]),
        ("inverse:10", [1, 1 / 2, 1 / 11]),
        ("inverse-sqrt:10", [1, 1 / 2**0.5, 1 / 11**0.5]),
    ],
)
def test_the_learning_rate_of_a_round(schedule, want):
    assert [rates.factor(schedule, number) for number in (1, 11, 101)] == pytest.approx(want)
    settings = defaults("digits", "fedavg", None, learning_rate=0.5, learning_rate_schedule=schedule)
    assert [settings.rate(number) for number in (1, 11, 101)] == pytest.approx([0.5 * each for each in want])


@pytest.mark.parametrize(
    "schedule", ["", "linear", "inverse", "inverse:", "inverse:0", "inverse:-1", "inverse:nan", "constant:1"]
)
def test_other_schedules_are_refused(schedule):
    words = (
        "learning rate schedule: expected constant, inverse:GAMMA or inverse-sqrt:GAMMA with GAMMA above 0"
    )
    with pytest.raises(ValueError, match=f"{words}, got '{schedule}'"):
        defaults("digits", "fedavg", None, learning_rate_schedule=schedule)


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_trains_at_the_rate_of_the_round(name, digits, tmp_path, monkeypatch):
    used = []
    original = methods.local_train

    def local_train(model, optimizer, *args, **kwargs):
        used.append([group["lr"] for group in optimizer.param_groups if group["params"]])
        return original(model, optimizer, *args, **kwargs)

    monkeypatch.setattr(methods, "local_train", local_train)
    settings = defaults("digits-equal", name, None, **TINY, learning_rate=0.5, model="mlp-tanh")
    list(loop.run(settings, digits, tmp_path))
    assert [groups[0] for groups in used] == pytest.approx([0.5, 0.5, 1 / 3, 1 / 3, 0.25, 0.25])


def test_a_scale_can_follow_the_learning_rate():
    noise, options = fm.Bernoulli(0.5), {**scales.OPTIONS, "schedule": "rate"}
    assert scales.round_noise(noise, options, None, ["w"], 1) == noise
    assert scales.round_noise(noise, options, None, ["w"], 9, 0.25) == fm.Bernoulli(0.125)


@pytest.mark.parametrize("partition", ["iid", "labels:2"])
def test_clients_of_equal_size(partition, digits):
    settings = defaults("digits-equal", "fedavg", None, partition=partition)
    parts = split(settings, digits)
    assert [len(part) for part in parts] == [70] * 20
    assert torch.bincount(digits.train_y).tolist() == [140] * 10
    assert settings.batch_size >= 70  # so that an epoch is one step on all samples


@pytest.mark.parametrize("name", PROBLEMS)
def test_training_descends_the_objective_with_its_penalty(name, digits):
    """One epoch over all samples in one batch is a step along the gradient of the objective."""
    model, settings = problem(digits, name, learning_rate=0.5, batch_size=2000, epochs=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    its = Objective(model, settings, digits)
    before = torch.cat([p.detach().flatten() for p in model.parameters()]).double().numpy()
    task = methods.Task(digits.train_x, digits.train_y, 1, 1, 1, 2, 3)
    methods.run_sgd(model, task, settings)
    after = torch.cat([p.detach().flatten() for p in model.parameters()]).double().numpy()
    value, gradient = its.at(before)
    assert after - before == pytest.approx(-0.5 * gradient, abs=1e-6)
    assert its.at(after)[0] < value


@pytest.mark.parametrize("mask", ["binary", "signed"])
def test_the_penalty_is_that_of_the_masked_weights(mask, digits):
    model, _ = problem(digits, "logistic")
    with fedmrn_torch.PSM(model, seed=1, noise=fm.Uniform(0.5), mask=mask, steps=1, private_seed=2):
        scores = model(torch.eye(64).view(64, 1, 8, 8))  # one row of weights for each sample
        assert model.penalty.item() == pytest.approx(PENALTY["logistic"] / 2 * scores.square().sum().item())
        if mask == "signed":
            assert scores.abs().min() > 0


def test_the_penalty_is_that_of_substituted_weights(digits):
    model, _ = problem(digits, "logistic")
    weights = torch.full((10, 64), 0.5, requires_grad=True)
    substituted = Substituted(model, lambda: {"layers.0.weight": weights})
    substituted(digits.train_x[:2])
    assert substituted.penalty.item() == pytest.approx(PENALTY["logistic"] / 2 * 640 * 0.25)
    (gradient,) = torch.autograd.grad(substituted.penalty, weights)
    assert gradient == pytest.approx(0.5 * PENALTY["logistic"])


def test_the_optimum_is_that_of_scikit_learn(digits):
    from sklearn.linear_model import LogisticRegression

    count = len(digits.train_y)
    other = LogisticRegression(
        C=1 / (count * PENALTY["logistic"]), fit_intercept=False, tol=1e-10, max_iter=10_000
    ).fit(digits.train_x.flatten(1).double().numpy(), digits.train_y.numpy())
    its = objective(digits)
    assert its.minimum == pytest.approx(other.coef_.flatten(), abs=1e-5)
    # A strongly convex objective: the distance to the minimum is at most the gradient's norm / lambda.
    assert np.linalg.norm(its.at(its.minimum)[1]) / PENALTY["logistic"] < 1e-7


def test_lines_of_the_objective(digits):
    its = objective(digits, learning_rate=0.5, learning_rate_schedule="inverse:2")
    model, _ = problem(digits, "logistic")
    start = its.line(3, model)
    assert start == {
        "round": 3,
        "objective": pytest.approx(np.log(10)),
        "gradient": pytest.approx(np.sum(its.at(np.zeros(640))[1] ** 2)),
        "distance": pytest.approx(np.sum(its.minimum**2)),
        "learning_rate": 0.25,
    }
    with torch.no_grad():
        next(model.parameters()).copy_(torch.from_numpy(its.minimum).view(10, 64))
    best = its.line(4, model)
    assert best["distance"] < 1e-12
    assert best["gradient"] < 1e-10
    assert best["objective"] < start["objective"]
    assert its.line(3, problem(digits, "logistic")[0]) == start  # a line leaves no trace
    assert objective(digits, "mlp-tanh").line(1, problem(digits, "mlp-tanh")[0])["distance"] is None


@pytest.mark.parametrize(("method", "mask"), [("fedavg", None), ("fedmrn", "binary")])
def test_a_resumed_run_has_the_lines_of_an_unbroken_one(method, mask, digits, tmp_path):
    settings = defaults("digits-equal", method, mask, **TINY)
    list(loop.run(settings, digits, tmp_path / "whole"))
    want = (tmp_path / "whole" / "objective.jsonl").read_bytes()
    folder = tmp_path / "killed"
    list(loop.run(replace(settings, rounds=2), digits, folder))
    with (folder / "objective.jsonl").open(
        "ab"
    ) as file:  # killed after and within the first write of round 3
        file.write(
            want.splitlines(keepends=True)[2].replace(b'"distance": ', b'"distance": 9') + b'{"round": 4'
        )
    list(loop.run(settings, digits, folder))
    assert (folder / "objective.jsonl").read_bytes() == want
    assert [line["round"] for line in beside.read(folder / "objective.jsonl")] == [1, 2, 3]
    ((_, rounds),) = read(folder / METRICS)
    assert all(tuple(line) == ROUND_KEYS for line in rounds)


def test_other_models_have_no_objective(digits, tmp_path):
    list(loop.run(defaults("digits-equal", "fedavg", None, **{**TINY, "model": "cnn2"}), digits, tmp_path))
    assert not (tmp_path / "objective.jsonl").exists()


@pytest.mark.parametrize("text", ["[]\n", "no line\n", '{"distance": 1}\n'])
def test_damaged_files_beside_the_metrics_are_refused(text, tmp_path):
    (tmp_path / "objective.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"objective.jsonl, line 1: expected an object with a round, got"):
        beside.read(tmp_path / "objective.jsonl")


def test_a_signed_mask_of_fixed_scale_moves_away_while_the_rate_falls(digits, tmp_path):
    """Its noise is the same in every round, and the force back falls as the rate: docs/convergence.md."""
    preset = presets.load("convergence-iid")
    ends = {}
    for schedule in ("constant", "rate"):
        settings = presets.settings(
            preset,
            "fedmrn",
            "signed",
            noise="bernoulli:0.1",
            rounds=40,
            threads=1,
            options={"schedule": schedule},
        )
        list(loop.run(settings, digits, tmp_path / schedule))
        distances = [line["distance"] for line in beside.read(tmp_path / schedule / "objective.jsonl")]
        ends[schedule] = distances[9], distances[-1]
    assert ends["constant"][1] > ends["constant"][0]
    assert ends["rate"][1] < ends["rate"][0] / 2


def made(exponent, noise="adaptive", seed=0, rounds=600, **options):
    """A curve that is exactly a power of GAMMA + round - 1 in the middle of each bin."""
    settings = defaults(
        "digits-equal", "fedmrn", "binary", seed=seed, noise=noise, learning_rate_schedule="inverse:10"
    ).as_json()
    spans = curves.bins(rounds)
    middles = [(first * last) ** 0.5 for first, last in spans]
    values = [3 * (10 + middle - 1) ** exponent for middle in middles]
    firsts, lasts = zip(*spans, strict=True)
    return curves.Curve(
        {**settings, "options": options}, None, list(firsts), list(lasts), values, values, [0.1, 0.01], 0.3
    )


def test_bins_hold_every_round_once():
    for rounds in (1, 2, 10, 600):
        spans = curves.bins(rounds)
        assert [number for first, last in spans for number in range(first, last + 1)] == list(
            range(1, rounds + 1)
        )
    assert max(last / first for first, last in curves.bins(100_000)) < 10 ** (1.5 / curves.BINS)


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.0, 0.7])
def test_the_slope_of_a_power_is_its_exponent(exponent):
    curve = made(exponent)
    assert curve.slope(0.1) == pytest.approx(exponent)
    assert curve.slope(1 / 3) == pytest.approx(exponent)


def test_labels_say_how_the_scale_goes():
    assert made(-1).label == "binary, rule"
    assert made(-1, "bernoulli:0.3", schedule="rate").label == "binary, bernoulli:0.3 falling"
    assert made(-1, "uniform:0.01").label == "binary, uniform:0.01 fixed"


def test_collecting_a_run_and_reporting_it(digits, tmp_path):
    for seed in (0, 1):
        settings = defaults("digits-equal", "fedmrn", "binary", **{**TINY, "rounds": 12}, seed=seed)
        list(loop.run(settings, digits, tmp_path / "runs" / str(seed)))
    (tmp_path / "runs" / METRICS).write_text("what a sweep leaves\n")
    document = tmp_path / "page.md"
    document.write_text("<!-- slopes: made -->\n<!-- end of slopes -->\n")
    file, figure = tmp_path / "curves.jsonl", tmp_path / "figure.png"
    main(["collect", str(tmp_path / "runs"), "-o", str(file)])
    main(["report", str(file), "-o", str(figure), "--document", str(document)])
    found = curves.load([file])
    lines = beside.read(tmp_path / "runs" / "0" / "objective.jsonl")
    assert len(found) == 2
    assert found[0].distance[0] == pytest.approx(lines[0]["distance"], rel=1e-4)
    assert found[0].distance[-1] == pytest.approx(
        np.mean([line["distance"] for line in lines[found[0].first[-1] - 1 :]]), rel=1e-4
    )
    counts = mask_counts.read(tmp_path / "runs" / "0" / "layers.jsonl")
    ends = [next(iter(counts[at]["tensors"].values()))["scale"] for at in (0, -1)]
    assert found[0].scales == pytest.approx(ends, rel=1e-4)
    assert 0 < found[0].bits < 1.2
    assert report.table(found) in document.read_text()
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_runs_without_an_objective_are_refused(digits, tmp_path):
    list(loop.run(defaults("digits-equal", "fedavg", None, **{**TINY, "model": "cnn2"}), digits, tmp_path))
    with pytest.raises(ValueError, match="expected objectives of 3 finished rounds, got 0"):
        curves.of_run(tmp_path)
    (tmp_path / "curves.jsonl").write_text('{"round": 1}\n')
    with pytest.raises(ValueError, match=r"curves.jsonl, line 1: expected a curve, got"):
        curves.load([tmp_path / "curves.jsonl"])


def test_rows_have_means_and_deviations_over_the_seeds():
    text = report.table([made(-1.0), made(-0.8, seed=1), made(0.0, "uniform:0.01"), made(-1.0, rounds=100)])
    assert "| binary, rule | 600 | 2 |" in text
    assert "| binary, rule | 100 | 1 |" in text
    assert "-0.90 ± 0.14 |" in text
    assert "| +0.00 |" in text


def test_the_page_has_the_table_of_the_stored_runs():
    files = sorted((ROOT / "reference_fl" / "results" / "convergence").glob("*.jsonl"))
    assert files
    assert report.table(curves.load(files)) in (ROOT / "docs" / "convergence.md").read_text()
