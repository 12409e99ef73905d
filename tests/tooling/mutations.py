"""Small faults that a mutation test puts into a module, one at a time."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr, ast.Pow: ast.Mult, ast.Div: ast.Mult,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """A module with one fault: `where` names the function, `change` shows the code before and after.

    `line` is the function's first line; the fault is number `which` of those of node `place` in it.
    """

    where: str
    change: str
    path: Path
    line: int
    place: int
    which: int

    @property
    def tree(self) -> ast.Module:
        """The module with the fault."""
        tree = ast.parse(self.path.read_text())
        (function,) = (f for n, f in functions(tree, ()) if (n, f.lineno) == (self.where, self.line))
        node, _ = list(executed(function, function))[self.place]
        with changed(node, list(changes(node))[self.which], keep=True):
            return ast.fix_missing_locations(tree)

    @property
    def key(self) -> str:
        """Names the mutant in results and in the document; line numbers are left out, because they move."""
        return f"{self.where}: {self.change}"


def mutants(path: Path) -> Iterator[Mutant]:
    """All mutants of the functions of a module, in the order of its lines."""
    source = ast.parse(path.read_text())
    seen: Counter[str] = Counter()
    for name, function in functions(source, ()):
        for place, (node, statement) in enumerate(list(executed(function, function))):
            for which, fault in enumerate(list(changes(node))):
                before = first_line(statement)
                with changed(node, fault):
                    change = f"`{before}` becomes `{first_line(statement)}`"
                seen[name + change] += 1
                count = seen[name + change]
                numbered = change + (f" (no. {count})" if count > 1 else "")
                yield Mutant(name, numbered, path, function.lineno, place, which)


@contextmanager
def changed(node: ast.AST, fault: ast.AST, *, keep: bool = False) -> Iterator[None]:
    """Put a fault in the place of a node, which is as it was afterwards, unless the fault is kept."""
    kind, fields = node.__class__, dict(node.__dict__)
    node.__dict__.update(fault.__dict__)
    node.__class__ = fault.__class__
    yield
    if not keep:
        node.__class__ = kind
        node.__dict__.clear()
        node.__dict__.update(fields)


def first_line(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0].replace("|", "\\|")


def executed(node: ast.AST, statement: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Each node that runs with the function, and its statement; no annotations, defaults and f-strings."""
    yield node, statement
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "args") and not isinstance(node, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from executed(child, child if isinstance(child, ast.stmt) else statement)


def functions(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods with their qualified names; an inner function is part of the outer one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield ".".join((*names, child.name)), child
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, (*names, child.name))


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The node with one fault, in each way that this module knows."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            other = COMPARISONS[type(operator)]()
            yield ast.Compare(node.left, [*node.ops[:i], other, *node.ops[i + 1 :]], node.comparators)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        other = OPERATORS[type(node.op)]()
        fields = {name: getattr(node, name) for name in node._fields}
        yield type(node)(**{**fields, "op": other})
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield ast.Name(NAMES[node.id], node.ctx)
    elif isinstance(node, ast.Slice):
        if node.lower is not None:
            yield ast.Slice(None, node.upper, node.step)
        if node.upper is not None:
            yield ast.Slice(node.lower, None, node.step)
    elif isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif removable(node):
        yield ast.Pass()


def removable(node: ast.AST) -> bool:
    """Whether the function can go on without this statement: a raise, a call, an assignment to a part."""
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
    return isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
