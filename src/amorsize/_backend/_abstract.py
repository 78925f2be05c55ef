"""
Classes that the program has registered as virtual subclasses of abstract ones: workers register them, too.

    collections.abc.Sized.register(Mine)    shapes.Shape.register(int)

Not those of modules that the function has nothing to do with: a worker would import them for that. Abstract classes of
``__main__`` travel with what is registered.
"""

from __future__ import annotations

import abc
import atexit
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize import _analysis
from amorsize._attribute import module_of
from amorsize._backend import _unfound
from amorsize._outside import suppressed

if TYPE_CHECKING:
    from amorsize._analysis import Dependencies

_Pair = tuple[Any, type]

# Modules of the library with classes that programs register with.
_LIBRARY: Final = ("collections.abc", "numbers", "io", "os", "contextlib")

# What was registered when the latest of all registrations had this number.
_latest: tuple[object, tuple[_Pair, ...]] = (None, ())


def read(_: Any, known: Dependencies) -> list[_Pair]:
    """Return what is registered of the classes of the function's modules, and with them."""
    pairs = _registered()
    if not pairs:
        return []
    modules = {"__main__", *_modules_of(known)}
    return [
        (kind, member)
        for kind, member in pairs
        if all(_analysis.is_inert_package(name) or name in modules for name in map(module_of, (kind, member)))
    ]


def enter(_: Any, pairs: list[_Pair]) -> None:
    """Register it in a worker; what is there already is not registered again."""
    for kind, member in pairs:
        kind.register(member)


def _registered() -> tuple[_Pair, ...]:
    """Return the abstract classes and the classes that a program has registered with them, one of both its own."""
    global _latest  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    token = abc.get_cache_token()
    if _latest[0] != token:
        own = {"__main__", *_unfound.own_modules()}
        _latest = (
            token,
            tuple(
                (kind, member)
                for name in (*_LIBRARY, *_unfound.own_modules())
                for kind in list(getattr(sys.modules.get(name), "__dict__", {}).values())
                if issubclass(type(kind), abc.ABCMeta)
                for member in _members(kind)
                if not own.isdisjoint((module_of(kind), module_of(member)))
            ),
        )
    return _latest[1]


def _forget() -> None:
    """Let go of the program's classes, and with them all globals of the main module: its end finalizes those."""
    global _latest  # noqa: PLW0603 - a cache of one tuple
    _latest = None, ()


atexit.register(_forget)


def _members(kind: Any) -> list[type]:
    with suppressed():  # interpreters that keep them elsewhere
        dump: Any = vars(abc)["_get_dump"]
        return [member for one in dump(kind)[0] if (member := one()) is not None]
    return []


def _modules_of(known: Dependencies) -> set[str]:
    """Return the modules whose functions and classes a function names, or that are in its items."""
    values = [value for _, _, value in known.bindings] + [part.value for part in known.parts.values()]
    names = {str(helper.__globals__.get("__name__")) for helper in known.functions}
    names |= {value.__name__ for value in values if type(value) is types.ModuleType}
    return names | {module_of(value) for value in values if issubclass(type(value), type)}
