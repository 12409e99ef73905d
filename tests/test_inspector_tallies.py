"""The frame inspector in headless Chromium: tallies, raw and coded, and what is wrong with damaged ones."""

import re
import zlib

import numpy as np
import pytest
from inspector_pages import CHROMIUM, ROOT, given, look, schema_of, vectors, with_schema

import fedmrn_codec as fm
from fedmrn_codec.cli import inspector

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

VALID = {
    case["id"].partition("/")[2]: case
    for case in vectors("tallies")
    if case["result"] == "valid" and "tally" in case and not re.search(r"huge|least|largest|n-\d", case["id"])
}


def first_of_each_number():
    """The first invalid tally of each check that needs no expected seed."""
    found = {}
    for case in vectors("tallies_invalid"):
        name = re.fullmatch(r"tallies_invalid/([ct])(\d\d)-.*", case["id"])
        if "seed" not in case and "-and-" not in case["id"]:
            found.setdefault(f"{name[1].upper()}-{name[2]}", case)
    return found


INVALID = first_of_each_number()
SCHEMA = fm.Schema(
    [
        fm.Tensor("w", (30, 40), masked=True),
        fm.Tensor("few", (2000,), masked=True),
        fm.Tensor("bias", (7,)),
        fm.Tensor("none", (0,), masked=True),
    ]
)
FRAMES = 5


def example():
    """A tally of five frames: `w` with a density of about a half, `few` with one of 2 percent."""
    tally, rng = fm.Tally(SCHEMA, weight=600, round=3), np.random.default_rng(5)
    shares = {"w": 0.5, "few": 0.02, "none": 0.5}
    for _ in range(FRAMES):
        bits = {t.name: rng.random(t.shape) < shares[t.name] for t in SCHEMA if t.masked}
        dense = {"bias": np.array([0, 0.5, 1, -1, 2, 3, 4], np.float32)}
        options = {"seed": 2**64 - 1, "noise": fm.Uniform(0.01), "round": 3, "dense": dense}
        tally.add(fm.encode_bits(bits, SCHEMA, **options))
    return tally


TALLY = example()
RAW, CODED = TALLY.to_bytes(), TALLY.to_bytes("rans14")


def sealed(data):
    """The bytes with the checksum that belongs to them."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


def changed(data, at, value):
    """The bytes with one at `at` replaced, and the right checksum."""
    out = bytearray(data)
    assert out[at] != value
    out[at] = value
    return sealed(bytes(out))


def forged():
    """A tally that passes every check, whose mean is no float32: [A-07]."""
    schema = fm.Schema([fm.Tensor("b", (1,))])
    tally = fm.Tally(schema)
    largest = np.array([np.finfo(np.float32).max])
    tally.add(fm.encode({"b": largest.astype(np.float32)}, schema, seed=1, noise=fm.Uniform(1)))
    data = bytearray(tally.to_bytes())
    (at,) = [60 + 4 + 12 * k for k in range(data[60]) if data[60 + 4 + 12 * k] == 11]
    data[at + 4 : at + 12] = (2**24 - 1).to_bytes(8, "little")
    return sealed(bytes(data)), schema.data


def damaged():
    """Damaged tallies with their schema, the check that fails, and the bytes of the field that are marked."""
    last = 60 + 16 + 1200 * 3 // 8 - 1
    one_more = fm.Schema([fm.Tensor("w", (3,), masked=True)])
    tally = fm.Tally(one_more)
    tally.add(fm.encode_bits({"w": np.ones(3, bool)}, one_more, seed=1, noise=fm.Uniform(1)))
    small = tally.to_bytes()
    return {
        "checksum": (RAW[:-1] + bytes([RAW[-1] ^ 255]), SCHEMA.data, "T-18", slice(-4, None)),
        "padding": (changed(small, 76, small[76] | 128), one_more.data, "T-19", slice(76, 77)),
        "count": (changed(RAW, last, RAW[last] | 0xE0), SCHEMA.data, "T-20", slice(76, last + 1)),
        "word": (changed(CODED, at := coded_end(), CODED[at] ^ 64), SCHEMA.data, "C-13", slice(76, 77)),
    }


def coded_end():
    """The offset of the last byte of the coded counts of `w`."""
    assert CODED[62] == 5
    return 60 + 16 + int.from_bytes(CODED[68:76], "little") - 1


def of_file(data, schema):
    """The steps that show a file that is not told what it is, with its schema."""
    return {"steps": [{"schema": given("s.bin", schema)}, {"file": given("t.fmrt", data)}]}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the page shows, by case."""
    folder = tmp_path_factory.mktemp("tallies")
    page = inspector.page("t.fmrt", RAW, None, "s.json", SCHEMA)
    (folder / "page.html").write_text(page, encoding="utf-8")
    cases = {f"valid/{name}": with_schema(case, "tally") for name, case in VALID.items()}
    cases |= {number: with_schema(case, "tally") for number, case in INVALID.items()}
    cases |= {name: of_file(data, schema) for name, (data, schema, *_) in damaged().items()}
    return look(
        cases
        | {
            "raw": of_file(RAW, SCHEMA.data),
            "coded": of_file(CODED, SCHEMA.data),
            "narrow": of_file(RAW, SCHEMA.data) | {"width": 390},
            "dropped": {"steps": [{"drop": [given("s.bin", SCHEMA.data), given("t.fmrt", RAW)]}]},
            "page": {"page": folder / "page.html", "steps": []},
            "without its schema": {"steps": [{"file": given("t.fmrt", RAW)}]},
            "forged": of_file(*forged()),
        },
        folder,
    )


@pytest.mark.parametrize("name", VALID)
def test_a_valid_tally(seen, name):
    shown, case = seen[f"valid/{name}"], VALID[name]
    data = bytes.fromhex(case["tally"])
    assert "All checks of section 8.6 passed." in shown["verdict"]
    assert shown["list"] == ["tally: passed", "counts and limbs: passed"]
    frames = int.from_bytes(data[56:60], "little")
    assert f"frames\n{frames} summed" in shown["header"]
    assert f"weight\n{int.from_bytes(data[48:56], 'little')} of each frame" in shown["header"]
    assert bytes.fromhex(shown["hex"]) == data[:4096]
    assert "bytes of no field" not in (shown["parts"] or "")
    assert len(shown["rows"]) == len(case["schema"])
    counts = fm.Tally.from_bytes(data, schema_in(case)).counts()
    pictures = [f"Counts of {name}" for name, each in counts.items() if each.size]
    assert [canvas["label"].partition(",")[0] for canvas in shown["canvases"]] == pictures
    for row in shown["rows"]:
        mine = counts.get(row[1])
        if mine is not None and mine.size:
            assert abs(float(row[9]) - mine.mean() / frames) < 0.001


def schema_in(case):
    return fm.Schema.from_bytes(schema_of(case))


def test_the_tallies_have_both_codings():
    assert {case["coding"] for case in VALID.values()} == {None, "rans14"}
    assert len(VALID) > 20


@pytest.mark.parametrize("number", INVALID)
def test_the_check_that_fails_has_its_number_and_its_must(seen, number):
    shown, case = seen[number], INVALID[number]
    assert f"The check fails: [{number}]" in shown["verdict"]
    text = (ROOT / "spec" / "FORMAT.md").read_text(encoding="utf-8")
    (must,) = re.findall(rf"^\| \[{number}\] \| (.*?) \| `\w+` \| \w+ \|", text, re.M)
    assert "A reader MUST refuse the tally unless" in shown["verdict"]
    assert must.replace("`", "") in shown["verdict"]
    assert case["code"] in shown["verdict"]
    assert shown["cards"] is shown["total"] is None
    assert shown["bad"] or not case["tally"]  # the bytes of the field are marked
    assert [line for line in shown["list"] if line.endswith("stopped here")] != []


def test_every_check_of_a_tally_is_tried():
    numbers = {*(f"T-{i:02}" for i in range(1, 21)), *(f"C-{i}" for i in range(10, 15))}
    assert set(INVALID) == numbers - {"T-09"}


@pytest.mark.parametrize("name", damaged())
def test_a_damaged_tally(seen, name):
    data, _, number, field = damaged()[name]
    shown = seen[name]
    assert f"The check fails: [{number}]" in shown["verdict"]
    assert bytes.fromhex(shown["hex"]) == data
    assert bytes.fromhex(shown["bad"]) == data[field]
    assert shown["canvases"] == []


@pytest.mark.parametrize(("name", "data"), [("raw", RAW), ("coded", CODED)])
def test_what_a_tally_shows(seen, name, data):
    shown, counts = seen[name], TALLY.counts()
    assert bytes.fromhex(shown["hex"]) == data
    assert "No seed was expected, so [T-09] compared nothing." in shown["verdict"]
    assert "The checksum" in shown["verdict"]
    assert f"t.fmrt: read as a tally of {len(data):,} bytes." in shown["status"]
    for field in ("seed\n0xffffffffffffffff of the noise", "weight\n600 of each frame", "frames\n5 summed"):
        assert field in shown["header"]
    assert "round\n3 of the server" in shown["header"]
    w, few, bias, none = shown["rows"]
    coding, size = {"raw": ("raw", 450), "coded": ("rans14", coded_end() - 75)}[name]
    assert w[2:8] == ["30\u00d740", "masked float32", "binary", "uniform 0.01", coding, str(size)]
    assert (few[6], none[6:8], bias[3]) == (coding, ["raw", "0"], "dense float32")
    for row in (w, few):
        mine = counts[row[1]]
        assert abs(float(row[9]) - mine.mean() / FRAMES) < 0.001
        shares = np.bincount(mine.reshape(-1)) / mine.size
        shares = shares[shares > 0]
        assert abs(float(row[10]) + (shares * np.log2(shares)).sum()) < 0.001
    assert abs(float(bias[9]) - 6 / 7) < 0.001  # of its mean, which is that of each frame
    assert "Density is the mean count divided by the number of frames" in shown["tensors"]
    dark = [canvas["dark"] for canvas in shown["canvases"]]
    assert dark == [np.count_nonzero(counts[each]) for each in ("w", "few")]
    assert "the darker, the more of 5 frames have the bit set; 1,200 elements" in shown["cards"]
    least, most = counts["w"].min(), counts["w"].max()
    assert f"1,200 counts from {least} to {most}; bins of 1" in shown["cards"]
    assert "3,207 values" in shown["total"]
    assert "All float tensors of the mean together." in shown["total"]
    assert "bytes of no field" not in shown["parts"]


def test_fields_of_a_tally(seen):
    raw, coded = seen["raw"]["fields"], seen["coded"]["fields"]
    values = " ".join(map(str, TALLY.counts()["w"].reshape(-1)[: 16 * 8 // 3]))
    assert f"counts of “w”\t{values} …\t8.6" in raw
    assert "distribution of “few”\t1: uniform\t8.6" in raw
    assert "limbs of “bias”" in raw
    for field in ("last of “few”", "bits of f of “few”", "state of “few”", "words of “few”"):
        assert field in coded
        assert field not in raw


def test_ways_to_give_a_tally(seen):
    parts = ("verdict", "header", "tensors", "total", "fields", "canvases")
    shown = [{part: seen[name][part] for part in parts} for name in ("raw", "dropped", "page")]
    assert shown[0] == shown[1] == shown[2]
    bare = seen["without its schema"]
    assert "The schema is needed: this tally does not contain it." in bare["verdict"]
    assert bare["list"] == ["tally: not made", "counts and limbs: not made"]
    assert "frames\n5 summed" in bare["header"]
    assert bare["rows"] == bare["canvases"] == []


def test_a_mean_that_is_refused(seen):
    verdict = seen["forged"]["verdict"]
    assert "All checks of section 8.6 passed." in verdict
    assert "The mean is refused: [A-07]" in verdict


def test_no_page_is_wider_than_the_screen_and_none_breaks_its_policy(seen):
    assert [name for name, shown in seen.items() if shown["too_wide"]] == []
    assert [name for name, shown in seen.items() if shown["violations"]] == []
