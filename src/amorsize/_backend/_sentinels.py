"""
Objects that stand for nothing but themselves, and are compared with ``is``: one here is one in every process.

    MISSING = object()                       in a module: goes by the module and the name
    class _Unset: ...; UNSET = _Unset()      the only ones of a class without a state, in that class's module: too

A plain pickle makes another object of it, and ``x is MISSING`` would no longer hold: in items, in results, in what a
function holds. What a worker is given of a module that it does not have (of ``__main__``) it keeps under its name, so
that it comes home as the caller's own.
"""

from __future__ import annotations

import copyreg
import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

from amorsize._backend import _unfound
from amorsize._outside import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable

_Name = tuple[str, str]

# What was given to this process by modules of its caller.
_given: Final[dict[_Name, object]] = {}

# Where objects without a class of their own stand, by their identity, and what tells that this may have changed.
_latest: tuple[tuple[int, int], dict[int, _Name]] = ((0, 0), {})


def dispatch_table() -> dict[type, Callable[[Any], Any]]:
    """Return the table for a pickler, with which such objects of no class of their own go by name."""
    return {**copyreg.dispatch_table, object: _plainly}


def reduced(obj: Any) -> tuple[Any, ...] | None:
    """Say how to pickle such an object, None for any other."""
    kind: Any = type(obj)
    if kind is object:
        return _plainly(obj)
    if kind.__reduce__ is not object.__reduce__ or kind.__module__ in {"__main__", "__mp_main__"}:
        return None
    if kind.__module__ in _unfound.unfound():
        return None
    name = next((name for name, value in _names(kind.__module__).items() if value is obj), None)
    if name is None or obj.__reduce_ex__(2) != (copyreg.__newobj__, (kind,), None, None, None):  # type: ignore[attr-defined]
        return None
    return _named, (kind.__module__, name)


def _plainly(obj: object) -> tuple[Any, ...]:
    name = _name_of(obj)
    return (object, ()) if name is None else (_named, name)


def _name_of(obj: object) -> _Name | None:
    for name, value in _given.items():
        if value is obj:
            return name
    found = _index().get(id(obj))
    return found if found is not None and _names(found[0]).get(found[1]) is obj else None


def _index() -> dict[int, _Name]:
    """Return where such objects stand: 5 ms in a program of a thousand modules, kept until there are more."""
    global _latest  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    key = len(sys.modules), len(_names("__main__"))
    if _latest[0] != key:
        found: dict[int, _Name] = {}
        for module in list(sys.modules):
            for name, value in list(_names(module).items()):
                if type(value) is object:
                    found.setdefault(id(value), (module, name))
        _latest = key, found
    return _latest[1]


def _names(module: str) -> dict[str, Any]:
    names = getattr(sys.modules.get(module), "__dict__", None)
    return names if type(names) is dict else {}


def _named(module: str, name: str) -> Any:
    """Return what a module has under a name, and something of its own where there is no such module."""
    given = _given.get((module, name))
    if given is not None:
        return given
    if module != "__main__":
        with suppressed():  # whatever a module raises when it is imported
            return getattr(importlib.import_module(module), name)
    found = _names(module).get(name)
    return found if type(found) is object else _given.setdefault((module, name), object())
