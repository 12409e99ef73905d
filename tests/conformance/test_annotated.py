"""Annotated views: they show what is wrong where it is, and give their bytes back."""

import itertools
import re
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors
from fedmrn_codec.conformance import oracle, replay, tally_vectors
from fedmrn_codec.conformance.annotated import annotated, bytes_of, fields_of
from fedmrn_codec.conformance.inputs import Input, what_is
from fedmrn_codec.conformance.target import Refused

ROOT = Path(__file__).resolve().parents[2]
TALLIES = [case for case in tally_vectors.tallies() if re.fullmatch("tallies/[^a].*:add_tallies", case.id)]
PARTIALS = [*replay.bad_partials(), *TALLIES, *tally_vectors.bad_tallies()]
CASES = [*replay.frames(), *replay.refusals(), *PARTIALS, *replay.digests()]
INPUTS = [Input.of(case.steps[0][0]) for case in CASES]
"""Frames, schemas, partial sums and tallies of the vectors, valid or not, and what their readers know."""

WITHOUT_SCHEMA = [Input(given.data, given.what) for given in INPUTS]
CHECKS = {"frame": "FSC", "partial-sum": "P", "tally": "TC", "schema": "S"}


@pytest.fixture(scope="module")
def show_vectors(spec_program):
    return spec_program("show_vectors")


def covers(fields, data):
    """Whether the fields hold every byte once, in order."""
    edges = [0, *itertools.chain.from_iterable((f.begin, f.end) for f in fields), len(data)]
    return all(a == b for a, b in zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize(("case", "given"), [*zip(CASES, INPUTS, strict=True)], ids=[c.id for c in CASES])
def test_a_vector_is_shown_with_its_check(case, given):
    view = annotated(given)
    expected = case.steps[0][1]
    assert bytes_of(view.text) == given.data
    assert covers(fields_of(given), given.data)
    marks = [line for line in view.text.splitlines() if line.startswith("!")]
    if isinstance(expected, Refused):
        assert view.fault.numbers == (expected.number,)
        assert view.fault.code == expected.code
        (mark,) = marks
        assert re.search(rf"\^ \[{expected.number}\] {expected.code}: ", mark)
    else:
        assert view.fault is None
        assert not marks


def test_the_mark_is_below_the_byte():
    (case,) = (c for c in replay.refusals() if c.id == "invalid/f30-2:decode")
    lines = annotated(Input.of(case.steps[0][0])).text.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("!"))
    fault = annotated(Input.of(case.steps[0][0])).fault
    column = lines[at].index("^")
    begin, shown = int(lines[at - 1][:8], 16), lines[at - 1][column : column + 2]
    assert begin + (column - 10) // 3 == fault.offset
    assert int(shown, 16) == case.steps[0][0].frame[fault.offset]


PLACES = {
    "f03-minor-4": 5,  # the minor version, not the major one
    "f29-float16-nan": 62,  # the second element
    "s02-empty": 56,  # the length of the name
    "c02-7": 146,  # the eighth state
}


@pytest.mark.parametrize("name", PLACES)
def test_the_place_is_that_of_the_wrong_bytes(name):
    (case,) = (c for c in replay.refusals() if c.id == f"invalid/{name}:decode")
    assert annotated(Input.of(case.steps[0][0])).fault.offset == PLACES[name]


def test_a_sum_that_is_too_large_is_found():
    schema = fm.Schema([fm.Tensor("w", (3,), masked=True)])
    part = oracle.Sums(((5, -6, 2**40),), oracle.UNIFORM, 0.5)
    data = oracle.partial_to_bytes(oracle.PartialSum(oracle.parse_schema(schema.data), 1, 1, 0, 0, (part,)))
    fault = annotated(Input(data, "partial-sum", schema)).fault
    assert (fault.numbers, fault.offset) == (("P-15",), 56 + 8 + 16)


@settings(max_examples=300)
@given(st.sampled_from(INPUTS + WITHOUT_SCHEMA), st.data())
def test_damaged_bytes_are_shown_and_come_back(given, data):
    raw = bytearray(given.data)
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    how = data.draw(st.sampled_from(["whole", "cut", "longer"]))
    if how == "cut":
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    elif how == "longer":
        raw += data.draw(st.binary(min_size=1, max_size=40))
    damaged = Input(bytes(raw), given.what, given.schema, given.options, given.strict)
    view = annotated(damaged)
    assert bytes_of(view.text) == damaged.data
    assert covers(fields_of(damaged), damaged.data)
    error = refusal(damaged)
    assert (view.fault and view.fault.code) == (error and error.code)
    assert sum(line.startswith("!") for line in view.text.splitlines()) == (error is not None)
    if view.fault:
        assert 0 <= view.fault.offset <= len(damaged.data)
        assert {number[0] for number in view.fault.numbers} <= set(CHECKS[damaged.what])
        assert view.fault.numbers


def test_a_damaged_number_of_tensors_takes_no_memory():
    frame = next(given.data for given in WITHOUT_SCHEMA if given.what == "frame" and len(given.data) > 40)
    damaged = Input(frame[:28] + b"\xff\xff\xff\xff" + frame[32:], "frame")
    tracemalloc.start()
    try:
        assert covers(fields_of(damaged), damaged.data)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def refusal(given):
    """The error of the first check that fails, or None."""
    try:
        given.check()
    except errors.FrameError as error:
        return error


@given(st.binary(max_size=200), st.sampled_from(sorted(CHECKS)))
def test_any_bytes_are_shown_and_come_back(data, what):
    assert bytes_of(annotated(Input(data, what)).text) == data
    assert what_is(data) in CHECKS


def test_names_cannot_add_lines():
    schema = fm.Schema([fm.Tensor("a\n# end: 0 bytes\n\u2028\x1b[2J|", (1,))])
    view = annotated(Input(schema.data, "schema"))
    assert view.text.isprintable() or set(filter(lambda c: not c.isprintable(), view.text)) == {"\n"}
    assert bytes_of(view.text) == schema.data


LINES = annotated(Input(fm.Schema([fm.Tensor("w", (2,))]).data, "schema")).text.splitlines()


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ([], "line 1"),
        (LINES[1:], "line 1"),
        ([LINES[0], *LINES[2:]], "line 2"),  # a line is missing
        ([*LINES[:3], "0000", *LINES[3:]], "line 4"),
        ([*LINES[:2], LINES[2].replace("00", "0g"), *LINES[3:]], "line 3"),
        (LINES[:-1], f"line {len(LINES)}"),  # the end is missing
        ([*LINES[:-1], "# end: 3 bytes"], f"line {len(LINES)}"),
    ],
)
def test_a_text_that_is_no_view_is_refused(lines, where):
    with pytest.raises(errors.ArgumentError) as caught:
        bytes_of("\n".join(lines))
    assert caught.value.field == where


def test_checks_of_a_large_coded_mask_are_named_without_the_oracle():
    schema = fm.Schema([fm.Tensor("w", (2**20 + 8,), masked=True)])
    bits = {"w": [i % 16 == 0 for i in range(2**20 + 8)]}
    frame = bytearray(fm.encode_bits(bits, schema, seed=1, noise=fm.Uniform(0.5), coding="rans"))
    frame[64] ^= 1  # P of the first bucket
    frame[-4:] = zlib.crc32(frame[:-4]).to_bytes(4, "little")
    fault = annotated(Input(bytes(frame), "frame", schema)).fault
    assert set(fault.numbers) >= {"C-03", "C-04"}


def test_the_page_of_the_invalid_vectors_is_up_to_date(show_vectors):
    assert show_vectors.main([]) == 0, "run python spec/show_vectors.py --write"


def test_the_page_shows_every_invalid_vector(show_vectors, capsys):
    text = show_vectors.PAGE.read_text(encoding="utf-8")
    names = [name for name, _, _ in show_vectors.cases()]
    assert re.findall(r"^`(\w+/[^`]+)`: ", text, re.MULTILINE) == names
    assert show_vectors.main(names[-1:]) == 0
    assert f"[{names[-1].partition('/')[2][:3].upper()}" in capsys.readouterr().out.replace("-", "")


def test_the_blocks_of_a_coded_mask_are_shown():
    (case,) = (c for c in replay.refusals() if c.id == "invalid/c08-second:decode")
    view = annotated(Input.of(case.steps[0][0]))
    assert [f.name for f in fields_of(Input.of(case.steps[0][0])) if " of block " in f.name] == [
        f"{what} of block {b} of 'w'" for b in range(2) for what in ("state", "words")
    ]
    assert "block 1" in str(view.fault)


def test_a_coded_mask_without_elements_is_shown():
    schema = fm.Schema([fm.Tensor("w", (0,), masked=True)])
    bits = {"w": np.zeros(0, bool)}
    frame = bytearray(fm.encode_bits(bits, schema, seed=1, noise=fm.Uniform(0.5)))
    for coding in (1, 4, 5):
        frame[50], frame[52] = coding, 16
        data = bytes(frame[:-4] + bytes(20))
        view = annotated(Input(data, "frame", schema))
        assert view.fault.numbers == ("F-21",)
        assert bytes_of(view.text) == data
