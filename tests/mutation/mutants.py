"""
Which small mistakes can be made in a module, and the module with one of them in it.

The operators are the classical ones (DeMillo, Lipton, Sayward 1978): another comparison, another
operator, a number that is off by one, a condition the other way round, a call that is not made.
What is text for people, or for the type checker, is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}

NOT_MISSED = {"debug", "info", "warn", "error", "count", "raise_alert"}
"""Calls that only tell people something."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake: where it is, what it is, and the whole module with it."""

    line: int
    what: str
    source: str


@dataclass(frozen=True, slots=True)
class _Change:
    line: int
    what: str
    make: Callable[[], None]
    undo: Callable[[], None]


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mistake that can be made in a module, in the order of its lines."""
    tree = ast.parse(source)
    for change in sorted(_changes(tree), key=lambda one: one.line):
        change.make()
        try:
            yield Mutant(change.line, change.what, ast.unparse(ast.fix_missing_locations(tree)))
        finally:
            change.undo()


def _changes(tree: ast.Module) -> Iterator[_Change]:
    for node in _code(tree):
        match node:
            case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
                other = COMPARISONS[type(operator)]()
                yield _swap(node, node, "ops", [other], f"{_name(operator)} -> {_name(other)}")
            case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(
                operator
            ) in OPERATORS and not _is_text(node):
                other = OPERATORS[type(operator)]()
                yield _swap(node, node, "op", other, f"{_name(operator)} -> {_name(other)}")
            case ast.BoolOp(op=operator):
                other = ast.Or() if isinstance(operator, ast.And) else ast.And()
                yield _swap(node, node, "op", other, f"{_name(operator)} -> {_name(other)}")
            case ast.Constant(value=bool() as value):
                yield _swap(node, node, "value", not value, f"{value} -> {not value}")
            case ast.Constant(value=int() as value):
                yield _swap(node, node, "value", value + 1, f"{value} -> {value + 1}")
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                yield _swap(test, node, "test", _negated(test), "condition the other way round")
        for field in ("body", "orelse", "finalbody"):
            yield from _left_out(getattr(node, field, None))


def _left_out(block: object) -> Iterator[_Change]:
    """Yield the statements of a block without which it would still be one."""
    if not isinstance(block, list):
        return
    for at, statement in enumerate(block):
        match statement:
            case ast.Expr(value=ast.Call() | ast.Await()) if not _tells(statement):
                yield _put(block, at, ast.Pass(), f"without {ast.unparse(statement)[:50]}")
            case ast.Continue():
                yield _put(block, at, ast.Break(), "continue -> break")
            case ast.Break():
                yield _put(block, at, ast.Continue(), "break -> continue")


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that do something: no annotations, no text, no type checking."""
    for name, child in ast.iter_fields(tree):
        for node in child if isinstance(child, list) else [child]:
            if not isinstance(node, ast.AST) or name in {"annotation", "returns", "type_params"}:
                continue
            if isinstance(node, ast.JoinedStr | ast.Assert) or _is_for_types(node):
                continue
            if isinstance(node, ast.Expr) and _tells(node):
                continue
            if _is_dataclass(node):
                continue
            yield node
            yield from _code(node)


def _is_for_types(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _is_dataclass(node: ast.AST) -> bool:
    """Whether it is a decorator that says how a class keeps its fields: frozen, in slots."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "dataclass"
    )


def _is_text(node: ast.AST) -> bool:
    return any(
        isinstance(one, ast.JoinedStr) or (isinstance(one, ast.Constant) and _is_str(one.value))
        for one in ast.walk(node)
    )


def _is_str(value: object) -> bool:
    return isinstance(value, str)


def _tells(statement: ast.Expr) -> bool:
    call = statement.value
    function = getattr(call.value if isinstance(call, ast.Await) else call, "func", None)
    return isinstance(function, ast.Attribute) and function.attr in NOT_MISSED


def _negated(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(op=ast.Not(), operand=test)


def _swap(place: ast.AST, node: ast.AST, field: str, new: object, what: str) -> _Change:
    old = getattr(node, field)
    line = getattr(place, "lineno", 0)
    return _Change(
        line, what, lambda: setattr(node, field, new), lambda: setattr(node, field, old)
    )


def _put(block: list[ast.stmt], at: int, new: ast.stmt, what: str) -> _Change:
    old = block[at]
    return _Change(
        old.lineno, what, lambda: block.__setitem__(at, new), lambda: block.__setitem__(at, old)
    )


def _name(operator: ast.AST) -> str:
    return type(operator).__name__
