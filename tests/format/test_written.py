"""Frames, partial sums, tallies and schemas of former versions are read as those versions read them."""

import hashlib
import json
from pathlib import Path

import pytest

import fedmrn_codec as fm
from fedmrn_codec.conformance import oracle
from fedmrn_codec.format.frame import MINOR

FOLDER = Path(__file__).with_name("written")
FILES = {
    "1.0-4c87e7b": "a79fcd64fa2f5c94aa6ceab6b91828a15bc22afea5f2712fb11dbf96344a93cd",
    "1.0-54e7fb7": "12f1c8787d32eec8447fd78054bcf2aeca90381d028e1e0b00120f5682315535",
    "1.1-40319d5": "6241def40fcaf43d39cf8bf0681130a3759a54f40f8e26faa62cf2f30e1e8225",
    "1.1-c24677a": "b5a133c63555eb021c335ce09dd0f464575eacceff22260feeb574c22ab0bc59",
    "1.2-60a034d": "0f1a1c2585c0af8edd325195702ae3157a9cf7b0c2fbc42311b44573e365b8ec",
    "1.2-d9a194d": "dc27e259d88ca00b0ba25e5677f163dd4829d8b598966a3482bfade087433f1a",
    "1.3-31c2e0a": "801222b5da354241a298afd52aa9c1ae7c15e91efd346ce959576c48713fe684",
    "1.3-62a11e5": "4782ac896df469ac75f36a6b8c35c01acc1a179a0141a65384207991864ed6ec",
    "1.4-749edb6": "db1133dc446b169fe35ed84d6165f34e3b50da60b94b21d035b2da0af63abf72",
}
"""Each file, and its SHA-256; a new version of the format adds rows, and no row ever changes."""

WRITTEN = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in FILES}
FRAMES = [(name, frame) for name, file in WRITTEN.items() for frame in file["frames"]]
SUMS = [(name, part) for name, file in WRITTEN.items() for part in file["sums"]]


TALLIES = [(name, tally) for name, file in WRITTEN.items() for tally in file.get("tallies", ())]


def ids(cases):
    return [f"{name} {case['name']}" for name, case in cases]


def schema_of(name, case):
    return fm.Schema.from_bytes(bytes.fromhex(WRITTEN[name]["schemas"][case["schema"]]))


def digests(tensors):
    little = {name: a.astype(a.dtype.newbyteorder("<")) for name, a in tensors.items()}
    return {name: hashlib.sha256(a.tobytes()).hexdigest() for name, a in little.items()}


@pytest.mark.parametrize("name", FILES)
def test_the_files_have_not_changed(name):
    assert hashlib.sha256((FOLDER / f"{name}.json").read_bytes()).hexdigest() == FILES[name]
    assert [WRITTEN[name]["format"], WRITTEN[name]["commit"]] == name.split("-")


def test_every_version_of_the_format_has_files():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(FILES)
    for minor in range(MINOR + 1):
        files = [file for file in WRITTEN.values() if file["format"] == f"1.{minor}"]
        assert files, f"format 1.{minor} is new: write files with tests/format/written/write.py"
        assert all(max(frame["minor"] for frame in file["frames"]) == minor for file in files)


@pytest.mark.parametrize(("name", "frame"), FRAMES, ids=ids(FRAMES))
def test_frames_are_read(name, frame):
    data, schema = bytes.fromhex(frame["bytes"]), schema_of(name, frame)
    assert data[5] == frame["minor"]
    assert digests(fm.decode(data, schema, backend="numpy")) == frame["decoded"]
    by_oracle = oracle.decode(data, oracle.parse_schema(schema.data))
    assert [hashlib.sha256(part).hexdigest() for part in by_oracle] == [*frame["decoded"].values()]


@pytest.mark.parametrize(("name", "part"), SUMS, ids=ids(SUMS))
def test_partial_sums_are_read(name, part):
    data, schema = bytes.fromhex(part["bytes"]), schema_of(name, part)
    assert data[5] == part["minor"]
    aggregator = fm.Aggregator.from_bytes(data, schema, backend="numpy")
    assert digests(aggregator.mean()) == part["mean"]
    assert aggregator.to_bytes() == data


@pytest.mark.parametrize(("name", "tally"), TALLIES, ids=ids(TALLIES))
def test_tallies_are_read(name, tally):
    data, schema = bytes.fromhex(tally["bytes"]), schema_of(name, tally)
    read = fm.Tally.from_bytes(data, schema, backend="numpy")
    assert read.to_bytes(tally["name"]) == data
    aggregator = fm.Aggregator(schema, round=4, base_model=5, backend="numpy")
    aggregator.add_tally(read)
    assert digests(aggregator.mean()) == tally["mean"]
    by_oracle = oracle.sums_of_tally(oracle.tally_from_bytes(data, oracle.parse_schema(schema.data)))
    assert oracle.partial_to_bytes(by_oracle) == aggregator.to_bytes()


@pytest.mark.parametrize("name", FILES)
def test_schemas_are_read(name):
    for case in WRITTEN[name]["frames"]:
        schema = schema_of(name, case)
        assert schema.data.hex() == WRITTEN[name]["schemas"][case["schema"]]
        assert bytes.fromhex(case["bytes"])[32:48] == schema.digest
