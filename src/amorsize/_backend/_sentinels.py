"""
Objects that stand for nothing but themselves, and are compared with ``is``: one here is one in every process.

    MISSING = object()                       in a module: goes by the module and the name
    class _Unset: ...; UNSET = _Unset()      in the module of its class, and without a state: too

A plain pickle makes another object of it, and ``x is MISSING`` would no longer hold: in items, in results, in what a
function holds. What a worker is given of a module that it does not have (of ``__main__``) it keeps under its name, so
that it comes home as the caller's own.
"""

from __future__ import annotations

import atexit
import copyreg
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from amorsize import _analysis
from amorsize._backend import _unfound
from amorsize._outside import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable

_Name = tuple[str, str]

# What was given to this process by modules of its caller, and the classes of it.
_given: Final[dict[_Name, object]] = {}
_given_kinds: Final[dict[type, Callable[[Any], Any]]] = {}

# Where objects without a class of their own stand, by their identity, and what tells that this may have changed.
_latest: tuple[tuple[int, int], dict[int, _Name]] = ((0, 0), {})

# The same of objects of classes of the program's own modules.
_kinds: tuple[tuple[int, int, int], dict[type, Callable[[Any], Any]]] = ((0, 0, 0), {})


def dispatch_table() -> dict[type, Callable[[Any], Any]]:
    """Return the table for a pickler, with which such objects go by name."""
    return {**copyreg.dispatch_table, object: _plainly, **_own_kinds(), **_given_kinds}


def reduced(obj: Any) -> tuple[Any, ...] | None:
    """Say how to pickle such an object, None for any other."""
    kind: Any = type(obj)
    if kind is object:
        return _plainly(obj)
    if not _has_no_state(obj, kind):
        return None
    name = next((name for name, value in _given.items() if value is obj), None)
    if name is None:
        names = list(_names(kind.__module__).items())
        name = next(((kind.__module__, name) for name, value in names if value is obj), None)
    return None if name is None else (_mark, (*name, kind))


def _own_kinds() -> dict[type, Callable[[Any], Any]]:
    """Return the classes of the program's modules which such objects are of; kept until there are more names."""
    global _kinds  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    # A forked copy looks again: what has another meaning in the main module by now is looked at once more there.
    key = id(_unfound.own_modules()), len(_names("__main__")), os.getpid()
    if _kinds[0] != key:
        modules = ("__main__", *_unfound.own_modules())
        values = [(module, value) for module in modules for value in list(_names(module).values())]
        own = [value for module, value in values if type(value).__module__ == module]
        _kinds = key, {type(value): _marked for value in own if _has_no_state(value, type(value))}
    return _kinds[1]


def _forget() -> None:
    """Let go of the program's classes, and with them all globals of the main module: its end finalizes those."""
    global _kinds  # noqa: PLW0603 - a cache of one tuple
    _kinds = (0, 0, 0), {}
    _given_kinds.clear()
    _given.clear()


atexit.register(_forget)


def _marked(obj: Any) -> Any:
    return reduced(obj) or obj.__reduce_ex__(5)


def _has_no_state(obj: Any, kind: Any) -> bool:
    """Tell whether an object is like any other of its class; runs none of the program's code."""
    ways = ("__reduce__", "__reduce_ex__", "__getstate__")
    if not _analysis.is_python_class(kind) or isinstance(obj, type):
        return False
    if any(getattr(kind, way) is not getattr(object, way) for way in ways):
        return False
    try:
        made: Any = object.__reduce_ex__(obj, 2)
    except TypeError:  # what its class is built on cannot be pickled
        return False
    return bool(made == (copyreg.__newobj__, (kind,), None, None, None))  # type: ignore[attr-defined]


def _mark(module: str, name: str, kind: Any) -> Any:
    """Return the object of a class that a module has under a name, and one of this process's own where it has none."""
    for found in (_given.get((module, name)), _found(module, name)):
        if type(found) is kind and _has_no_state(found, kind):
            return found
    _given_kinds[kind] = _marked
    try:
        made: Any = object.__new__(kind)  # its own __new__ may allow for one only
    except TypeError:  # it is built on a class in C
        made = kind.__new__(kind)
    _given[module, name] = made
    return made


def _plainly(obj: object) -> tuple[Any, ...]:
    name = _name_of(obj)
    return (object, ()) if name is None else (_named, name)


def _name_of(obj: object) -> _Name | None:
    for name, value in _given.items():
        if value is obj:
            return name
    found = _index().get(id(obj))
    if found is not None and _names(found[0]).get(found[1]) is obj:
        return found
    # One that the program has put under a name that there was before.
    names = ((module, name) for module in ("__main__", *_unfound.own_modules()) for name in list(_names(module)))
    return next(((module, name) for module, name in names if _names(module).get(name) is obj), None)


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
    found = _found(module, name)
    return found if type(found) is object else _given.setdefault((module, name), object())


def _found(module: str, name: str) -> Any:
    if module != "__main__":
        with suppressed():  # whatever a module raises when it is imported
            importlib.import_module(module)
    return _names(module).get(name)
