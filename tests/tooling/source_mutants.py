"""Small faults in a program of C or JavaScript, one at a time, found in its tokens.

The two languages share the tokens that matter here. A fault changes a comparison, an operator or a constant,
turns a condition round, or removes a statement. Text outside of functions and preprocessor lines stays, and
so do the arguments of errors: texts and positions, which the line protocol does not carry. A fault may give a
program that does not compile, which is no mutant.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*|/\*.*?\*/|(?<![^\n])[ ]*\#(?:[^\n]*\\\n)*[^\n]*)
    |(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`
        |(?:(?<=[(,=:!&|?{};])|(?<=[(,=:!&|?{};]\ ))/(?![/*])(?:\\.|[^/\\\n])+/[a-z]*)
    |(?P<number>0[xX][0-9a-fA-F_]+[uUlLn]*|[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?[fuUlLn]*)
    |(?P<name>[A-Za-z_$][\w$]*)
    |(?P<sign>>>>=|<<=|>>=|===|!==|\*\*=|>>>|\.\.\.|&&=|\|\|=|\?\?=|<<|>>|<=|>=|==|!=|&&|\|\||\?\?|\?\.|=>|->|\+\+|--|\*\*
        |\+=|-=|\*=|/=|%=|&=|\|=|\^=|.)
    """,
    re.VERBOSE | re.DOTALL,
)
SWAPS = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "===": "!==", "!==": "===",
    "+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "<<": ">>", ">>": "<<", ">>>": "<<",
    "&": "|", "|": "&", "^": "|", "&&": "||", "||": "&&", "++": "--", "--": "++",
    "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "&=": "|=", "|=": "&=", "^=": "|=",
    "<<=": ">>=", ">>=": "<<=",
}  # fmt: skip
UNARY_TOO = ("+", "-", "*", "&", "<", ">")
"""Operators that need an operand before them to be those of two operands."""

KEPT = {
    "if", "for", "while", "do", "else", "switch", "case", "default", "const", "let", "var", "function",
    "class", "export", "import", "static", "typedef", "struct", "enum", "union", "unsigned", "signed", "int",
    "long", "char", "short", "float", "double", "void", "size_t", "get", "set", "try", "catch", "finally",
    "goto",
}  # fmt: skip
"""First words of what is no statement that can be removed; names that end in _t are types too."""


HEAD = re.compile(
    r"^(?:export )?(?:static )?(?:[\w*]+ +\**)+(\w+)\(|^(?:export )?(?:class|const) (\w+)"
    r"|^  (?:static )?#?(\w+)\(.*\{$",
    re.MULTILINE,
)
"""The first lines of functions, classes and methods."""


class Token(NamedTuple):
    """A token that is not space, with its place in the source and the number of open braces before it."""

    kind: str
    text: str
    at: int
    depth: int

    @property
    def end(self) -> int:
        """The place after the token."""
        return self.at + len(self.text)


@dataclass(frozen=True)
class SourceMutant:
    """A source with one fault; `key` shows the function, and the line before and after.

    The fault is `new` in the place of the characters `begin` to `end - 1` of the original.
    """

    key: str
    original: str
    begin: int
    end: int
    new: str

    @property
    def source(self) -> str:
        """The source with the fault."""
        return self.original[: self.begin] + self.new + self.original[self.end :]


def tokens(source: str) -> list[Token]:
    """The tokens of a source, without space, comments and preprocessor lines."""
    out, depth = [], 0
    for match in TOKEN.finditer(source):
        kind, text = str(match.lastgroup), match.group()
        if kind == "space":
            continue
        depth -= text == "}"
        out.append(Token(kind, text.strip(), match.end() - len(text.lstrip()), depth))
        depth += text == "{"
    return out


def mutants(source: str, errors: tuple[str, ...]) -> Iterator[SourceMutant]:
    """All mutants of a source, in the order of its text; calls of `errors` keep their arguments."""
    found, seen = tokens(source), Counter[str]()
    names = functions(source)
    for begin, end, new in sorted(set(changes(source, found, errors))):
        inside = bisect(names, begin, key=lambda head: head[0])
        key = f"{names[inside - 1][1]}: {shown(source, begin, end, new)}"
        seen[key] += 1
        number = f" (no. {seen[key]})" if seen[key] > 1 else ""
        yield SourceMutant(key + number, source, begin, end, new)


def changes(source: str, found: list[Token], errors: tuple[str, ...]) -> Iterator[tuple[int, int, str]]:
    """The place and the new text of each fault."""
    left_out = arguments(found, errors)
    for i, token in enumerate(found):
        if token.depth == 0 or i in left_out:
            continue
        before = found[i - 1]
        operand = before.kind in ("name", "number", "text") or before.text in (")", "]", "++", "--")
        operand &= before.text not in ("return", "case", "typeof", "throw", "in", "of")
        if token.kind == "number" and re.fullmatch(r"0[xX][0-9a-fA-F_]+[uUlLn]*|[0-9_]+[uUlLn]*", token.text):
            yield token.at, token.end, one_more(token.text)
        elif token.text in SWAPS and (operand or token.text not in UNARY_TOO):
            yield token.at, token.end, SWAPS[token.text]
        elif token.text == "!":
            yield token.at, token.end, ""
        elif token.text == "if" and found[i + 1].text == "(":
            close = closing(found, i + 1)
            inside = source[found[i + 1].end : found[close].at]
            yield found[i + 1].end, found[close].at, f"!({inside})"
        if before.text in (";", "{", "}", ")", "else") and (last := removable(found, i)) is not None:
            yield token.at, found[last].at, ""


def one_more(text: str) -> str:
    """The constant one larger, in its own base and with its suffix."""
    digits = re.match(r"0[xX][0-9a-fA-F_]+|[0-9_]+", text)
    assert digits is not None
    value = int(digits.group(), 16 if text[:2] in ("0x", "0X") else 10) + 1
    return (hex(value) if text[:2] in ("0x", "0X") else str(value)) + text[digits.end() :]


def closing(found: list[Token], i: int) -> int:
    """The position of the bracket that closes the one at `i`."""
    pairs, depth = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}, 0
    for k in range(i, len(found)):
        depth += pairs.get(found[k].text, 0)
        if depth == 0:
            return k
    raise ValueError(f"no bracket closes that at {found[i].at}")


def arguments(found: list[Token], errors: tuple[str, ...]) -> set[int]:
    """The positions of the tokens inside the arguments of calls of `errors`."""
    out: set[int] = set()
    for i, token in enumerate(found[:-1]):
        if token.text in errors and found[i + 1].text == "(":
            out |= set(range(i + 1, closing(found, i + 1)))
    return out


def removable(found: list[Token], i: int) -> int | None:
    """The position of the semicolon of a statement that begins at `i`; None if it cannot be removed."""
    first = found[i]
    if first.text in KEPT or first.text.endswith("_t"):
        return None
    if first.kind != "name" and first.text not in ("*", "++", "--"):
        return None
    k, acts = i, first.text in ("break", "continue", "return", "throw")
    while found[k].text not in (";", "{", "}", ")", "]"):
        acts |= found[k].text in ("(", "++", "--") or found[k].text in (
            "=",
            *(s for s in SWAPS if s.endswith("=")),
        )
        k = closing(found, k) + 1 if found[k].text in ("(", "[") else k + 1
    if found[k].text != ";" or not acts:
        return None
    two_names = found[i + 1].kind == "name" and first.text not in ("return", "throw")
    return None if two_names else k  # two names are a declaration


def functions(source: str) -> list[tuple[int, str]]:
    """The places of functions, methods and classes, and their names; the source begins outside of any."""
    found = [(head.end(), next(name for name in head.groups() if name)) for head in HEAD.finditer(source)]
    return [(0, ""), *found]


def shown(source: str, begin: int, end: int, new: str) -> str:
    """The line of the fault, before and after."""
    first, last = source.rfind("\n", 0, begin) + 1, source.find("\n", end)
    old = source[first:last]
    changed = source[first:begin] + new + source[end:last]
    return f"`{' '.join(old.split())}` becomes `{' '.join(changed.split())}`".replace("|", "\\|")
