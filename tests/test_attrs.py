# ruff: noqa: D101, D103 - the small functions and classes are named for what they do
"""Classes of attrs: the code that it writes for them is followed; what that notes for a thread is attrs' own."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from amorsize._analysis.effects import effects_of

SHOWN: list[int] = []


class Counted:
    def __repr__(self) -> str:
        SHOWN.append(1)
        return "counted"


@attrs.define
class Pair:
    x: Any
    y: int = 0


@attrs.define
class Tree:
    children: list[Any] = attrs.field(factory=list)


HELD, TREE = Pair(Counted()), Tree()
TREE.children.append(TREE)


def as_dictionary(x: int) -> Any:
    return attrs.asdict(Pair(x))


def as_text(x: int) -> Any:
    return str(Pair(x)), repr([Pair(x)])


def compares(x: int) -> Any:
    return Pair(x) == Pair(1), attrs.evolve(Pair(1), x=x)


def shows_a_circle(_x: int) -> str:
    return repr(TREE)


def shows_what_is_held(_x: int) -> str:
    return repr(HELD)


def shows_what_is_made(_x: int) -> str:
    return repr(Pair(Counted()))


@pytest.mark.parametrize("func", [as_dictionary, as_text, compares, shows_a_circle], ids=lambda func: func.__name__)
def test_what_attrs_writes_is_proved(func: Any) -> None:
    """It ran serially, for a change of `_compat`."""
    found = effects_of(func)
    assert found.is_proved
    assert not found.by_seed


@pytest.mark.parametrize("func", [shows_what_is_held, shows_what_is_made], ids=lambda func: func.__name__)
def test_what_a_field_does_as_it_is_shown_is_followed(func: Any) -> None:
    """Fields are the program's."""
    assert "SHOWN" in effects_of(func).changes
