"""The benchmarks of secure aggregation: rounds in processes, the rounds of its peers, and their tables."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm
from benchmarks import __main__ as command
from benchmarks import plan, secagg_peers, secagg_roles, secagg_round
from benchmarks.secagg_ledger import STAGES, Ledger

ROOT = Path(__file__).parents[1]
COHORT = secagg_roles.Cohort(6, 1001, 3, 4, 1, 1)
SCHEMA = secagg_peers.SMALL
UPDATES = secagg_peers.updates_of(SCHEMA)


@pytest.fixture(scope="module")
def seconds():
    return secagg_round.play(COHORT, 2, "seconds")


def test_clients_drop_out_before_and_after_their_vectors():
    assert [list(COHORT.present(step)) for step in secagg_roles.STEPS] == [
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6],
        [2, 3, 4, 5, 6],
        [3, 4, 5, 6],
    ]


def test_bytes_of_a_round_are_those_of_the_specification(seconds):
    n, d, size = COHORT.clients, COHORT.degree, COHORT.size
    assert seconds.frame == len(COHORT.request.encode(secagg_roles.update_of(size, 1)))
    keys, shares, masked = 116, 84 + 48 * d, 52 + 3 * (-(-size // 8)) + 4
    assert seconds.up == keys + shares + masked + 52 + 16 * (1 + d)
    assert seconds.down == (92 + 72 * n) + (52 + 1 + 48 * d) + (52 + 1)


def test_every_step_of_the_clients_that_stay_has_a_time(seconds):
    assert len(seconds.client) == 2 * 4
    assert len(seconds.server) == 2
    for costs in seconds.client:
        assert list(costs) == ["keys", "shares", "encode", "masked", "reveal"]
        assert min(costs.values()) > 0
    for costs in seconds.server:
        assert list(costs) == [*secagg_roles.STEPS, secagg_roles.PLAIN]
        assert min(costs.values()) > 0


def test_peaks_are_those_of_one_client_and_of_all_messages():
    cohort = replace(COHORT, size=400_000)
    peaks = secagg_round.play(cohort, 1, "bytes")
    vector = 3 * cohort.size // 8
    client = peaks.client_median(lambda costs: costs["masked"])
    server = peaks.server_median(lambda costs: costs["masked"])
    assert vector < client < 8 * vector
    assert 5 * vector < server < 10 * vector
    assert peaks.server_median(lambda costs: costs["keys"]) < vector


def test_another_mean_than_that_of_the_frames_is_noticed(tmp_path):
    worker = secagg_roles.Server(COHORT, tmp_path, secagg_roles.Seconds(True))
    request = COHORT.request
    frames = {id: request.encode(secagg_roles.update_of(COHORT.size, id)) for id in COHORT.present("masked")}
    for id, frame in frames.items():
        secagg_roles.write(tmp_path, f"encode/{id}", frame)
    mean = secagg_roles.plain_mean(request, frames)["w"].tobytes()
    secagg_roles.write(tmp_path, "mean", mean)
    worker.answer(secagg_roles.PLAIN)
    secagg_roles.write(tmp_path, "mean", mean[:-1] + bytes([mean[-1] ^ 1]))
    with pytest.raises(AssertionError, match="the secure mean is not that of the frames"):
        worker.answer(secagg_roles.PLAIN)


def test_a_process_that_fails_stops_the_benchmark(capfd):
    with pytest.raises(RuntimeError, match="the process of the server ended in the step 'masked'"):
        secagg_round.play(replace(COHORT, early=4), 1, "seconds")
    assert "TooFewError" in capfd.readouterr().err


def test_ratios_are_those_of_each_client_and_of_each_round():
    client = {"encode": 2.0, "keys": 1.0, "shares": 1.0, "masked": 3.0, "reveal": 1.0}
    server = {"keys": 1.0, "shares": 2.0, "masked": 3.0, "reveal": 4.0, "plain": 5.0}
    costs = secagg_round.Measured([client, {**client, "encode": 6.0}, client], [server], 70, 80, 10)
    assert secagg_round.row("name", costs, costs)[:7] == ["name", "8.00", "4.00", "10.00", "2.00", "70", "80"]
    assert secagg_round.unprotected_row({"a": costs}, {"a": costs})[:7] == [
        "without protection",
        *("2.00", "1.00", "5.00", "1.00", "10", "0"),
    ]


def test_the_full_plan_has_the_parameters_of_the_specification():
    text = (ROOT / "spec" / "SECAGG.md").read_text(encoding="utf-8")
    full = plan.Plan()
    (row,) = re.findall(rf"^\| {full.cohort} \| (\d+) \| (\d+) \|", text, re.M)
    assert tuple(map(int, row)) == full.sparse
    complete, sparse = secagg_round.cohorts_of(full).values()
    assert (complete.threshold, complete.degree) == (51, None)
    assert (complete.clients, complete.size, complete.early + complete.late) == (100, 10**6, 10)
    assert (sparse.threshold, sparse.degree) == (21, 42)


def test_a_ledger_counts_each_role_for_itself(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0, 20.0, 21.0])
    monkeypatch.setattr("benchmarks.secagg_ledger.time.process_time", lambda: next(clock))
    ledger = Ledger([7, 8])
    with ledger.of_server(), ledger.of_client(7):
        pass
    assert (ledger.seconds[7], ledger.server) == (3.0, 7.0)
    with ledger.of_client(8):
        pass
    assert ledger.median(ledger.seconds) == 2.0


def able(name):
    """The peer, if it is installed."""
    peer = secagg_peers.PEERS[name]
    if peer.missing:
        pytest.skip(peer.missing)
    return peer


@pytest.mark.parametrize("name", secagg_peers.PEERS)
def test_a_peer_gives_the_sum_and_counts_its_messages(name):
    ledger = secagg_peers.played(able(name), SCHEMA, UPDATES)
    assert set(ledger.seconds) == set(ledger.up) == set(ledger.down) == set(secagg_peers.IDS)
    assert ledger.server > 0
    assert min(*ledger.up.values(), *ledger.down.values()) > 100


def test_the_bytes_of_a_client_are_those_of_the_specification():
    ledger = secagg_peers.played(able("fedmrn_secagg"), SCHEMA, UPDATES)
    masked = 52 + 24 * 4 // 8 + 4 * (1 + 3)
    assert set(ledger.up.values()) == {116 + (84 + 48 * 9) + masked + (52 + 16 * 10)}
    assert set(ledger.down.values()) == {4 * 27 + (92 + 72 * 10) + (52 + 2 + 48 * 9) + (52 + 2)}


def test_secagg_plus_sends_eight_bytes_for_each_parameter():
    peer = able("Flower, SecAgg+")
    small, large = (fm.Schema([fm.Tensor("w", (size,))]) for size in (1000, 11_000))
    one, other = (
        secagg_peers.played(peer, schema, secagg_peers.updates_of(schema)) for schema in (small, large)
    )
    for id in secagg_peers.IDS:
        assert 80_000 <= other.up[id] - one.up[id] < 80_100
        assert 40_000 <= other.down[id] - one.down[id] < 40_100


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", secagg_peers.PEERS)
def test_a_round_with_too_few_clients_gives_no_sum(name, stage):
    peer = able(name)
    if stage not in peer.stages:
        pytest.skip(f"{name} has no such stage")
    silent = dict.fromkeys(secagg_peers.IDS, stage)
    assert not peer.play(SCHEMA, UPDATES, Ledger(UPDATES), silent)


def test_as_many_clients_may_drop_out_as_the_threshold_says():
    assert secagg_peers.tolerated(able("fedmrn_secagg")) == "4, 4, 4"


def test_a_wrong_mean_of_a_peer_is_noticed():
    pytest.importorskip("flwr")
    from benchmarks import secagg_flower

    model = [np.zeros(3, np.float32)]
    updates = {id: [np.full(3, id, np.float32)] for id in (1, 2, 6)}
    secagg_flower.check([np.full(3, 3.0)], model, updates, {})
    secagg_flower.check([np.full(3, 1.5)], model, updates, {6: "vectors"})
    with pytest.raises(AssertionError, match=r"SecAgg\+ is not that of its clients"):
        secagg_flower.check([np.full(3, 3.0)], model, updates, {6: "vectors"})
    request = fm.Request(1, secagg_peers.NOISE, "signed", 1, 0, SCHEMA)
    frames = {id: request.encode(update) for id, update in UPDATES.items()}
    mean = {name: np.zeros_like(array) for name, array in UPDATES[secagg_peers.IDS[0]].items()}
    with pytest.raises(AssertionError, match="the mean of 'w' is not that of the frames"):
        secagg_peers.check(mean, request, frames)


def test_both_benchmarks_write_their_tables(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("<!-- secagg: made by X -->\n<!-- end of secagg -->\n")
    lacking = replace(secagg_peers.PEERS["TenSEAL, CKKS"], packages=("no_such",))
    monkeypatch.setitem(secagg_peers.PEERS, "TenSEAL, CKKS", lacking)
    monkeypatch.setattr(secagg_peers, "tolerated", lambda _: "1, 2, 3")
    command.main(["secure-round", "secure-peers", "--trial", "--document", str(page), "--place", "secagg"])
    text = page.read_text()
    rows = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ")]
    assert rows == [
        *("round", "without protection", "complete graph, threshold 4", "degree 4, threshold 3"),
        *("CPU time in ms", "client, complete graph, threshold 4", "server, complete graph, threshold 4"),
        *("client, degree 4, threshold 3", "server, degree 4, threshold 3"),
        *("system", *secagg_peers.PEERS),
        *("acceptance", "secure aggregation, 10 clients of CNN2: bits up a masked parameter"),
    ]
    assert text.count("| 1, 2, 3 | the sum of 6 updates or more") == 2
    assert "| TenSEAL, CKKS |  |  |  |  |  | not run: no_such not installed |" in text


def test_these_benchmarks_run_only_if_they_are_named(monkeypatch):
    ran = []
    monkeypatch.setattr(command, "measured", lambda name, *_: ran.append(name))
    command.main([])
    assert ran
    assert not set(ran) & set(command.APART)
    assert set(command.APART) < set(command.BENCHMARKS)
