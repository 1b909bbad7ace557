"""The mistakes that are made, and what is left alone."""

from __future__ import annotations

import ast

from tests.mutation.mutants import mutants

SOURCE = '''
"""Text 1."""

def f(number: int, pieces: list[int]) -> int:
    """Text 2."""
    if number < 3 and pieces:
        pieces.clear()
    for one in pieces:
        if not one:
            continue
        number += one
    log.info("was %d", 7)
    assert number > 4
    return number

@dataclass(frozen=True, slots=True)
class C:
    """Text 3."""
'''


def test_every_kind_of_mistake_is_made_once_where_it_can_be() -> None:
    made = [(one.line, one.what) for one in mutants(SOURCE)]
    assert made == [
        (6, "condition the other way round"),
        (6, "And -> Or"),
        (6, "Lt -> LtE"),
        (6, "3 -> 4"),
        (7, "without pieces.clear()"),
        (9, "condition the other way round"),
        (10, "continue -> break"),
        (11, "Add -> Sub"),
    ]


def test_each_has_one_mistake_and_is_a_module() -> None:
    good = ast.unparse(ast.parse(SOURCE))
    sources = [one.source for one in mutants(SOURCE)]
    assert len(set(sources)) == len(sources)
    for source in sources:
        ast.parse(source)
        changed = [
            a for a, b in zip(good.splitlines(), source.splitlines(), strict=True) if a != b
        ]
        assert len(changed) == 1
