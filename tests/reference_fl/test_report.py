"""The numbers of the report, from synthetic metrics files."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import made_runs
import pytest
from made_runs import BINARY, MACHINE, as_lines, counts, header, line, write

from reference_fl import report
from reference_fl.report import figures, grids, page, times
from reference_fl.report.rate_curve import rate_curve
from reference_fl.report.runs import contradicting, distinct, read_all, some_rounds
from reference_fl.report.sections import Spread, sections

FEDMRN = Path(sys.executable).with_name("fedmrn")


@pytest.fixture
def many(tmp_path):
    return made_runs.write_many(tmp_path / "runs")


def section_of(*folders):
    (section,) = sections(report.load(folders))
    return section


def test_folders_and_files_give_the_same_runs(many):
    by_folder = report.load([many])
    by_file = report.load(sorted(many.glob("*/metrics.jsonl")))
    assert len(by_folder) == 5
    assert by_folder == by_file
    assert by_folder[0].machine == MACHINE
    assert [len(run.masks) for run in by_folder] == [4, 4, 0, 0, 0]


def test_kept_results_have_mask_counts_beside_them(tmp_path):
    first = header(**BINARY)
    (tmp_path / "kept.jsonl").write_text(as_lines(first, line(first["settings"], 1, 0.5)))
    (tmp_path / "kept.layers.jsonl").write_text(as_lines(counts(1, w=250)))
    (run,) = report.load([tmp_path])
    assert run.masks == [counts(1, w=250)]
    (row,) = sections([run])[0].rows
    assert figures.mask_shares(row) == {"w": {1: [0.5]}}


def test_every_folder_counts_with_its_own_files(many):
    (many / "metrics.jsonl").write_text((many / "skewed" / "metrics.jsonl").read_text())
    (many / "notes.jsonl").write_text("not read: the folder has metrics.jsonl\n")
    write(many / "deeper" / "run", seed=5).joinpath("metrics.jsonl").rename(many / "deeper" / "kept.jsonl")
    runs = read_all([many])
    assert [run.settings["seed"] for run in runs] == [0, 1, 5, 0, 1, 0, 0]
    assert len(distinct(runs)) == 6


def test_a_file_of_several_runs_has_no_mask_counts(tmp_path):
    texts = [(write(tmp_path / str(s), seed=s, **BINARY) / "metrics.jsonl").read_text() for s in (0, 1)]
    (tmp_path / "all.jsonl").write_text("".join(texts))
    (tmp_path / "all.layers.jsonl").write_text(as_lines(counts(1, w=250)))
    (tmp_path / "all.traffic.jsonl").write_text(as_lines(made_runs.traffic(1, [1], [1])))
    runs = report.load([tmp_path / "all.jsonl"])
    assert [(run.masks, run.traffic) for run in runs] == [([], [])] * 2


def test_a_run_counts_once(many, tmp_path):
    longer = write(tmp_path / "again", [0.5] * 6, seed=0, rounds=6, threads=8)
    every = read_all([many, longer])
    found = distinct(every)
    assert (len(every), len(found)) == (6, 5)
    (run,) = [
        run
        for run in found
        if run.task == every[-1].task and run.label == "fedavg" and run.rounds[0]["seed"] == 0
    ]
    assert len(run.rounds) == 6
    assert contradicting(every, found) == 1
    shorter = report.Run(every[0].settings, every[0].rounds[:2])
    assert contradicting([*found, every[0], shorter], found) == 0
    with_masks = distinct([report.Run(every[0].settings, every[0].rounds), every[0]])
    assert with_masks[0].masks


def test_settings_from_before_options_are_the_same_settings(tmp_path):
    old = header()
    del old["settings"]["options"]
    (tmp_path / "old.jsonl").write_text(as_lines(old, line(old["settings"], 1, 0.5)))
    section = section_of(tmp_path / "old.jsonl", write(tmp_path / "new", seed=1))
    assert [len(row.runs) for row in section.rows] == [2]


def test_means_and_spreads_over_seeds(many):
    section = sections(report.load([many]))[0]
    assert [row.label for row in section.rows] == ["fedavg", "fedmrn binary"]
    fedavg = section.rows[0]
    assert fedavg.last.mean == pytest.approx(0.81)
    assert fedavg.last.deviation == pytest.approx(0.02 / math.sqrt(2))
    assert fedavg.best.mean == pytest.approx(0.91)
    assert fedavg.recent.mean == pytest.approx(fedavg.accuracy.mean())
    assert str(Spread.of([0.5])) == "0.5000"
    assert str(Spread.of([0.5, 0.7])) == "0.6000 ± 0.1414"


def test_of_unequal_rounds_those_that_all_seeds_have(tmp_path):
    section = section_of(write(tmp_path / "a", [0.1, 0.2, 0.9]), write(tmp_path / "b", [0.3, 0.4], seed=1))
    (row,) = section.rows
    assert row.rounds == 2
    assert (row.last.mean, row.best.mean) == pytest.approx((0.3, 0.3))
    grid = grids.accuracy(section)
    assert grid.rows[0][grid.heads.index("rounds")] == "2 of 4"


def test_the_last_five_rounds_of_each_seed(tmp_path):
    runs = [
        write(tmp_path / str(seed), [0.9, *[a + seed / 10] * 4, a + seed / 5], seed=seed, rounds=6)
        for seed, a in enumerate((0.2, 0.4))
    ]
    (row,) = section_of(*runs).rows
    assert row.recent.mean == pytest.approx((0.2 + 0.52) / 2)
    assert row.recent.deviation == pytest.approx(0.32 / math.sqrt(2))


def test_rows_are_compared_after_equal_rounds(tmp_path):
    section = section_of(write(tmp_path / "a"), write(tmp_path / "b", [0.3, 0.4], **BINARY))
    grid = grids.accuracy(section)
    at = grid.heads.index("after round 2")
    assert [row[at] for row in grid.rows] == ["0.7000", "0.4000"]


def test_labels_say_what_differs(tmp_path):
    folders = [
        write(tmp_path / "a"),
        write(tmp_path / "b", **BINARY),
        write(tmp_path / "c", **{**BINARY, "learning_rate": 0.3}),
        write(tmp_path / "d", **BINARY, options={"server_momentum": 0.9}),
        write(tmp_path / "e", partition="labels:3", **BINARY),
    ]
    first, second = sections(report.load(folders))
    assert [row.label for row in first.rows] == [
        "fedavg",
        "fedmrn binary, learning rate 0.1",
        "fedmrn binary, learning rate 0.3",
        "fedmrn binary, learning rate 0.1, server momentum 0.9",
    ]
    assert [row.label for row in second.rows] == ["fedmrn binary, learning rate 0.1"]


def test_an_option_that_is_off_is_not_one_that_is_absent(tmp_path):
    off = write(tmp_path / "a", **BINARY, options={"stochastic": False})
    section = section_of(off, write(tmp_path / "b", **BINARY))
    assert [row.label for row in section.rows] == ["fedmrn binary", "fedmrn binary, stochastic off"]


def test_other_tasks_are_other_sections(tmp_path):
    changes = [{}, {"partition": "dirichlet:0.3"}, {"clients": 20}, {"model": "cnn4"}, {"dataset": "svhn"}]
    runs = report.load([write(tmp_path / str(i), **change) for i, change in enumerate(changes)])
    found = sections(reversed(runs))
    assert [section.name for section in found] == [
        "digits, iid, model cnn2, clients 10",
        "digits, iid, model cnn2, clients 20",
        "digits, iid, model cnn4, clients 10",
        "digits, dirichlet:0.3",
        "svhn, iid",
    ]
    written = page._slugs(found)
    assert len(set(written)) == 5


def test_the_table_and_its_markdown(many):
    rows = report.table(report.load([many]))
    assert [(r["partition"], r["method"], r["seeds"], r["rounds"]) for r in rows] == [
        ("iid", "fedavg", 2, 4),
        ("iid", "fedmrn binary", 2, 4),
        ("labels:3", "fedavg", 1, 4),
    ]
    assert rows[1]["uplink_bytes_per_client_round"] == 3000
    assert rows[1]["ratio"] == 80_100 / 3000
    lines = report.markdown(report.HEADS, map(report.cells, rows)).splitlines()
    assert lines[3] == (
        "| digits | iid | fedmrn binary | 2 | 4 "
        "| 0.7600 ± 0.0141 | 0.6850 ± 0.0141 | 0.8600 ± 0.0141 | 3,000 | 82,000 | 26.7 | 1.9 |"
    )


def test_both_directions_are_compared_with_a_float32_download(tmp_path):
    grid = {"downlink": "grid", "down": [1000, 2000, 3000, 4000, 5000]}
    write(tmp_path / "a"), write(tmp_path / "b", **grid), write(tmp_path / "c", **BINARY, **grid)
    rows = {row["method"]: row for row in report.table(report.load([tmp_path]))}
    assert list(rows) == ["fedavg", "fedavg, downlink grid", "fedmrn binary, downlink grid"]
    assert [row["downlink_bytes_per_client_round"] for row in rows.values()] == [82_000, 3000, 3000]
    ups = [80_100, 80_100, 3000]
    assert [row["uplink_bytes_per_client_round"] for row in rows.values()] == ups
    assert [row["ratio"] for row in rows.values()] == [80_100 / up for up in ups]
    assert [row["ratio_both"] for row in rows.values()] == [1, 162_100 / 83_100, 162_100 / 6000]
    (section,) = sections(report.load([tmp_path]))
    assert [row[-3:] for row in grids.sizes(section).rows] == [
        ["82,000", "1.0", "1.0"],
        ["3,000", "1.0", "2.0"],
        ["3,000", "26.7", "27.0"],
    ]


def test_ratios_are_rounded_once(tmp_path):
    write(tmp_path / "a"), write(tmp_path / "b", **BINARY, downlink="grid", down=[5463] * 5)
    rows = report.table(report.load([tmp_path]))
    assert 19.15 < rows[1]["ratio_both"] < 19.1549  # to two digits first, and then to one, it would be 19.1
    assert report.cells(rows[1])[-1] == "19.2"


def test_a_setting_is_named_in_every_row_of_a_mask_kind(tmp_path):
    rule = {**BINARY, "noise": "adaptive"}
    write(tmp_path / "a", **BINARY), write(tmp_path / "b", **rule)
    write(tmp_path / "c", **rule, downlink="grid"), write(tmp_path / "d", **rule, secure=True)
    assert [row.label for row in section_of(tmp_path).rows] == [
        "fedmrn binary, noise adaptive",
        "fedmrn binary, noise uniform:0.01",
        "fedmrn binary, downlink grid, noise adaptive",
        "fedmrn binary, secure, noise adaptive",
    ]


def test_runs_whose_defaults_differ_are_different_rows(tmp_path):
    options = {"coding": "raw", "schedule": "constant"}
    for name, own in (("old", None), ("raw", options), ("coded", {**options, "coding": "rans12"})):
        write(tmp_path / name, seed=3 if name == "old" else 4, **BINARY)
        path = tmp_path / name / "metrics.jsonl"
        first, *lines = path.read_text().splitlines()
        completed = {**json.loads(first), "options": own} if own else json.loads(first)
        path.write_text("\n".join([json.dumps(completed), *lines, ""]))
    assert [row.label for row in section_of(tmp_path / "old", tmp_path / "raw").rows] == ["fedmrn binary"]
    labels = [row.label for row in section_of(tmp_path).rows]
    assert labels == ["fedmrn binary", "fedmrn binary, coding rans12", "fedmrn binary, coding raw"]


def test_fedavg_on_a_grid_is_no_float32(tmp_path):
    write(tmp_path / "a", downlink="grid", down=[10] * 5), write(tmp_path / "b", **BINARY)
    rows = report.table(report.load([tmp_path]))
    assert [(row["ratio"], row["ratio_both"]) for row in rows] == [(None, None)] * 2


def test_no_ratio_without_fedavg(tmp_path):
    section = section_of(write(tmp_path / "a", **BINARY))
    (row,) = report.table(report.load([tmp_path]))
    assert row["ratio"] is None
    assert times.overhead(section, section.rows[0]) is None
    assert row["ratio_both"] is None
    assert [cells[-2:] for cells in grids.sizes(section).rows] == [["", ""]]


def test_cells_that_were_not_run_are_empty(many):
    grid = grids.matrix(sections(report.load([many])))
    assert grid.rows == [
        ["fedavg", "0.8100 ± 0.0141 (r. 4)", "0.8000 (r. 4)"],
        ["fedmrn binary", "0.7600 ± 0.0141 (r. 4)", ""],
    ]


def test_bytes_by_kind(many):
    section = sections(report.load([many]))[0]
    fedmrn = grids.sizes(section).rows[1]
    assert fedmrn == ["fedmrn binary", "2,500", "400", "100", "3,000", "82,000", "26.7", "1.9"]


def test_time_to_an_accuracy_is_the_formula(tmp_path):
    """By hand: 3 rounds of 10 / 5 s of work; 3000 bytes at 1 Mbit/s take 24 ms, 82,000 at 10 take 65.6 ms."""
    section = section_of(write(tmp_path / "a", **BINARY))
    found = times.reached(section.rows[0], 0.75)
    assert (found.rounds, found.sent, found.work) == (3, 9000, pytest.approx(6.0))
    assert found.received == 246_000
    wanted = (3 * (0.024 + 0.0656), 3 * (0.0048 + 0.01312), 3 * (0.00048 + 0.01312))
    assert found.seconds == pytest.approx(wanted)
    assert times.RATES == ((1, 10), (5, 50), (50, 50))
    assert times.reached(section.rows[0], 0.91) is None


def test_a_round_ends_with_its_slowest_client(tmp_path):
    """By hand: 3000 bytes at 1 Mbit/s take 24 ms; the most that a client receives, 5000 at 10, 4 ms."""
    run = write(tmp_path / "a", **BINARY, downlink="grid", down=[1000, 2000, 3000, 4000, 5000])
    found = times.reached(section_of(run).rows[0], 0.75)
    assert (found.sent, found.received) == (9000, 9000)
    assert found.seconds[0] == pytest.approx(3 * (0.024 + 0.004))
    (run / "traffic.jsonl").unlink()
    means = times.reached(section_of(run).rows[0], 0.75)
    assert means.seconds[0] == pytest.approx(3 * (0.024 + 0.0024))


def test_the_slowest_client_depends_on_the_rates(tmp_path):
    folder = write(tmp_path / "a", [0.8], **BINARY)
    (folder / "traffic.jsonl").write_text(as_lines(made_runs.traffic(1, [2000, 1000], [0, 9000])))
    seconds = times.reached(section_of(folder).rows[0], 0.75).seconds
    assert seconds == pytest.approx((0.016, 0.0032, 0.0016))


def test_the_times_of_all_tasks_in_one_table(many, tmp_path):
    heads, rows = report.time_table(report.load([many]), [0.75])
    assert heads[:4] == ["data", "partition", "accuracy", "method"]
    assert [row[:4] for row in rows] == [
        ["digits", "iid", "0.75", "fedavg"],
        ["digits", "iid", "0.75", "fedmrn binary"],
        ["digits", "labels:3", "0.75", "fedavg"],
    ]
    document = tmp_path / "page.md"
    document.write_text("<!-- times -->\n<!-- end of times -->\n")
    command = [sys.executable, "-m", "reference_fl.report", str(many), "--times", "--target", "0.75"]
    command += ["--document", str(document), "--place", "times", "--total", "-o", str(tmp_path / "f.png")]
    subprocess.run(command, check=True, capture_output=True)
    assert document.read_text().splitlines()[1:-1] == report.markdown(heads, rows).splitlines()
    plain = tmp_path / "plain.png"
    report.figure(report.load([many]), plain)
    assert (tmp_path / "f.png").read_bytes() != plain.read_bytes()


def test_an_accuracy_counts_when_every_seed_reached_it(tmp_path):
    section = section_of(write(tmp_path / "a"), write(tmp_path / "b", [0.9, 0.6], seed=1))
    (row,) = section.rows
    assert times.reached(row, 0.5).rounds == 1
    assert times.reached(row, 0.7).rounds == 1.5
    assert times.reached(row, 0.9) is None, "the first seed reached it in a round that the second lacks"
    assert grids.to_accuracy(section, 0.9).rows == [["fedavg", "2", "not reached", *[""] * 6]]


def test_targets_are_around_the_last_accuracy_of_fedavg(many):
    assert times.targets(sections(report.load([many]))[0]) == [0.81, 0.79, 0.76]


def test_overhead_compares_one_machine_with_itself(tmp_path):
    fedavg = write(tmp_path / "a")
    same = section_of(fedavg, write(tmp_path / "b", seconds=12.0, **BINARY))
    assert times.overhead(same, same.rows[1]) == pytest.approx(1.2)
    for number, change in enumerate(({"machine": {**MACHINE, "processor": "Q"}}, {"threads": 2})):
        other = section_of(fedavg, write(tmp_path / f"c{number}", seconds=12.0, **BINARY, **change))
        assert times.overhead(other, other.rows[1]) is None


def test_mask_shares_of_the_rounds_that_all_seeds_have(tmp_path):
    section = section_of(write(tmp_path / "a", **BINARY), write(tmp_path / "b", [0.5], seed=1, **BINARY))
    shares = figures.mask_shares(section.rows[0])
    assert shares == {"conv.weight": {1: [0.498, 0.498]}, "linear.weight": {1: [0.202, 0.202]}}
    assert figures.mask_layers(section, section_of(write(tmp_path / "c")).rows[0]) is None


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 B"), (1_567_744, "1.57 MB"), (999_600, "1 MB"), (5.2e12, "5,200 GB")]
)
def test_sizes_in_words(count, text):
    assert grids.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (99.94, "99.9 s"), (99.96, "1 min 40 s"), (5999, "99 min 59 s"), (7500, "2 h 05 min")],
)
def test_durations_in_words(seconds, text):
    assert grids.duration(seconds) == text


def test_the_same_runs_give_the_same_bytes(many, tmp_path):
    runs = report.load([many / name for name in ("fedavg-0", "fedavg-1", "binary-0")])
    first = page.write(runs, tmp_path / "a")
    second = page.write(runs[::-1], tmp_path / "b")
    assert [file.name for file in first] == [file.name for file in second]
    assert len(first) == 1 + 4 + 1 + 3, "a page; four figures of the task; one of masks; three tables"
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


def test_the_page_needs_nothing_else_and_escapes_names(tmp_path):
    run = write(tmp_path / "run", [0.5], method="<script>alert(1)</script> $x$ & y")
    (file, *pictures) = page.write(report.load([run]), tmp_path / "out")
    text = file.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x$ &amp; y" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "figures share ids: one may show parts of another"
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert used <= set(ids)
    pictures, tables = pictures[:-3], pictures[-3:]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert [table.name for table in tables] == [page.TABLE, page.TIMES, page.ROUNDS]


def fedmrn(*arguments):
    return subprocess.run([FEDMRN, "report", *map(str, arguments)], capture_output=True, text=True)


def test_the_verb(many, tmp_path):
    again = write(tmp_path / "again", [0.1], partition="labels:3")
    done = fedmrn(again, many / "skewed", "-o", tmp_path / "out", "--target", "0.7", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(text) for text in done.stdout.splitlines()]
    assert (row["method"], row["partition"], row["last_accuracy"]) == ("fedavg", "labels:3", 0.8)
    text = (tmp_path / "out" / page.PAGE).read_text()
    assert "Time of the messages to a test accuracy of 0.7, by Mbit/s up and down" in text
    assert "Left out: 1 runs" in text
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


def test_errors_have_codes_and_no_traceback(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.jsonl").write_text("odd\n")
    (tmp_path / "short.jsonl").write_text('{"settings": {"dataset": "digits"}}\n')
    cases = [
        (2, [tmp_path / "empty"], "expected at least 1, got no run"),
        (2, [tmp_path / "odd.jsonl"], "line 1: expected metrics, got"),
        (2, [tmp_path / "short.jsonl"], "settings: expected dataset, partition"),
        (3, [tmp_path / "nowhere"], "nowhere"),
        (2, [tmp_path / "empty", "--target", "7"], "target"),
    ]
    for code, arguments, word in cases:
        done = fedmrn(*arguments, "-o", tmp_path / "out")
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), (arguments, done.stderr)
        assert word in done.stderr
        assert not (tmp_path / "out").exists()


def test_importing_the_verb_loads_no_heavy_package():
    script = "import sys, reference_fl.report.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "typer" in done.stdout.split()
    assert not {"torch", "matplotlib", "jinja2"} & set(done.stdout.split())


def test_the_readme_s_table_and_figure(many, tmp_path):
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    command = [sys.executable, "-m", "reference_fl.report", str(many), "-o", str(tmp_path / "docs" / "f.png")]
    subprocess.run([*command, "--document", str(document)], check=True, capture_output=True)
    text = document.read_text()
    assert "| digits | iid | fedavg | 2 |" in text
    assert "old" not in text
    assert text.endswith("<!-- end of results -->\nafter\n")
    assert (tmp_path / "docs" / "f.png").read_bytes().startswith(b"\x89PNG")
    document.write_text("no place\n")
    with pytest.raises(ValueError, match=r"places 'results' in .*README.md: expected 1, got 0"):
        report.insert(document, "table", "results")


def test_a_point_for_each_rate(tmp_path):
    for bits, accuracy in ((0.5, 0.9), (0.1, 0.8)):
        write(tmp_path / "runs" / f"{bits}", [accuracy] * 6, **BINARY, options={"bits": bits})
    write(tmp_path / "runs" / "fedavg", [0.85] * 6)
    (axes,) = rate_curve(section_of(tmp_path / "runs")).figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert [y for _, y in lines.pop("fedavg")] == [0.85, 0.85]
    assert lines == {"fedmrn binary": [[3000, 0.8], [3000, 0.9]]}
    write(tmp_path / "runs" / "skewed", partition="labels:3")
    with pytest.raises(ValueError, match="runs: expected those of one task, got 2 tasks"):
        report.figure(report.load([tmp_path / "runs"]), tmp_path / "f.png", "rates")
    assert not (tmp_path / "f.png").exists()


def test_a_table_of_chosen_columns(many, tmp_path):
    document = tmp_path / "page.md"
    document.write_text("<!-- results -->\n<!-- end of results -->\n")
    command = [sys.executable, "-m", "reference_fl.report", str(many), "--document", str(document)]
    command.append("--columns")
    subprocess.run([*command, "rounds,method"], check=True, capture_output=True)
    head, rule, *rows = document.read_text().splitlines()[1:-1]
    assert (head, rule) == ("| rounds | method |", "|---|---|")
    assert "fedavg" in rows[0].split("|")[2]
    done = subprocess.run([*command, "rounds,size"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--columns: expected names of data, partition, " in done.stderr
    assert done.stderr.endswith("got size\n")


def test_a_table_at_a_place_of_its_own_after_fewer_rounds(many, tmp_path):
    document = tmp_path / "results.md"
    document.write_text(
        "<!-- results -->\nA\n<!-- end of results -->\n<!-- early -->\nB\n<!-- end of early -->\n"
    )
    command = [sys.executable, "-m", "reference_fl.report", str(many), "--document", str(document)]
    subprocess.run([*command, "--place", "early", "--rounds", "2"], check=True, capture_output=True)
    first, second = document.read_text().split("<!-- end of results -->")
    assert first == "<!-- results -->\nA\n"
    assert "| digits | iid | fedavg | 2 | 2 |" in second
    assert "B\n" not in second
    run = report.load([write(tmp_path / "one", **BINARY, downlink="grid", down=[1] * 5)])[0]
    for first, last, expected in ((1, 3, [1, 2, 3]), (2, 3, [2, 3]), (3, None, [3, 4])):
        (some,) = some_rounds([run], first, last)
        found = [[each["round"] for each in lines] for lines in (some.rounds, some.masks, some.traffic)]
        assert found == [expected] * 3
