"""The mutation test of the conformance kit: its faults, what kills them, and its table."""

import json
import shutil

import pytest
from conformance_mutants import current, read, run
from conformance_mutants_table import former, latest, reasons, row
from kit_checks import Answered, Recorded, kit_checks
from mutants_of_programs import C, JavaScript
from mutants_of_python import in_error
from source_mutants import SourceMutant, mutants

from fedmrn_codec.conformance import replay
from fedmrn_codec.conformance.reference import Reference
from fedmrn_codec.conformance.target import Refused

C_SOURCE = """\
#define LIMIT 5
static const int outside = 7; /* 7 < 8 */
static int scaled(int a, const int *p)
{
    int b = 2 * a;
    if (a < *p && !b) return fail(TOO_SMALL, a + 1);
    p[0] += b; // a + b
    hello("1 + 1");
    return -b;
}
"""
C_EXPECTED = [
    "scaled: `int b = 2 * a;` becomes `int b = 3 * a;`",
    "scaled: `int b = 2 * a;` becomes `int b = 2 / a;`",
    "scaled: `if (a < *p && !b) return fail(TOO_SMALL, a + 1);` becomes "
    "`if (!(a < *p && !b)) return fail(TOO_SMALL, a + 1);`",
    "scaled: `if (a < *p && !b) return fail(TOO_SMALL, a + 1);` becomes "
    "`if (a <= *p && !b) return fail(TOO_SMALL, a + 1);`",
    "scaled: `if (a < *p && !b) return fail(TOO_SMALL, a + 1);` becomes "
    "`if (a < *p \\|\\| !b) return fail(TOO_SMALL, a + 1);`",
    "scaled: `if (a < *p && !b) return fail(TOO_SMALL, a + 1);` becomes "
    "`if (a < *p && b) return fail(TOO_SMALL, a + 1);`",
    "scaled: `if (a < *p && !b) return fail(TOO_SMALL, a + 1);` becomes `if (a < *p && !b) ;`",
    "scaled: `p[0] += b; // a + b` becomes `p[1] += b; // a + b`",
    "scaled: `p[0] += b; // a + b` becomes `p[0] -= b; // a + b`",
    "scaled: `p[0] += b; // a + b` becomes `; // a + b`",
    'scaled: `hello("1 + 1");` becomes `;`',
    "scaled: `return -b;` becomes `;`",
]
JS_SOURCE = """\
const outside = 7;
export function draw(words, i) {
  const q = 0xFFn, text = `${i + 1}`, word = /1+2/;
  if (words[i] === q) throw new RangeError(`${i} < 1`);
  return words.map((w) => w >>> 1);
}
class Box {
  put(n) {
    this.n = n;
  }
}
"""
JS_EXPECTED = [
    "draw: `const q = 0xFFn, text = `${i + 1}`, word = /1+2/;` becomes "
    "`const q = 0x100n, text = `${i + 1}`, word = /1+2/;`",
    "draw: `if (words[i] === q) throw new RangeError(`${i} < 1`);` becomes "
    "`if (!(words[i] === q)) throw new RangeError(`${i} < 1`);`",
    "draw: `if (words[i] === q) throw new RangeError(`${i} < 1`);` becomes "
    "`if (words[i] !== q) throw new RangeError(`${i} < 1`);`",
    "draw: `if (words[i] === q) throw new RangeError(`${i} < 1`);` becomes `if (words[i] === q) ;`",
    "draw: `return words.map((w) => w >>> 1);` becomes `return words.map((w) => w << 1);`",
    "draw: `return words.map((w) => w >>> 1);` becomes `return words.map((w) => w >>> 2);`",
    "draw: `return words.map((w) => w >>> 1);` becomes `;`",
    "put: `this.n = n;` becomes `;`",
]


@pytest.mark.parametrize(
    ("source", "errors", "expected"),
    [(C_SOURCE, ("fail",), C_EXPECTED), (JS_SOURCE, ("RangeError",), JS_EXPECTED)],
    ids=["c", "js"],
)
def test_each_mutant_is_another_program_with_one_fault(source, errors, expected):
    made = list(mutants(source, errors))
    assert sorted(mutant.key for mutant in made) == sorted(expected)
    assert len({mutant.source for mutant in made} | {source}) == len(made) + 1


def test_equal_changes_are_numbered():
    keys = [m.key for m in mutants("void f(int a)\n{\n    g(a);\n    g(a);\n}\n", ())]
    assert keys == ["f: `g(a);` becomes `;`", "f: `g(a);` becomes `;` (no. 2)"]


def whole(key, source):
    """A mutant with this source."""
    return SourceMutant(key, "", 0, 0, source)


WORDS = list(replay.words())


@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "tool", "fault"),
    [(C, "cc", ("0xD2511F53u", "0xD2511F55u")), (JavaScript, "node", ("0xD2511F53", "0xD2511F55"))],
)
def test_a_program_with_a_fault_is_killed(kind, tool, fault):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} not installed")
    program = kind(WORDS)
    source = program.source.read_text(encoding="utf-8")
    assert fault[0] in source
    assert program.test(whole("same", source)) == ("alive", "")
    state, by = program.test(whole("fault", source.replace(*fault)))
    assert (state, by.partition("/")[0]) == ("killed", "philox")
    assert program.test(whole("no program", source + "\n)")) == ("invalid", "")


def test_a_generated_check_is_asked_again_with_the_same_answers():
    (check,) = (c for c in kit_checks(3) if c.id == "generated/words")
    assert isinstance(check, Recorded)
    assert check.cases
    assert check.run(Reference()) is None

    class Wrong(Reference):
        def _words(self, request):
            return {"words": super()._words(request)["words"][:-4] + b"wrng"}

    assert check.run(Wrong()) is not None


def test_a_refusal_is_a_failure():
    class Refusing:
        id, musts, profile = "some/check", ("F-01",), "decode"

        def run(self, target):
            raise Refused("coding")

    assert "`coding`" in Answered(Refusing()).run(None).finding.text


def test_arguments_of_errors_are_left_out():
    assert in_error("`raise errors.TagError('x', at + 1)` becomes `raise errors.TagError('x', at - 1)`")
    assert not in_error("`raise errors.TagError('x', at + 1)` becomes `pass`")
    assert not in_error("`x = 1` becomes `x = 2`")


class Three:
    """An implementation with three mutants."""

    digest = "source"

    def __init__(self):
        self.tested = []

    def mutants(self):
        return [whole(key, "") for key in "abc"]

    def test(self, mutant):
        self.tested.append(mutant.key)
        return {"a": ("killed", "x"), "b": ("alive", ""), "c": ("invalid", "")}[mutant.key]


def test_a_run_goes_on_where_it_stopped(tmp_path):
    file = tmp_path / "results"
    first = list(run("c", Three(), {}, 9, "kit"))
    text = "".join(json.dumps(line) + "\n" for line in first)
    file.write_text(text + '{"implementation": "c", "mut')  # interrupted
    rows = read(file)
    assert rows == first
    for source, kit, missing in (("source", "kit", ""), ("source", "other", "b"), ("other", "kit", "abc")):
        implementation = Three()
        implementation.digest = source
        known = {r["mutant"]: r for r in current(rows, "c", source, kit)}
        assert len(list(run("c", implementation, known, 9, kit))) == len(missing)
        assert sorted(implementation.tested) == sorted(missing)


def test_no_more_mutants_than_asked_for():
    assert [r["state"] for r in run("c", Three(), {}, 1, "kit")].count("killed") <= 1


def test_the_table_counts_what_is_explained():
    rows = [
        {"implementation": "c", "mutant": key, "state": state, "digest": digest}
        for key, state, digest in [
            ("old", "alive", "1"), ("f: x", "alive", "2"), ("f: y", "alive", "2"), ("f: z", "killed", "2"),
            ("f: w", "invalid", "2"),
        ]
    ]  # fmt: skip
    states = latest(map(json.dumps, rows))
    explained = reasons("| c | f: x | it only saves work |\n| c | f: y |  |\n")
    assert explained == {("c", "f: x")}
    assert row("c", states, explained) == "| C | 3 | 1 | 33.3 % | 1 | 1 |"
    assert row("js", states, explained) == ""


def test_an_implementation_that_was_not_run_again_keeps_its_line():
    line = "| JavaScript | 3 | 1 | 33.3 % | 1 | 1 |"
    assert former("js", f"text\n| C | 9 | 9 | 100.0 % | 0 | 0 |\n{line}\n") == line
    assert former("js", "") == "| JavaScript | not run | not run | not run | not run | not run |"
