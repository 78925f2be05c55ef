"""Context managers: what entering, leaving and closing them runs, in ``with`` statements and for ``contextlib``."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import inert
from amorsize._analysis.attributes import attr
from amorsize._analysis.special import special
from amorsize._analysis.values import (
    ABSENT,
    EXACT,
    FRESH,
    Ref,
    Value,
    all_of,
    cell_value,
    class_attribute,
    exactly,
    union,
)
from amorsize._attribute import is_of

if TYPE_CHECKING:
    from amorsize._analysis.look import Look

_ENTERS: Final = ("__enter__", "__aenter__")
_LEAVES: Final = ("__exit__", "__aexit__")

# Methods of contextlib's stacks that enter what they are given, and that only leave it.
_ENTERING: Final = frozenset(["enter_context", "enter_async_context"])
_PUSHING: Final = frozenset(["push", "push_async_exit"])

# What contextlib calls on what it is to close.
_CLOSERS: Final = {"closing": "close", "aclosing": "aclose"}


def enter(look: Look, manager: Value) -> Value:
    """Enter and leave a context manager; returns what entering it gives."""
    entered = _awaited(look, special(look, manager, *_ENTERS))
    leave(look, manager)
    return entered


def leave(look: Look, manager: Value) -> None:
    """Leave a context manager."""
    _awaited(look, special(look, manager, *_LEAVES))


def _awaited(look: Look, value: Value) -> Value:
    """Follow what is awaited of what an asynchronous method returns, where that is an object of its own."""
    return union(value, special(look, value, "__await__"))


def manage(look: Look, name: str, args: list[Value], keywords: dict[str, Value]) -> Value:
    """Follow what contextlib does with the context managers, and with what is to be closed, that it is given."""
    given = all_of(args, keywords)
    if name in _ENTERING:
        return enter(look, given)
    if name in _PUSHING:
        leave(look, given)
    elif name in _CLOSERS:
        _awaited(look, look.call(attr(look, given, _CLOSERS[name]), [], {}))
    return FRESH


def enter_for_wrapper(look: Look, func: types.FunctionType, root: str) -> None:
    """Follow the context manager that contextlib's wrapper of a function enters for each call of it."""
    for cell in func.__closure__ or ():
        held: Any = cell_value(cell)
        if held is ABSENT or not inert.is_python_class(type(held)):
            continue
        me = exactly(held, root)
        recreate = class_attribute(type(held), "_recreate_cm")
        if is_of(recreate, types.FunctionType) and not inert.is_inert(inert.code_module(recreate)):
            me = union(me, look.call((Ref(EXACT, recreate, root),), [me], {}))
        enter(look, me)
