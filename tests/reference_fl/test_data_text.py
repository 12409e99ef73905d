"""Next-character samples from texts."""

import numpy as np
import pytest

from reference_fl import data
from reference_fl.data import text

WORDS = "Thus speaks the {} of number {} to all who stand and listen here today.\n"


def speech(role, number, lines):
    return "".join(WORDS.format(role, number + i) for i in range(lines))


def play(style, roles=("First Citizen", "Hamlet", "Nurse"), rounds=4):
    parts = []
    for turn in range(rounds):
        for role in roles:
            parts.append(style(role) + "\n" + speech(role, turn, 3))
    return "\n".join(parts)


STYLES = {"tiny": lambda role: role + ":", "capitals": lambda role: role.upper() + "."}


@pytest.fixture
def load(tmp_path):
    def write_and_load(contents):
        path = tmp_path / "shakespeare.txt"
        path.write_text(contents, encoding="utf-8", newline="")
        return data.load("shakespeare", tmp_path)

    return write_and_load


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_roles(style, newline, load):
    got = load(play(STYLES[style]).replace("\n", newline))
    assert got.group_kind == "speaking roles"
    assert got.groups.unique().tolist() == [0, 1, 2]
    assert (got.in_shape, got.is_sequence) == ((80,), True)
    said = "".join(
        sorted(set("".join(speech(r, n, 3) for r in ("First Citizen", "Hamlet", "Nurse") for n in range(4))))
    )
    assert got.classes == len(said)
    for number, role in enumerate(("First Citizen", "Hamlet", "Nurse")):
        whole = "".join(speech(role, turn, 3) for turn in range(4))
        mine = got.train_x[got.groups == number]
        for place, row in enumerate(mine.tolist()):
            assert "".join(said[token] for token in row) == whole[10 * place : 10 * place + 80]
        labels = "".join(said[token] for token in got.train_y[got.groups == number].tolist())
        assert labels == whole[80 : int(0.8 * len(whole)) : 10]


def test_no_label_of_test_is_one_of_training(load):
    contents = "".join(chr(0x4E00 + i) for i in range(1000))  # each character once
    got = load(contents)
    train, test = set(got.train_y.tolist()), set(got.test_y.tolist())
    assert len(train) + len(test) == len(range(80, 1000, 10))
    assert max(train) < 800 <= min(test)
    assert int(got.train_x.max()) < 800
    for x, y in ((got.train_x, got.train_y), (got.test_x, got.test_y)):
        np.testing.assert_array_equal(x[:, -1] + 1, y)


def test_a_text_without_roles_is_cut_in_chunks(load):
    got = load("No play at all, just words. " * 900)  # 25,200 characters
    assert got.group_kind == "chunks of 10,000 characters"
    counts = got.groups.bincount().tolist()
    assert counts == [len(range(80, 8000, 10))] * 2 + [len(range(80, 4160, 10))]


def test_a_text_with_few_speakers_is_not_a_play(load):
    prose = "\n\n".join(["A paragraph of prose that nobody speaks aloud."] * 40)
    got = load("HAMLET.\nTo be, or not to be.\n\nNURSE.\nWhat is that?\n\n" + prose)
    assert got.group_kind.startswith("chunks")


def test_stage_directions_and_tiny_roles_are_left_out(load):
    contents = play(STYLES["tiny"]) + "\n[Exeunt Xerxes]\n\nPage:\nAy.\n"
    got = load(contents)
    assert got.groups.unique().tolist() == [0, 1, 2]
    _, groups = text.split_groups(contents)
    assert len(groups) == 4
    assert "X" not in "".join(groups)


def test_the_root_can_be_the_file_itself(tmp_path, load):
    load(play(STYLES["tiny"]))
    other = tmp_path / "anything.text"
    other.write_text("\ufeff" + play(STYLES["capitals"]), encoding="utf-8")
    assert data.load("shakespeare", other).group_kind == "speaking roles"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"caf\xe9 " * 100, "byte 3: expected UTF-8, got 0xe9"),
        (b"too short", "characters in the longest group: expected at least about 130, got 9"),
        (b"", "characters in the longest group: expected at least about 130, got 0"),
    ],
)
def test_texts_that_give_no_samples(tmp_path, contents, message):
    (tmp_path / "shakespeare.txt").write_bytes(contents)
    with pytest.raises(data.TextError, match=message):
        data.load("shakespeare", tmp_path)


def test_a_missing_text_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDMRN_DATA", raising=False)
    with pytest.raises(data.DataMissingError, match=r"(?s)shakespeare.txt: not found.*plain text"):
        data.load("shakespeare")
