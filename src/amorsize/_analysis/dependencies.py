"""
What a function can reach: one look at its code and at the objects that code names, shared by all that ask.

    function ──► names in its code ──► globals, closures, defaults, bound objects, attributes of modules
                       ▲                        │
                       └── code of helpers, ◄───┴──► objects: harmless, state, or unknown
                           methods, classes

Who asks: whether workers may be forked (everything reached is harmless), what is watched while the sample runs (what is
reached and can change), what must travel with the function to workers that import its modules anew, and whether the
profile of an earlier call still holds.

By allow-list: a type that nobody has described is unknown, and an opcode or a builtin that can reach anything makes the
whole unknown, as does running out of the budget. Looks at code and values only: calls nothing it looks at, imports
nothing. Ordinary functions take 20 to 100 us.
"""

from __future__ import annotations

import atexit
import functools
import types
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.bytecode import imports_of
from amorsize._analysis.effects import Effects, effects_of
from amorsize._analysis.items import Part, parts_of_items
from amorsize._analysis.reached import Found, Reached, Walk, shape
from amorsize._analysis.values import ABSENT
from amorsize._analysis.walk import enter
from amorsize._attribute import is_of, module_of
from amorsize._modules import absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


# What the documentation calls types whose own names say where CPython has them.
_DOCUMENTED: Final = {"_thread._local": "threading.local", "_thread.lock": "threading.Lock"}


class Dependencies(Reached):
    """What a function can reach, and what its code changes."""

    def __init__(self, func: Callable[..., Any], parts: dict[tuple[Any, ...], Part], effects: Effects) -> None:
        super().__init__()
        self.func = func
        # What its items are, or hold, by what tells one part from another.
        self.parts = parts
        self.effects = effects
        # Names of containers and arrays that its code names directly, and does not change.
        self.reads_mutable: tuple[str, ...] = ()

    @property
    def needs_watching(self) -> bool:
        """Whether only running items can tell if they change anything: the code alone does not."""
        return not self.effects.changes and not (self.effects.is_proved and self.is_closed)

    @functools.cached_property
    def packages(self) -> frozenset[str]:
        """The packages that its code imports, and those of what it names, or reaches and can change."""
        values = [value for _, _, value in self.bindings] + [one.value for one in self.mutable]
        imported = {
            absolute(name, func.__globals__).partition(".")[0]
            for func in self.functions for name in imports_of(func.__code__)
        }  # fmt: skip
        return frozenset(imported).union(*map(packages_of, values))

    @functools.cached_property
    def modules(self) -> frozenset[str]:
        """The modules that it, its helpers and the kinds of its items are of, and those of what it names."""
        values = [value for _, _, value in self.bindings] + [part.value for part in self.parts.values()]
        helpers = {str(helper.__module__) for helper in self.functions}
        return frozenset(helpers).union(*map(_modules_of, values))

    def may_draw(self, items: Iterable[Any]) -> bool:
        """Tell whether a library that it reaches, or of its items, may draw from a generator that all share."""
        return not inert.DRAWING.isdisjoint(self.packages.union(*map(packages_of, items)))

    @property
    def is_closed(self) -> bool:
        """Whether everything it can reach is known to be harmless in a forked copy."""
        return self.is_complete and not self.shared and not self.unknown

    @property
    def open_names(self) -> tuple[str, ...]:
        """What forbids a fork, in words."""
        return tuple(dict.fromkeys(self._words(found) for found in (*self.shared, *self.unknown)))

    def _words(self, found: Found) -> str:
        """Say what was found in words that the user wrote: not in the names of a library's decorator for its own."""
        why = _DOCUMENTED.get(found.why, found.why)
        for variable, decorated in self.decorators.items():
            if found.path == variable or found.path.startswith(f"{variable}."):
                return f"what the decorator of {decorated} keeps ({why})"
        return f"{found.path} ({why})"

    def holds(self) -> bool:
        """
        Tell whether names still mean the same objects, functions have their code, and containers are as they were.

        No module that its code imports has come since, either.
        A name that means another number or text reaches nothing else than before.
        """
        for names, name, value in self.bindings:
            now = names.get(name, ABSENT)
            if now is not value and not (type(now) is type(value) and type(now) in inert.SCALARS):
                return False
        for names, name, key, kind in self.held:
            now = names.get(name, ABSENT)
            if id(now) != key and not (type(now) is kind and kind in inert.SCALARS):
                return False
        for func, code, defaults, by_name in self.codes:
            if func.__code__ is not code or func.__defaults__ is not defaults or func.__kwdefaults__ is not by_name:
                return False
        return all(shape(value) == before for value, before in self.shapes) and not self.effects.is_overtaken


def dependencies(func: Callable[..., Any], parts: dict[tuple[Any, ...], Part] | None = None) -> Dependencies:
    """Look at what a callable can reach; *parts* are what its items are, or hold."""
    parts = parts or {}
    found = Dependencies(func, parts, effects_of(func, (*parts.values(),)))
    walk = Walk(found)
    walk.names |= found.effects.names
    for part in parts.values():
        walk.visit("an item", part.value)
    for module in found.effects.modules:
        if module.__name__ not in inert.GENERATORS and not inert.is_inert(module.__name__):
            walk.visit(module.__name__, module)
    enter(walk, func)
    effects = found.effects = _with_hidden(found.effects, walk)
    found.reads_mutable = tuple(sorted(walk.reads_mutable.keys() - {*effects.changes}))
    if not found.is_complete:
        found.unknown.append(Found("more than can be looked through", None, "a part was looked at"))
    elif effects.is_cut_short:
        found.unknown.append(Found("its code", None, "there is more than is followed"))
    elif effects.reaches_any_module:
        found.unknown.append(Found("a module", None, "which one is known at run time only"))
    return found


def _with_hidden(effects: Effects, walk: Walk) -> Effects:
    """
    Count what is set in objects that were not met as changes.

    Code has them in a way that only following it shows: nobody watches them, and no worker is given them.
    """
    met = walk.seen.keys() | {id(func.__globals__) for func in walk.reached.functions}
    hidden = {name or "what it finds" for key, name in effects.setters.items() if key not in met}
    return replace(effects, changes=tuple(sorted({*effects.changes, *hidden}))) if hidden else effects


# The latest look at each function, by the identity of its code; one per function, replaced whole.
_known: dict[tuple[int, int], Dependencies] = {}

# It holds functions, and with them all globals of the program: their objects would outlive its end, and no ``__del__``
# of theirs be called.
atexit.register(_known.clear)


def known_dependencies(func: Callable[..., Any], items: Sequence[Any] = ()) -> Dependencies:
    """
    Return what a callable can reach, from the latest look at it where nothing it names has changed since.

    *items* are some of those it is to be given, as far as they are known; if none are, those of the latest look count.
    """
    # A bound method is a new object each time it is asked for.
    key = (id(func.__func__), id(func.__self__)) if is_of(func, types.MethodType) else (id(func), 0)
    found = _known.get(key)
    if found is not None and not _is_same(found.func, func):
        found = None
    known = {} if found is None else found.parts
    parts = parts_of_items(items)
    is_covered = parts.keys() <= known.keys()
    # What items of other kinds change, these may not.
    is_meant = not items or parts.keys() == known.keys() or (found is not None and found.effects.is_proved)
    if found is not None and is_covered and is_meant and found.holds():
        return found
    if len(_known) >= bounds.MOST_KNOWN:
        _known.clear()  # never iterated over: other threads may look at functions meanwhile
    found = _known[key] = dependencies(func, known if is_covered and is_meant else parts)
    return found


def packages_of(value: Any) -> set[str]:
    """Return the packages of a value's class, and of a module, function or class itself."""
    return {name.partition(".")[0] for name in _modules_of(value)}


def _modules_of(value: Any) -> set[str]:
    """Return the modules of a value's class, and of a module, function or class itself."""
    names = {module_of(type(value))}
    if is_of(value, types.ModuleType):
        names.add(value.__name__)
    elif is_of(value, types.FunctionType):
        names.add(str(value.__module__))
    elif is_of(value, type):
        names.add(module_of(value))
    return names


def _is_same(one: Any, other: Any) -> bool:
    if is_of(one, types.MethodType) and is_of(other, types.MethodType):
        return one.__func__ is other.__func__ and one.__self__ is other.__self__
    return one is other
