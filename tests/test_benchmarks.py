"""The benchmarks: contenders give correct results, arithmetic and tables are correct, all programs run."""

import itertools
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

import fedmrn_codec as fm
from benchmarks import __main__ as command
from benchmarks import (
    clients,
    coding,
    contenders,
    density,
    frames,
    hostile,
    idioms,
    memory,
    plan,
    startup,
    tables,
    timing,
    uplink,
)
from benchmarks.figure import drawing
from reference_fl import data as datasets
from reference_fl import loop
from reference_fl.report.documents import insert
from reference_fl.seeds import derive
from reference_fl.server import choose
from reference_fl.settings import defaults, split

SIZES = (8, 1001)
SCHEMA = frames.schema_of("cnn2")
IDIOMS = {
    "numpy": (idioms.numpy_encode, idioms.numpy_add),
    "torch": (idioms.torch_encode, idioms.torch_add),
    "bitarray": (idioms.bitarray_encode, idioms.bitarray_add),
}


@pytest.mark.parametrize("name", IDIOMS)
@pytest.mark.parametrize("size", SIZES)
def test_an_idiom_keeps_the_noise_where_the_bit_is_set(name, size):
    encode, add = IDIOMS[name]
    update = contenders.update_of(size)
    packed = encode(update, 7, 99)
    assert len(packed) == (size + 7) // 8
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    assert not bits[size:].any()
    noise = idioms.torch_noise(7, size).numpy() if name == "torch" else idioms.numpy_noise(7, size)
    sums = np.ones(size, np.float32)
    add(packed, 7, sums)
    assert sums.tobytes() == (1 + np.where(bits[:size], noise, np.float32(0))).tobytes()
    assert np.abs(noise).max() <= idioms.SCALE


@pytest.mark.parametrize("name", IDIOMS)
def test_an_idiom_is_the_update_on_average(name):
    encode, add = IDIOMS[name]
    update = np.linspace(-0.002, 0.002, 101, dtype=np.float32)
    sums = np.zeros(101, np.float32)
    for seed in range(1000):
        add(encode(update, 2 * seed, 2 * seed + 1), 2 * seed, sums)
    # For u within the range of the noise, E[mask * noise] is u where |noise| > |u|, and clipped otherwise.
    a, u = float(idioms.SCALE), update.astype(float)
    expected = 0.5 * u * (1 - np.abs(u) / a) + np.sign(u) * u**2 / (4 * a)
    assert np.abs(sums / 1000 - expected).max() < 5 * a * math.sqrt(0.1 / 1000)


def test_bitarray_gives_numpys_bytes():
    update = contenders.update_of(1001)
    packed = idioms.numpy_encode(update, 7, 99)
    assert idioms.bitarray_encode(update, 7, 99) == packed
    mine, its = np.zeros(1001, np.float32), np.zeros(1001, np.float32)
    assert (
        idioms.numpy_add(packed, 7, mine).tobytes()
        == idioms.bitarray_add(packed, 7, its).tobytes()
        != bytes(4004)
    )


@pytest.mark.parametrize("size", SIZES)
def test_the_codecs_contenders_are_its_frames(size):
    schema = fm.Schema([fm.Tensor("w", (size,), masked=True)])
    for mask, code in (("binary", fm.MaskKind.BINARY), ("signed", fm.MaskKind.SIGNED)):
        frame = fm.encode(
            {"w": contenders.update_of(size)},
            schema,
            seed=contenders.SEED,
            noise=contenders.NOISE,
            mask=mask,
            private_seed=contenders.PRIVATE_SEED,
        )
        values = fm.decode(frame, schema)["w"]
        for backend in ("numba", "numpy"):
            contender = contenders.codec(size, mask=code, backend=backend)
            entry = fm.inspect(frame).tensors[0]
            assert contender.encode().tobytes() == frame[entry.offset :][: entry.length]
            weights = range(contenders.WEIGHT, contenders.WEIGHT + contender.frames)
            draws, rest = np.divmod(contender.add(), sum(weights))
            assert not rest.any()
            assert (draws.astype(np.float32) * contenders.NOISE.step).tobytes() == values.tobytes()


ERRORS = {
    contenders.COPY: (0, 0),
    contenders.ZSTD: (0, 0),
    contenders.FLOAT16: (1e-9, 1e-6),
    contenders.EDEN: (0.5, 0.65),  # pi / 2 - 1 = 0.571 for long vectors
    contenders.DRIVE: (0.5, 0.65),
}


@pytest.mark.parametrize("name", ERRORS)
def test_the_others_send_the_update(name):
    size = 4096
    update, contender = contenders.update_of(size), contenders.others(size)[name]
    weight = contenders.WEIGHT if name in (contenders.EDEN, contenders.DRIVE) else 1
    error = np.sum((contender.add() / np.float32(weight) - update) ** 2) / np.sum(update**2)
    least, most = ERRORS[name]
    assert least <= error <= most
    sent = np.frombuffer(contender.encode(), np.uint8)
    assert 8 * len(sent) == contender.bits * size


def test_all_ways_to_sum_frames_agree():
    frames = list(itertools.islice(clients.endless_frames(SCHEMA), 20))
    assert len(set(frames)) == 20
    arrays = [fm.decode(frame, SCHEMA) for frame in frames]
    for weights in ([600] * 20, clients.weights_of(20)):
        exact, decoded = (way(SCHEMA, frames, weights) for way in (clients.sum_exactly, clients.sum_decoded))
        for name, array in exact.items():
            want = np.average([a[name].astype(np.float64) for a in arrays], axis=0, weights=weights)
            np.testing.assert_allclose(array, want, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(decoded[name], want, rtol=1e-4, atol=1e-7)
    update = np.arange(5, dtype=np.float32)
    np.testing.assert_allclose(clients.sum_dense(update, 7), update, rtol=1e-6)


def test_made_updates_have_the_masks_of_trained_ones():
    masks = coding.masks_of(frames.made_frame("cnn4"), frames.schema_of("cnn4"))
    shares = [mask.bits.mean() for mask in masks]
    assert np.abs(np.subtract(shares, (0.44, 0.37, 0.33, 0.15, 0.33))).max() < 0.05
    assert sum(map(coding.conditional, masks)) / sum(m.size for m in masks) == pytest.approx(0.64, abs=0.01)


@pytest.fixture(scope="module")
def masks():
    return coding.masks_of(frames.made_frame("cnn2", coding="rans"), SCHEMA)


@pytest.mark.parametrize("name", coding.CODERS)
def test_a_coder_gives_the_packed_mask_back(name, masks):
    coders = [coding.CODERS[name](mask) for mask in masks]
    coded = [coder.encode() for coder in coders]
    for mask, packed in zip(masks, coding.decoded(coders, coded), strict=True):
        assert packed.tobytes() == mask.packed.tobytes()
    if name != coding.ZSTD:  # zstd is not limited by the entropy of this model
        assert 8 * coding.size_of(coded) >= sum(map(coding.conditional, masks))


def test_masks_and_buckets_are_the_formats(masks):
    frame = frames.made_frame("cnn2")
    for mask, entry in zip(masks, [e for e in fm.inspect(frame).tensors if e.noise], strict=True):
        assert mask.packed.tobytes() == frame[entry.offset :][: entry.length]
        counted = rans_counts(mask)
        assert [c.tolist() for c in mask.counts] == [c.tolist() for c in counted]


def rans_counts(mask):
    noise = fm.noise(mask.noise, seed=mask.seed, stream=mask.stream, start=0, count=mask.size)
    q = np.rint(np.abs(noise / mask.noise.step)).astype(np.int64)
    k = np.minimum(q // 2**20, 15)
    bits = np.unpackbits(mask.packed, count=mask.size, bitorder="little")
    of_each = [bits[k == i] for i in range(16)]
    return np.array([b.sum() for b in of_each]), np.array([b.size for b in of_each])


def test_the_smallest_frame_has_the_same_masks():
    frame = frames.made_frame("cnn4")
    schema = frames.schema_of("cnn4")
    small = coding.smallest(frame, schema)
    assert len(small) < 0.75 * len(frame)
    before, after = fm.decode(frame, schema), fm.decode(small, schema)
    for tensor in schema:
        if tensor.masked or tensor.dtype != "float32":
            assert after[tensor.name].tobytes() == before[tensor.name].tobytes()
        else:
            np.testing.assert_allclose(after[tensor.name], before[tensor.name], rtol=2**-11, atol=2**-25)


@pytest.mark.parametrize("downlink", ["raw", "grid"])
def test_frames_of_a_run_are_those_of_its_next_round(downlink, tmp_path):
    data = datasets.load("digits")
    settings = defaults(
        "digits", "fedmrn", None, rounds=1, clients=100, clients_per_round=2, epochs=1, threads=1
    )
    settings = replace(settings, downlink=downlink)
    list(loop.run(settings, data, tmp_path))
    sent, schema, what = frames.trained_frames(tmp_path, 10)
    assert what == "digits, 2 clients of round 2, binary masks"
    server = fm.Aggregator(schema, round=2)
    sizes = [len(part) for part in split(settings, data)]
    for client, frame in zip(choose(settings, 2), sent, strict=True):
        server.add(frame, weight=sizes[client], seed=derive(settings.seed, "noise", 2, client))
    before = safetensors.numpy.load_file(tmp_path / "state.safetensors")
    list(loop.run(replace(settings, rounds=2), data, tmp_path))
    after = safetensors.numpy.load_file(tmp_path / "state.safetensors")
    for name, mean in server.mean().items():
        assert (before[name] + mean).tobytes() == after[name].tobytes()


def test_frames_of_another_method_are_refused(tmp_path):
    list(loop.run(defaults("digits", "fedavg", None, rounds=0), datasets.load("digits"), tmp_path))
    with pytest.raises(ValueError, match=r"method of the run in .*: expected fedmrn, got fedavg"):
        frames.trained_frames(tmp_path, 1)


def test_entropy_by_hand():
    assert coding.entropy(np.array([1, 0, 4, 5]), np.array([4, 9, 4, 10])) == pytest.approx(
        4 * (0.25 * 2 + 0.75 * math.log2(4 / 3)) + 10
    )


def test_break_even_by_hand():
    assert uplink.break_even(4_000_000, 125_000, 0.5) == 62_000_000
    assert uplink.break_even(100, 200, 0.5) == 0


@pytest.mark.parametrize("name", uplink.messages(SCHEMA))
def test_messages_have_the_bytes_they_say(name):
    message = uplink.messages(SCHEMA)[name]
    assert len(message.encode()) == message.size
    message.add()


def test_ratios_are_those_of_a_rounds_two_calls():
    times = timing.Timings({"a": [1.0, 10.0, 3.0], "b": [2.0, 40.0, 3.0]})
    assert times.ratio("b", "a") == 2
    assert times.ratio("a", "b") == 0.5
    assert (times.median("b"), times.rounds) == (3.0, 3)


def test_every_round_calls_everyone_in_an_order_that_rotates(monkeypatch):
    calls = []
    clock = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    works = {name: timing.Work(lambda name=name: calls.append(name)) for name in "abc"}
    times = timing.measure(works, rounds=4)
    assert "".join(calls[6:]) == "abcbcacababc"
    assert times.seconds == dict.fromkeys("abc", [1.0] * 4)
    assert timing.measure(works, rounds=9, limit=15).rounds == 5
    assert timing.measure(works, rounds=9, limit=1).rounds == 3
    assert timing.measure(works, rounds=2, limit=1).rounds == 2


def test_times_are_divided_by_the_operations_of_a_call(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    works = {"one": timing.Work(lambda: None), "four": timing.Work(lambda: None, times=4)}
    times = timing.measure(works, rounds=4)
    assert times.seconds == {"one": [1.0] * 4, "four": [0.25] * 4}
    assert times.ratio("four", "one") == 0.25
    assert timing.measure(works, rounds=9, limit=10).rounds == 5


def test_threads_are_set_and_restored(monkeypatch):
    monkeypatch.delenv("FEDMRN_THREADS", raising=False)
    with timing.on_threads(3):
        assert plan.every_thread() == 3
    assert "FEDMRN_THREADS" not in os.environ
    monkeypatch.setenv("FEDMRN_THREADS", "5")
    with timing.on_threads(1):
        assert plan.every_thread() == 1
    assert os.environ["FEDMRN_THREADS"] == "5"


def test_growth_is_the_peak_during_the_call():
    assert 40 * 2**20 < memory.growth(lambda: np.ones(48 * 2**20, np.uint8)) < 60 * 2**20
    assert memory.growth(lambda: None) < 8 * 2**20


def test_a_table_as_text_and_as_markdown(capsys):
    table = tables.Table("Title", ("name", "x"), [["a|b", "1.00"], ["longer", "12"]], ["a note"])
    table.print()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Title", "a note"]
    cells = [line.split() for line in lines[2:]]
    assert [row for row in cells if len(row) == 2] == [["name", "x"], ["a|b", "1.00"], ["longer", "12"]]
    assert table.markdown().splitlines() == [
        *("| name | x |", "|---|---:|", r"| a\|b | 1.00 |", "| longer | 12 |")
    ]
    with pytest.raises(ValueError, match=r"cells of a row of 'bad': expected 2, got \[1\]"):
        tables.Table("bad", ("a", "b"), [["1"]])


def test_numbers_and_targets():
    values = 0, 0.12345, 1.5, 99.9, 1234.6
    assert [tables.number(v) for v in values] == ["0", "0.123", "1.50", "99.90", "1,235"]
    assert tables.Target("t", 6.5, 6).row == ("t", "≥ 6", "6.500", "yes")
    assert tables.Target("t", 1.0151, 1.015, at_least=False).row == ("t", "≤ 1.015", "1.015", "no")


def test_another_place_of_a_document_gets_all_tables(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- server: made by X -->\nold\n<!-- end of server -->\nafter\n")
    command.main(["tallies", "--trial", "--document", str(page), "--place", "server"])
    text = page.read_text()
    assert text.startswith("before\n<!-- server: made by X -->\nMeasured on ")
    assert text.endswith("<!-- end of server -->\nafter\n")
    assert "old" not in text
    assert text.count("\n**") >= 1


def test_a_document_gets_its_tables(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- speed: by hand -->\nold\n<!-- end of speed -->\nb\n")
    insert(path, r"new \1", "speed")
    insert(path, r"newer \1", "speed")
    assert path.read_text() == "a\n<!-- speed: by hand -->\nnewer \\1\n<!-- end of speed -->\nb\n"
    path.write_text("nothing")
    with pytest.raises(ValueError, match=r"places 'speed' in .*README.md: expected 1, got 0"):
        insert(path, "new", "speed")


def test_the_command_prints_draws_and_writes(tmp_path, monkeypatch, capsys):
    figure, page = tmp_path / "speed.png", tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("<!-- speed -->\n<!-- end of speed -->\n")
    trial = plan.Plan((1000,), 1000, (1, 2), "cnn2", rounds=1, limit=0)
    monkeypatch.setattr(command, "TRIAL", trial)
    monkeypatch.setattr(coding, "MODEL", "cnn2")
    monkeypatch.setattr(timing, "SHORTEST", 0.0)
    names = ["kernels", "uplink", "coding", "clients"]
    command.main([*names, "--trial", "--figure", str(figure), "--document", str(page)])
    out = capsys.readouterr().out
    for line in (
        "'check' followed by 'add' of a coded CNN2 frame",
        "NumPy idiom",
        "gaussian, signed",
        "constriction, ANS",
        "Aggregator.add_many",
        "zstd of float32",
    ):
        assert line in out
    assert figure.read_bytes()[:4] == b"\x89PNG"
    found = {line: [(1e3, 0.1), (1e7, 0.2)] for line in contenders.every(8)}
    svg = drawing({"encode": found}).data("svg")
    assert b"mathdefault" not in svg
    written = page.read_text()
    assert "![Speed by size](../speed.png)" in written
    assert "| decode and add: times as fast as the NumPy idiom | ≥ 6 |" in written
    assert "pays below, Mbit/s" in written


@pytest.mark.parametrize("kind", density.NOISES)
@pytest.mark.parametrize("wanted", density.DENSITIES)
def test_masks_have_the_density_that_is_asked_for(kind, wanted):
    values = np.random.default_rng(3).laplace(size=200_000)
    noise, spread = kind(0.01), density.spread_of(values, kind, wanted)
    update = {"w": (0.01 * spread * values).astype(np.float32)}
    schema = fm.Schema([fm.Tensor("w", (len(values),), masked=True)])
    bits = fm.decode_bits(fm.encode(update, schema, seed=1, noise=noise, private_seed=2), schema)["w"]
    assert bits.mean() == pytest.approx(
        wanted, abs=4 * math.sqrt(wanted / len(values)) + 1e-3 * (wanted == 0.5)
    )


def test_the_overhead_of_a_coding_is_above_the_entropy():
    case = density.case_of(fm.Bernoulli, 4608, 0.05, plan.Plan(rounds=1, limit=0))
    assert case.entropy == pytest.approx(-sum(p * math.log2(p) for p in (case.density, 1 - case.density)))
    for coded in case.coded.values():
        assert coded.stored != "raw"
        assert coded.speed > 0
        # a payload has whole bytes, of which 4 or more are a state
        assert (1 + coded.overhead) * case.entropy * case.size / 8 == pytest.approx(
            round((1 + coded.overhead) * case.entropy * case.size / 8)
        )
        assert 0 < coded.overhead < 0.4


def test_the_table_by_density_is_printed_in_markdown(monkeypatch, capsys):
    monkeypatch.setattr(command, "TRIAL", plan.Plan(size=70_000, rounds=1, limit=0))
    monkeypatch.setattr(density, "DENSITIES", (0.5, 0.05))
    monkeypatch.setattr(timing, "SHORTEST", 0.0)
    command.main(["density", "--trial", "--markdown"])
    out = capsys.readouterr().out
    assert "| noise | elements | density |" in out
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith(("| bernoulli", "| uniform"))]
    assert [row[1:3] for row in rows] == 2 * [
        [size, share] for size in ("4,608", "65,536") for share in ("0.5", "0.05")
    ]
    assert "| acceptance | target | measured | met |" in out


def test_measurements_in_processes(tmp_path):
    encode, add = memory.peaks_of(contenders.NUMPY, "1000000")
    assert 11e6 < encode < 15e6  # three arrays of float32
    assert 4e6 < add < 7e6  # one, and a byte for each bit
    path = tmp_path / "frame.fmrn"
    path.write_bytes(frames.made_frame("cnn2", embed_schema=True))
    inner, whole = startup.first_decode(path, "numpy")
    assert 0 < inner < whole
    path.write_bytes(b"no frame")
    with pytest.raises(RuntimeError, match="TruncatedError"):
        startup.first_decode(path, "numpy")


def test_frames_that_are_made_to_cost_much_are_refused_within_the_memory_of_an_honest_one():
    """On allocations; the times are only printed."""
    attacks = list(hostile.constructed(2**14))
    assert len(attacks) == 13
    for attack in attacks:
        assert hostile.refusal(attack.refused)
        assert not hostile.refusal(attack.honest)
        assert hostile.memory_ratio(attack) <= hostile.MOST_MEMORY, attack.name


def test_no_vector_needs_more_memory_than_an_honest_frame():
    attacks = list(hostile.vectors())
    assert len(attacks) > 400
    for attack in attacks:
        assert hostile.refusal(attack.refused)
        assert hostile.memory_ratio(attack) <= hostile.MOST_MEMORY, attack.name
    assert not hostile.refusal(attacks[-1].honest)


def test_the_costs_of_refused_frames_are_printed(monkeypatch, capsys):
    monkeypatch.setattr(command, "TRIAL", plan.Plan(size=2**16, rounds=1))
    monkeypatch.setattr(hostile, "vectors", lambda: itertools.islice(hostile.constructed(2**10), 2))
    command.main(["hostile", "--trial"])
    out = capsys.readouterr().out
    assert "2 vectors; the most time: raw: " in out
    assert "refused frames: CPU time of an honest one, at most" in out


def test_memory_of_many_frames_is_measured():
    assert memory.aggregate("cnn2", 3) < 64 * 2**20


def test_a_second_process_is_compared_round_by_round(monkeypatch):
    seconds = {"numba": iter([9.0, 7.0, 1.0, 2.0, 3.0]), "numpy": iter([5.0, 1.0, 1.0, 1.0])}
    monkeypatch.setattr(startup, "first_decode", lambda path, name: (next(seconds[name]), 10.0))
    section = startup.run(plan.Plan(model="cnn2", processes=3))
    assert [list(row) for row in section.tables[0].rows] == [
        ["numba", "2.00", "10.00"],
        ["numpy", "1.00", "10.00"],
        ["numba, nothing cached", "9.00", ""],
    ]
    assert section.targets[0].measured == 0.5


def test_a_wrong_command_line_is_refused(capsys):
    for arguments, message in (
        (
            ["kernel"],
            f"NAME: expected {', '.join(command.BENCHMARKS)}, got kernel",
        ),
        (["uplink", "--figure", "x.png"], "--figure: expected kernels among the names, got uplink"),
    ):
        with pytest.raises(SystemExit):
            command.main(arguments)
        assert message in capsys.readouterr().err
