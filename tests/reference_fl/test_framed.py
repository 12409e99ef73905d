"""Batched tasks in real frames: the training is the simulation's, the mean is that of the frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fedmrn_codec as fm
from reference_fl.batched import bars, confirm, framed, task
from reference_fl.batched.loop import Server, Settings
from reference_fl.batched.table import read, table

TASK = "digits-bn-iid"
SIMULATED = "binary-bernoulli:adaptive=0.05,common=1,rate=2"
RESULTS = Path(__file__).parents[2] / "reference_fl" / "results" / "noise_rule" / "frames"


def server(text, seed=0):
    return framed.FramedServer(task(TASK), framed.parse(text), seed)


def test_fedavg_in_frames_is_that_of_the_simulation():
    framed_, simulated = server("fedavg"), Server(task(TASK), Settings.parse("fedavg"), 0)
    for number in (1, 2):
        framed_.round(number)
        simulated.round(number)
    for got, want in zip(framed_.model, simulated.model, strict=True):
        torch.testing.assert_close(got, want)
    for name, buffer in simulated.buffers.items():
        torch.testing.assert_close(framed_.buffers[name], buffer)


def kept_messages(its, monkeypatch):
    """The messages that a server's clients send from now on, each with what the client was told."""
    found = []
    encode = its.exchange.encode

    def keep(update, client):
        found.append((encode(update, client), client))
        return found[-1][0]

    monkeypatch.setattr(its.exchange, "encode", keep)
    return found


def test_the_model_moves_by_the_weighted_mean_of_the_frames(monkeypatch):
    its = server("rule")
    messages, before, noise = kept_messages(its, monkeypatch), its._arrays(), its.exchange.rule.noise
    record = its.round(1)
    after = its._arrays()
    weights = np.array([len(its.parts[client.client]) for _, client in messages], float)
    decoded = [fm.decode(frame, its.schema, seed=client.seed) for frame, client in messages]
    for tensor in its.schema:
        values = np.stack([update[tensor.name].astype(float) for update in decoded])
        want = np.tensordot(weights / weights.sum(), values, 1)
        np.testing.assert_allclose(after[tensor.name] - before[tensor.name], want, atol=1e-6)
        if tensor.masked:
            sizes = np.unique(np.abs(values)).tolist()
            assert sizes == [0, np.float32(noise[tensor.name].scale)]
    assert record["bytes"] == np.mean([len(frame) for frame, _ in messages])


def test_every_client_and_round_has_its_own_seed_and_the_model_of_its_round(monkeypatch):
    its = server("rule")
    messages = kept_messages(its, monkeypatch)
    bases = []
    for number in (1, 2):
        bases += [fm.model_id(its._arrays())] * its.task.sampled
        its.round(number)
    infos = [fm.inspect(frame) for frame, _ in messages]
    assert len({info.seed for info in infos}) == 2 * its.task.sampled
    assert [info.base_model for info in infos] == bases
    assert bases[0] != bases[-1]


def test_eden_is_near_the_update_of_fedavg():
    start = server("fedavg").model[0]
    moves = []
    for text in ("fedavg", "eden"):
        its = server(text)
        its.round(1)
        moves.append(its.model[0] - start)
    error = float((moves[1] - moves[0]).square().sum() / moves[0].square().sum())
    assert 0 < error < 0.57  # of one client; the mean of ten has less


def test_the_rule_in_frames_sets_the_scales_that_the_simulation_sets():
    its, simulated = server("rule"), Server(task(TASK), Settings.parse(SIMULATED), 0)
    for number in range(1, 5):
        its.round(number)
        simulated.round(number)
    got = [noise.scale for noise in its.exchange.rule.noise.values()]
    assert got == pytest.approx(simulated.rule.scales.tolist(), rel=0.2)
    assert got != pytest.approx(server("rule")._scales()["scale"], rel=0.2)


SIMULATED = "binary-bernoulli:adaptive=0.05,common=1,rate=2"


def test_a_rate_of_bits_is_reached():
    its = server("rule:bits=0.8")
    records = [its.round(number) for number in range(1, 11)]
    assert records[-1]["bits"] == pytest.approx(0.8, abs=0.06)
    assert records[0]["bits"] < 0.7


@pytest.mark.parametrize(("off", "factor"), [(0.01, 0.01), (100, 10), (3, 3)])
def test_first_scales_can_be_off_but_not_beyond_the_bounds_of_the_rule(off, factor):
    usual, got = (server(text)._scales()["scale"] for text in ("rule", f"rule:off={off}"))
    assert got == pytest.approx([factor * scale for scale in usual], rel=1e-3)


def test_the_frames_of_a_bad_round_are_all_noise():
    records = [record for text in ("rule", "rule:bad=2") for record in map(server(text).round, (1, 2))]
    assert records[0]["bits"] == records[2]["bits"]
    assert records[1]["bits"] < 0.9
    assert records[3]["bits"] > 0.98


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ternary", "expected one of fedavg, eden, rule, got 'ternary'"),
        ("fedavg:bits=0.5", "option of fedavg: expected one of rate, got 'bits'"),
        ("rule:std=3", "option of rule: expected one of rate, off, bits, bad, got 'std'"),
    ],
)
def test_unknown_methods_and_options_are_refused(text, expected):
    with pytest.raises(ValueError, match=expected):
        framed.parse(text)


def test_a_run_is_one_line_and_is_done_once(tmp_path):
    line = confirm.confirm(TASK, "rule", 3, 2, tmp_path)
    assert confirm.confirm(TASK, "rule", 3, 2, tmp_path) is None
    assert confirm.confirm(TASK, "fedavg", 3, 2, tmp_path) is not None
    first, second = map(json.loads, (tmp_path / f"{TASK}-seed3.jsonl").read_text().splitlines())
    assert first == line
    assert len(line["accuracy"]) == len(line["scales"]) == 2
    assert (second["method"], second["bytes"] > first["bytes"], "bits" in second) == ("fedavg", True, False)


def made(name, method, lasts, **more):
    """Runs of a task with these accuracies, one a seed."""
    entries = {"bytes": 1000.0, "bits": 0.25, "rounds": 30, **more}
    return [
        {"task": name, "method": method, "seed": s, "last": last, **entries} for s, last in enumerate(lasts)
    ]


@pytest.mark.parametrize(
    ("name", "rule", "expected"),
    [
        ("a-iid", [0.796, 0.806, 0.816], "none"),  # 0.4 below both; EDEN's spread is 1
        ("a-iid", [0.793, 0.803, 0.813], "FedAvg, by 0.20"),
        ("a-groups", [0.793, 0.803, 0.813], "none"),
        ("a-groups", [0.785, 0.795, 0.805], "FedAvg, by 0.50; EDEN, by 0.50"),
    ],
)
def test_the_table_says_which_bars_a_task_misses(name, rule, expected):
    others = [0.8, 0.81, 0.82]
    runs = made(name, "fedavg", others) + made(name, "eden", others) + made(name, "rule", rule)
    *_, row = bars.confirmed(runs, chosen={name}, simulated=set()).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert (cells[1], cells[2], cells[-1]) == ("to choose", "3", expected)


def test_the_table_takes_the_seeds_that_all_three_have():
    runs = (
        made("a-iid", "fedavg", [0.8, 0.7]) + made("a-iid", "eden", [0.8]) + made("a-iid", "rule", [0.8, 0.6])
    )
    *_, row = bars.confirmed(runs, set(), {"a-iid"}).splitlines()
    assert row.split("|")[2:7] == [" simulated ", " 1 ", " 80.00 ", " 80.00 ", " 80.00 "]
    assert row.endswith("| EDEN's unknown, one seed |")


def test_the_table_of_disturbances_begins_after_round_20():
    alone = made("a-iid", "rule", [0.8], accuracy=[0.1] * 20 + [0.8] * 10)
    other = made("a-iid", "rule:off=0.01", [0.8], accuracy=[0.5] * 20 + [0.79] * 10)
    *_, row = bars.disturbed(alone + other).splitlines()
    assert row.split("|")[4:] == [" 30 ", " 80.00 ", " 79.00 ", " -1.00 ", " by 0.50 ", ""]


def test_the_published_runs_are_complete():
    """Every task of the published table has the three methods of the same seeds, and bytes that differ."""
    runs = read(sorted(RESULTS.glob("*.jsonl")))
    assert runs
    for name, methods_ in bars.by_task(runs).items():
        seeds = {method: set(found) for method, found in methods_.items() if method in bars.METHODS}
        assert set(seeds) == set(bars.METHODS), name
        assert len(set(map(frozenset, seeds.values()))) == 1, name


def test_runs_of_other_lengths_are_not_compared():
    runs = [
        {"task": "t", "method": method, "seed": 0, "rounds": 10, "last": 0.5} for method in ("fedavg", "rule")
    ]
    bars.by_task(runs)
    table(runs)
    longer = [*runs, {**runs[1], "seed": 1, "rounds": 12}]
    with pytest.raises(ValueError, match=r"^rounds of the runs of t: expected one number, got \[10, 12\]$"):
        bars.by_task(longer)
    with pytest.raises(ValueError, match=r"^rounds of the runs of t, rule: expected one number"):
        table(longer)
