"""The frame inspector in headless Chromium: frames of every kind, partial sums, schemas, invalid bytes."""

import json
import re

import numpy as np
import pytest
from inspector_pages import CHROMIUM, ROOT, given, look, vectors, with_schema

import fedmrn_codec as fm
from fedmrn_codec.cli import inspector

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


FRAMES = {case["id"]: case for case in vectors("frames")}
SUMS = [case for case in vectors("aggregate") if case["op"] == "mean" and case["result"] == "valid"]
FORGED = [case for case in vectors("aggregate") if case["op"] == "partial_mean"]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e"


def first_of_each_number():
    """The first invalid vector of each check that needs no expected value or limit of the reader."""
    found = {}
    for case in [*vectors("invalid"), *vectors("partials_invalid")]:
        name = re.search(r"invalid/([cfsp])(\d\d)", case["id"])
        if name and not case.get("options") and "-and-" not in case["id"]:
            found.setdefault(f"{name[1].upper()}-{name[2]}", case)
    return found


INVALID = {number: case for number, case in first_of_each_number().items() if number != "F-09"}


def example(**more):
    """A frame with tensors of all roles, one with a hostile name."""
    schema = fm.Schema(
        [fm.Tensor(EVIL, (30, 40), masked=True), fm.Tensor("bias", (7,)), fm.Tensor("n", (), dtype="int64")]
    )
    rng = np.random.default_rng(3)
    update = {
        EVIL: rng.normal(0, 0.003, (30, 40)).astype(np.float32),
        "bias": np.linspace(-1, 1, 7, dtype=np.float32),
        "n": np.array(5),
    }
    options = {"seed": 2**64 - 1, "noise": fm.Uniform(0.01), "private_seed": 1, "round": 3, **more}
    return fm.encode(update, schema, **options), schema


def large():
    """A frame of more bytes and elements than are shown."""
    schema = fm.Schema([fm.Tensor("w", (300, 300), masked=True)])
    bits = {"w": np.random.default_rng(1).random((300, 300)) < 0.5}
    return fm.encode_bits(bits, schema, seed=1, noise=fm.Bernoulli(1), embed_schema=True)


def many():
    """A frame of more fields than are listed."""
    zeros = {f"t{i}": np.zeros(1, np.int8) for i in range(12_000)}
    schema = fm.Schema([fm.Tensor(name, (1,), dtype="int8") for name in zeros])
    return fm.encode(zeros, schema, seed=1, noise=fm.Uniform(1), embed_schema=True)


def wide():
    """A schema of 2^40 elements, and a frame that is far too short for it."""
    schema = fm.Schema([fm.Tensor("w", (2**20, 2**20), masked=True)])
    small = fm.Schema([fm.Tensor("w", (8, 8), masked=True)])
    frame = bytearray(fm.encode_bits({"w": np.ones((8, 8), bool)}, small, seed=1, noise=fm.Uniform(1)))
    frame[32:48] = schema.digest
    return bytes(frame), schema.data


def cases(folder):
    """All that is looked at, in one run of the browser."""
    out = {f"frames/{name}": with_schema(case, "frame") for name, case in FRAMES.items()}
    out |= {f"sum/{case['id']}": with_schema(case, "partial") for case in [*SUMS, *FORGED]}
    out |= {n: with_schema(c, "partial" if "partial" in c else "frame") for n, c in INVALID.items()}
    embedded, schema = example(embed_schema=True)
    bare, _ = example()
    text = json.dumps(schema.to_json()).encode()
    aggregator = fm.Aggregator(schema)
    aggregator.add(bare, 3)
    damaged = bytearray(large())
    damaged[-1] ^= 255
    frame, schema_bytes = wide()
    (folder / "page.html").write_text(
        inspector.page("a/<b>.fmrn", embedded, None, None, None), encoding="utf-8"
    )
    with_both = inspector.page("s.fmrs", aggregator.to_bytes(), "partial-sum", "x/s.json", schema)
    (folder / "sum.html").write_text(with_both, encoding="utf-8")
    one = {"file": given("a.fmrn", embedded)}
    return out | {
        "nothing": {"steps": []},
        "embedded": {"steps": [one]},
        "narrow": {"steps": [one], "width": 390},
        "dropped": {"steps": [{"drop": [given("a.fmrn", embedded)]}]},
        "bare": {"steps": [{"file": given("b.fmrn", bare)}]},
        "bare, then its schema": {
            "steps": [{"file": given("b.fmrn", bare)}, {"drop": [given("s.json", text)]}]
        },
        "bare beside its schema": {"steps": [{"drop": [given("s.json", text), given("b.fmrn", bare)]}]},
        "its schema in a frame": {
            "steps": [{"file": given("b.fmrn", bare)}, {"schema": given("a.fmrn", embedded)}]
        },
        "forgotten": {
            "steps": [{"drop": [given("s.json", text), given("b.fmrn", bare)]}, {"press": "forget"}],
        },
        "another schema": {
            "steps": [{"schema": given("s", fm.Schema([fm.Tensor("v", (1,))]).data)}, one],
        },
        "no schema": {"steps": [{"schema": given("s.txt", b"hello")}, one]},
        "bad JSON": {"steps": [{"file": given("s.json", b'[{"name": "a", "shape": [-1]}]')}]},
        "schema": {"steps": [{"file": given("s.bin", schema.data)}]},
        "schema in JSON": {"steps": [{"file": given("s.json", text)}]},
        "bad schema": {"steps": [{"as": "schema"}, {"file": given("s.bin", schema.data[:-3])}]},
        "sum without its schema": {"steps": [{"file": given("s.fmrs", aggregator.to_bytes())}]},
        "large": {"steps": [{"file": given("l.fmrn", large())}]},
        "many": {"steps": [{"file": given("m.fmrn", many())}]},
        "large and damaged": {"steps": [{"file": given("l.fmrn", bytes(damaged))}]},
        "too many elements": {
            "steps": [{"schema": given("s", schema_bytes)}, {"file": given("w.fmrn", frame)}],
        },
        "empty": {"steps": [{"file": given("e.fmrn", b"")}]},
        "page": {"page": folder / "page.html", "steps": []},
        "page with a schema": {"page": folder / "sum.html", "steps": []},
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the page shows, by case."""
    folder = tmp_path_factory.mktemp("inspector")
    return look(cases(folder), folder)


@pytest.mark.parametrize("name", FRAMES)
def test_a_valid_frame(seen, name):
    shown, case = seen[f"frames/{name}"], FRAMES[name]
    assert "All checks of section 7 passed." in shown["verdict"]
    assert set(shown["list"]) <= {line for line in shown["list"] if line.endswith(": passed")}
    seed = int(case["seed"], 16)
    assert f"seed\n{seed if seed < 2**53 else case['seed']} of" in shown["header"]
    data = bytes.fromhex(case["frame"])
    assert bytes.fromhex(shown["hex"]) == data[:4096]
    assert "bytes of no field" not in shown["parts"]
    rows = shown["rows"]
    assert len(rows) == len(case["tensors"])
    for row, tensor in zip(rows, case["tensors"], strict=True):
        kind = {"dense": "elements"}.get(tensor["kind"], tensor["kind"])
        assert kind in row
    shown_masks = sum(canvas["label"].startswith("Mask") for canvas in shown["canvases"])
    pairs = zip(case["tensors"], case["schema"], strict=True)
    assert shown_masks == sum(t["kind"] in ("binary", "signed") and 0 not in s["shape"] for t, s in pairs)
    assert shown["violations"] == []


def test_the_frames_have_every_kind_and_coding():
    sent = {(t["kind"], t.get("coding", "raw")) for case in FRAMES.values() for t in case["tensors"]}
    masks = {(kind, coding) for kind in ("binary", "signed") for coding in ("raw", "rans", "rans12")}
    dense = {("dense", coding) for coding in ("raw", "float16", "bfloat16")}
    assert sent >= masks | dense | {("grid", "raw"), ("grid", "rans14")}


@pytest.mark.parametrize("case", SUMS, ids=[case["id"] for case in SUMS])
def test_a_partial_sum(seen, case):
    shown = seen[f"sum/{case['id']}"]
    assert "All checks of section 8.5 passed." in shown["verdict"]
    weight = sum(int(w) for w in case["weights"])
    assert f"weight\n{weight} of all frames" in shown["header"]
    assert f"frames\n{len(case['frames'])} summed" in shown["header"]
    assert len(shown["rows"]) == len(case["schema"])


@pytest.mark.parametrize("case", FORGED, ids=[case["id"] for case in FORGED])
def test_a_mean_that_is_refused(seen, case):
    verdict = seen[f"sum/{case['id']}"]["verdict"]
    assert "All checks of section 8.5 passed." in verdict
    assert "The mean is refused: [A-07]" in verdict
    assert "MUST be refused with the code sums" in verdict


def test_numbers_of_many_checks_are_tried():
    assert len(INVALID) > 60
    assert {number[0] for number in INVALID} == set("FSCP")


@pytest.mark.parametrize("number", INVALID)
def test_the_check_that_fails_has_its_number_and_its_must(seen, number):
    shown = seen[number]
    limit = INVALID[number]["code"] == "limit"
    assert f"{'Beyond a limit of this page' if limit else 'The check fails'}: [{number}]" in shown["verdict"]
    text = (ROOT / "spec" / "FORMAT.md").read_text(encoding="utf-8")
    (must,) = re.findall(rf"^\| \[{number}\] \| (.*?) \| `\w+` \| \w+ \|", text, re.M)
    assert f"MUST refuse the {'partial sum' if number[0] == 'P' else 'frame'} unless" in shown["verdict"]
    assert must.replace("`", "") in shown["verdict"]
    assert INVALID[number]["code"] in shown["verdict"]
    assert shown["cards"] is shown["total"] is None
    data = INVALID[number]["partial" if "partial" in INVALID[number] else "frame"]
    assert shown["bad"] or not data  # the bytes of the field are marked
    assert [line for line in shown["list"] if line.endswith("stopped here")] != []


def test_what_a_frame_shows(seen):
    data, _ = example(embed_schema=True)
    shown = seen["embedded"]
    assert bytes.fromhex(shown["hex"]) == data
    mask, bias, counter = shown["rows"]
    bits = fm.decode_bits(data)[EVIL]
    density = np.count_nonzero(bits) / bits.size
    entropy = -density * np.log2(density) - (1 - density) * np.log2(1 - density)
    assert mask[2:8] == ["30\u00d740", "masked float32", "binary", "uniform 0.01", "raw", "150"]
    assert abs(float(mask[9]) - density) < 0.001
    assert abs(float(mask[10]) - entropy) < 0.001
    assert 0 < float(mask[11]) <= float(mask[10])
    assert bias[2:8] == ["7", "dense float32", "elements", "", "raw", "28"]
    assert counter[2:4] == ["scalar", "dense int64"]
    (canvas,) = shown["canvases"]
    assert canvas["dark"] == np.count_nonzero(bits)
    assert "1,200 elements" in canvas["label"]
    assert "1,207 values" in shown["total"]
    zeros = np.count_nonzero(fm.decode(data)[EVIL] == 0)
    assert f"{zeros:,} zeros not drawn" in shown["cards"]
    assert shown["bars"] > 20
    assert "seed\n0xffffffffffffffff of the noise" in shown["header"]


def test_names_become_text(seen):
    shown = seen["embedded"]
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>\\u{202e}" in shown["tensors"]
    assert shown["scripts"] == seen["nothing"]["scripts"] == 2
    assert all(one["violations"] == [] for one in seen.values())


def test_ways_to_give_files(seen):
    parts = ("verdict", "header", "tensors", "total", "fields", "canvases")
    same = [{part: seen[name][part] for part in parts} for name in ("embedded", "dropped")]
    assert same[0] == same[1]
    for name in ("bare, then its schema", "bare beside its schema", "its schema in a frame"):
        assert "All checks of section 7 passed." in seen[name]["verdict"], name
        assert "is used" in seen[name]["schema"]
    assert "[F-10]" in seen["another schema"]["verdict"]
    assert "The schema is needed" in seen["forgotten"]["verdict"]
    assert "All checks of section 7 passed." in seen["no schema"]["verdict"]
    assert "s.txt is not used: expected the bytes of a schema" in seen["no schema"]["schema"]


def test_without_the_schema(seen):
    shown = seen["bare"]
    assert "The schema is needed" in shown["verdict"]
    assert shown["list"][0] == "header: passed"
    assert shown["list"][-1] == "payloads: not made"
    assert "The checksum" in shown["verdict"]
    assert [row[4] for row in shown["rows"]] == ["binary", "elements", "elements"]
    partial = seen["sum without its schema"]
    assert "The schema is needed" in partial["verdict"]
    assert "weight\n3 of" in partial["header"]
    assert partial["list"] == ["partial sum: not made"]


def test_schemas(seen):
    assert "All checks of section 5.2 and 7.3 passed." in seen["schema"]["verdict"]
    assert seen["schema in JSON"]["hex"] == seen["schema"]["hex"]
    assert [row[3] for row in seen["schema"]["rows"]] == [
        "masked float32",
        "dense float32",
        "dense int64",
    ]
    assert "[S-01] A reader MUST refuse the schema unless" in seen["bad schema"]["verdict"]
    assert "expected JSON of a list of tensors" in seen["bad JSON"]["status"]


def test_large_and_hostile_files(seen):
    data = large()
    shown = seen["large"]
    assert f"The first 4,096 of {len(data):,} bytes." in shown["bytes"]
    assert bytes.fromhex(shown["hex"]) == data[:4096]
    assert "the first 65,536 of 90,000 elements" in shown["cards"]
    assert "The first 64 of 90,000 values" in shown["cards"]
    assert "All checks of section 7 passed." in seen["many"]["verdict"]
    assert "The first 500 of 12,000 tensors." in seen["many"]["tensors"]
    assert seen["many"]["rows"][499][1:5] == ["t499", "1", "dense int8", "elements"]
    assert "300 of 100,002 fields: the first 300." in seen["many"]["fields"]
    assert "fields that are not listed" in seen["many"]["parts"]
    damaged = seen["large and damaged"]
    assert "[F-27]" in damaged["verdict"]
    assert "where the check fails" in damaged["bytes"]
    assert bytes.fromhex(damaged["bad"])[:3] == data[-4:-1]
    assert "this page decodes at most 33,554,432" in seen["too many elements"]["verdict"]
    assert "[F-01]" in seen["empty"]["verdict"]
    assert seen["nothing"]["verdict"] is None


def test_the_page_of_the_command(seen):
    shown = seen["page"]
    assert shown["status"].startswith("<b>.fmrn: read as a frame of")
    assert shown["verdict"] == seen["embedded"]["verdict"]
    partial = seen["page with a schema"]
    assert "All checks of section 8.5 passed." in partial["verdict"]
    assert partial["schema"] == "The schema of s.json is used."
    assert shown["scripts"] == 2


def test_no_page_is_wider_than_the_screen_and_inputs_have_labels(seen):
    assert [name for name, shown in seen.items() if shown["too_wide"]] == []
    assert [name for name, shown in seen.items() if shown["unnamed"]] == []
