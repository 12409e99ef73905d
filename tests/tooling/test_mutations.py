"""The faults that the mutation test makes: each is another program, and each is in code that runs."""

import ast

from mutation_table import explanations, former, latest
from mutations import mutants

SOURCE = '''
LIMIT = 5

class Box:
    @property
    def size(self, least: "int | None" = 3) -> int:
        """Text with 7 in it."""
        if self.n < 2 and not self.empty:
            raise ValueError(f"{self.n + 1} is too small")
        self.seen[0] = True
        return min(self.n, 8)
'''

EXPECTED = [
    "`if self.n < 2 and (not self.empty):` becomes `if not (self.n < 2 and (not self.empty)):`",
    "`if self.n < 2 and (not self.empty):` becomes `if self.n < 2 or not self.empty:`",
    "`if self.n < 2 and (not self.empty):` becomes `if self.n <= 2 and (not self.empty):`",
    "`if self.n < 2 and (not self.empty):` becomes `if self.n < 3 and (not self.empty):`",
    "`if self.n < 2 and (not self.empty):` becomes `if self.n < 2 and self.empty:`",
    "`raise ValueError(f'{self.n + 1} is too small')` becomes `pass`",
    "`self.seen[0] = True` becomes `pass`",
    "`self.seen[0] = True` becomes `self.seen[1] = True`",
    "`self.seen[0] = True` becomes `self.seen[0] = False`",
    "`return min(self.n, 8)` becomes `return max(self.n, 8)`",
    "`return min(self.n, 8)` becomes `return min(self.n, 9)`",
]


def test_each_mutant_is_another_program_with_one_fault(tmp_path):
    path = tmp_path / "box.py"
    path.write_text(SOURCE)
    made = list(mutants(path))
    assert sorted(m.change for m in made) == sorted(EXPECTED)
    assert {m.where for m in made} == {"Box.size"}
    programs = {ast.unparse(m.tree) for m in made}
    assert len(programs) == len(made)
    assert ast.unparse(ast.parse(SOURCE)) not in programs
    for mutant in made:
        compile(mutant.tree, "box.py", "exec")


def test_equal_changes_in_one_function_are_numbered(tmp_path):
    path = tmp_path / "twice.py"
    path.write_text("def f(a):\n    g(a)\n    g(a)\n")
    assert [m.key for m in mutants(path)] == ["f: `g(a)` becomes `pass`", "f: `g(a)` becomes `pass` (no. 2)"]


def test_results_of_older_versions_do_not_count():
    lines = [
        '{"module": "a.py", "mutant": "f: x", "digest": "1", "tests": "1", "alive": "no test fails"}',
        '{"module": "a.py", "mutant": "f: y", "digest": "2", "tests": "1", "alive": "no test fails"}',
        '{"module": "a.py", "mutant": "f: y", "digest": "2", "tests": "2", "killed": "test_y"}',
    ]
    assert latest(lines) == {("a.py", "f: y"): False}


def test_a_row_without_a_reason_explains_nothing():
    document = "| `a.py` | f: `x \\| y` becomes `x & y` | the same |\n| `b/c.py` | g: `x` becomes `y` |  |\n"
    assert explanations(document) == {("a.py", "f: `x \\| y` becomes `x & y`")}


def test_a_module_that_was_not_run_keeps_its_row():
    row = "| format/rans.py | 112 | 101 | 11 | 0 | 1234567 |"
    document = f"{row}\n| sums/exact.py | 1 | 1 | 0 | 0 | 1234567 |\n"
    assert former("format/rans.py", document) == row
    assert former("face/keys.py", document) == f"| face/keys.py |{' not run |' * 5}"
