"""What the report names as best, its numbers as CSV, and the panels of its figures."""

import base64
import csv
import io
import re

import numpy as np
import pytest
from made_runs import BINARY, write

from reference_fl import report
from reference_fl.report import best, csv_files, figures, page, times
from reference_fl.report.sections import sections


@pytest.fixture
def found(tmp_path):
    """FedAvg is more accurate; FedMRN sends fewer bytes; both reach 0.7."""
    write(tmp_path / "a"), write(tmp_path / "b", [0.52, 0.6, 0.85, 0.84], seed=1)
    write(tmp_path / "c", [0.3, 0.71, 0.7, 0.72], **BINARY)
    return sections(report.load([tmp_path]))


def test_the_best_of_each_axis(found):
    (section,) = found
    lines = {each.axis: each for each in best.best(section, [0.7, 0.99])}
    accuracy = lines["accuracy, mean of rounds 1 to 4"]
    assert (accuracy.labels, accuracy.value) == (("fedavg",), f"{section.rows[0].accuracy.mean():.4f}")
    for axis, value in (
        ("bytes up of a client and round", "3,000 B"),
        ("bytes of both directions", "85,000 B"),
    ):
        assert (lines[axis].labels, lines[axis].value) == (("fedmrn binary",), value)
        assert lines[axis].accuracy == f"{section.rows[1].accuracy.mean():.4f}"
    slow = lines["time to 0.7 at 1 up, 10 down (Mbit/s)"]
    assert slow.labels == ("fedmrn binary",)
    assert slow.value == "0.2 s"
    assert lines["time to 0.99 at 1 up, 10 down (Mbit/s)"].labels == ()
    assert len(lines) == 3 + 2 * len(times.RATES)


def test_equal_rows_are_both_best(tmp_path):
    write(tmp_path / "a", **BINARY), write(tmp_path / "b", **{**BINARY, "learning_rate": 0.3})
    (section,) = sections(report.load([tmp_path]))
    accuracy, *_ = best.best(section, [])
    assert accuracy.labels == tuple(row.label for row in section.rows)


def test_accuracies_are_compared_after_equal_rounds(tmp_path):
    write(tmp_path / "a", [0.5, 0.6]), write(tmp_path / "b", [0.4, 0.5, 0.9, 0.9], **BINARY)
    accuracy, *_ = best.best(*sections(report.load([tmp_path])), [])
    assert (accuracy.axis, accuracy.labels) == ("accuracy, mean of rounds 1 to 2", ("fedavg",))


def rows(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_table_as_csv_is_the_table_in_full_precision(found):
    runs = [run for section in found for row in section.rows for run in row.runs]
    for got, want in zip(rows(csv_files.table(found)), report.table(runs), strict=True):
        assert set(want) < set(got)
        for key, value in want.items():
            if key.endswith("_bytes_per_client_round"):
                assert float(got[key]) == pytest.approx(value, abs=0.5)
            else:
                assert got[key] == ("" if value is None else str(value)), key
    binary = rows(csv_files.table(found))[1]
    assert float(binary["ratio"]) == 80_100 / 3000
    assert float(binary["uplink_mask_bytes_per_client_round"]) == 2500
    assert float(binary["median_seconds_per_round"]) == 10


def test_times_and_rounds_as_csv(found):
    (section,) = found
    lines = rows(csv_files.to_accuracy(found, [0.7, 0.99]))
    assert [(line["accuracy"], line["method"]) for line in lines] == [
        (target, row.label) for target in ("0.7", "0.99") for row in section.rows
    ]
    reached = times.reached(section.rows[1], 0.7)
    assert float(lines[1]["message_seconds_1_up_10_down_mbit"]) == reached.seconds[0]
    assert (float(lines[1]["rounds"]), float(lines[1]["bytes_sent"])) == (reached.rounds, reached.sent)
    assert lines[3]["rounds"] == lines[3]["bytes_sent"] == ""
    each = rows(csv_files.rounds(found))
    assert len(each) == 12
    last = each[-1]
    assert (last["method"], last["seed"], last["round"], last["accuracy"]) == (
        "fedmrn binary",
        "0",
        "4",
        "0.72",
    )
    assert (last["uplink_bytes"], last["both_bytes"]) == ("15000", "425000")


def test_the_page_has_the_tables_in_it(found, tmp_path):
    runs = [run for section in found for row in section.rows for run in row.runs]
    file, *others = page.write(runs, tmp_path / "out", [0.7])
    links = dict(
        re.findall(r'download="([^"]+)" href="data:text/csv;charset=utf-8;base64,([^"]+)"', file.read_text())
    )
    assert set(links) == {page.TABLE, page.TIMES}
    beside = {other.name: other.read_bytes() for other in others}
    for name, data in links.items():
        assert base64.b64decode(data) == beside[name]
    assert beside[page.ROUNDS].count(b"\r\n") == 13
    text = file.read_text()
    assert "Best on each axis" in text
    assert re.search(r'<th scope="row">bytes of both directions</th><td>fedmrn binary</td>', text)


def test_one_row_needs_no_best(tmp_path):
    write(tmp_path / "a")
    file, *_ = page.write(report.load([tmp_path / "a"]), tmp_path / "out")
    assert "<caption>Best on each axis" not in file.read_text()


def test_the_first_rounds_are_in_a_panel(tmp_path):
    accuracies = [0.1, *np.linspace(0.8, 0.9, 19)]
    write(tmp_path / "a", accuracies, rounds=20), write(tmp_path / "b", accuracies, rounds=20, **BINARY)
    (section,) = sections(report.load([tmp_path]))
    whole, part = figures.ranges(section)
    assert whole[0] < 0.1 < 0.5 < part[0] < 0.9 < part[1]
    look = figures.styles([section])
    for drawing in (figures.against_rounds(section, look), figures.against_bytes(section, look, "total")):
        upper, lower = drawing.figure.axes
        assert upper.get_ylim() == whole
        assert lower.get_ylim() == part
        assert all(0.1 in line.get_ydata() for line in upper.get_lines())
        assert upper.get_xlim() == lower.get_xlim()
        assert upper.get_xlim()[0] <= min(min(line.get_xdata()) for line in upper.get_lines())
    overview = figures.overview([section]).figure
    assert [axes.get_ylim() for axes in overview.axes] == [whole, whole, part, part]


def test_one_panel_where_nothing_is_hidden(tmp_path):
    write(tmp_path / "a", [0.8, 0.7, 0.75, 0.8])
    (section,) = sections(report.load([tmp_path]))
    assert len(figures.ranges(section)) == 1
    assert len(figures.against_rounds(section, figures.styles([section])).figure.axes) == 1
    assert len(figures.overview([section]).figure.axes) == 2
