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

import itertools
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import bounds, inert
from amorsize._analysis.effects import Effects, effects_of
from amorsize._analysis.values import ABSENT
from amorsize._analysis.walk import enter
from amorsize._analysis.walk.state import Found, Walk, shape
from amorsize._attribute import is_of, module_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


@dataclass(frozen=True, eq=False, match_args=False)
class Dependencies:
    """
    What a function can reach.

    Attributes:
        func: The function.
        parts: What its items are, or hold: classes, for their objects, and functions.
        effects: What its code changes.
        shared: What two processes must not share by fork: streams, locks, iterators, generators, handles.
        unknown: What cannot be told to be harmless.
        mutable: What can change, to be watched.
        bindings: Names in modules, closures and classes whose values it reads: holder, name, value.
        functions: The Python functions it can reach outside inert packages, itself included.
        settings: Module, name and value of what it reads from modules and classes: a fresh import may have others.
        reads_mutable: Names of containers and arrays that it names directly.
        is_complete: Whether all was looked at.
        held: Attributes and closure variables that it names: holder, name, identity and type of the value.
        shapes: Containers and namespaces of classes, how long they were, and what was in short containers.
        codes: Those functions with the code and the defaults that they had: a reload replaces these in place.
    """

    func: Callable[..., Any]
    parts: tuple[Any, ...]
    effects: Effects
    shared: tuple[Found, ...]
    unknown: tuple[Found, ...]
    mutable: tuple[Found, ...]
    bindings: tuple[tuple[dict[str, Any], str, Any], ...]
    functions: tuple[types.FunctionType, ...]
    settings: tuple[tuple[str, str, Any], ...]
    reads_mutable: tuple[str, ...]
    is_complete: bool
    held: tuple[tuple[Any, str, int, type], ...]
    shapes: tuple[tuple[Any, Any], ...]
    codes: tuple[tuple[types.FunctionType, types.CodeType, Any, Any], ...]

    @property
    def needs_watching(self) -> bool:
        """Whether only running items can tell if they change anything: the code alone does not."""
        return not self.effects.changes and not (self.effects.is_proved and self.is_closed)

    @property
    def is_closed(self) -> bool:
        """Whether everything it can reach is known to be harmless in a forked copy."""
        return self.is_complete and not self.shared and not self.unknown

    @property
    def open_names(self) -> tuple[str, ...]:
        """What forbids a fork, in words."""
        found = [*self.shared, *self.unknown]
        return tuple(dict.fromkeys(f"{f.path} ({f.why})" for f in found))

    def holds(self) -> bool:
        """
        Tell whether names still mean the same objects, functions have their code, and containers are as they were.

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
        return all(shape(value) == before for value, before in self.shapes)


def dependencies(func: Callable[..., Any], parts: tuple[Any, ...] = ()) -> Dependencies:
    """
    Look at what a function can reach.

    Args:
        func: Any callable.
        parts: What its items are, or hold: classes, for their objects, and functions.
    """
    walk = Walk()
    for part in parts:
        walk.visit("an item", part)
    enter(walk, func)
    effects = effects_of(func, parts)
    if not walk.is_complete:
        walk.unknown.append(Found("more than can be looked through", None, "a part was looked at"))
    elif effects.is_cut_short:
        walk.unknown.append(Found("its code", None, "there is more than is followed"))
    return Dependencies(
        func=func,
        parts=parts,
        effects=effects,
        shared=tuple(walk.shared),
        unknown=tuple(walk.unknown),
        mutable=tuple(walk.mutable),
        bindings=tuple(walk.bindings),
        functions=tuple(walk.functions),
        settings=tuple((module, name, value) for (module, name), value in walk.settings.items()),
        reads_mutable=tuple(sorted(name for name in walk.reads_mutable if name not in effects.changes)),
        is_complete=walk.is_complete,
        held=tuple(walk.held),
        shapes=tuple(walk.shapes),
        codes=tuple(walk.codes),
    )


# The latest look at each function, by the identity of its code; one per function, replaced whole.
_known: dict[tuple[int, int], Dependencies] = {}


def known_dependencies(func: Callable[..., Any], items: Iterable[Any] = ()) -> Dependencies:
    """
    Return what a function can reach, from the latest look at it where nothing it names has changed since.

    Args:
        func: Any callable.
        items: Some of the items it is to be given, as far as they are known; those of the latest look, if none are.
    """
    # A bound method is a new object each time it is asked for.
    key = (id(func.__func__), id(func.__self__)) if is_of(func, types.MethodType) else (id(func), 0)
    found = _known.get(key)
    if found is not None and not _is_same(found.func, func):
        found = None
    known = () if found is None else found.parts
    parts = _parts(items)
    is_covered = all(any(part is one for one in known) for part in parts)
    if found is not None and is_covered and found.holds():
        return found
    if len(_known) >= bounds.MOST_KNOWN:
        _known.clear()  # never iterated over: other threads may look at functions meanwhile
    found = _known[key] = dependencies(func, known if is_covered else parts)
    return found


def of_each_kind(data: Sequence[Any], n_first: int) -> Sequence[Any]:
    """Return the first items, and of what later ones are or hold one of each further kind that the program has made."""
    first = data[:n_first]
    rest = data[n_first :: 1 + len(data) // bounds.MOST_TYPED]
    holders = [item for item in rest if type(item) in _HOLDERS] if _HOLDERS & set(map(type, rest)) else []
    held = itertools.chain.from_iterable(map(_held_by, holders))
    seen = {id(part) for part in _parts(first)}
    more = {**_with_code(rest, seen), **_with_code(list(itertools.islice(held, bounds.MOST_TYPED)), seen)}
    return [*first, *more.values()] if more else first


_HOLDERS: Final = frozenset({tuple, list, dict})


def _held_by(item: Any) -> Iterable[Any]:
    kind = type(item)
    if kind is tuple or kind is list:
        return item[: bounds.MOST_HELD]  # type: ignore[no-any-return]  # a tuple or a list
    return itertools.islice(item.values(), bounds.MOST_HELD) if kind is dict else ()


def _with_code(values: Sequence[Any], seen: set[int]) -> dict[int, Any]:
    """Return one value for each class of the program, and for each function, that is among them and was not seen."""
    kinds = {
        kind
        for kind in set(map(type, values))
        if kind in _FUNCTIONS or (id(kind) not in seen and inert.is_python_class(kind))
    }
    return {id(part): value for value in values if type(value) in kinds for part in _parts_of(value)} if kinds else {}


_FUNCTIONS: Final = frozenset({types.FunctionType, types.MethodType})


def _parts(items: Iterable[Any]) -> tuple[Any, ...]:
    """Return what items are or hold and the function may call: classes of the program, for their objects; functions."""
    found: dict[int, Any] = {}
    for item in items:
        if type(item) not in inert.SCALARS:
            for value in (item, *_held_by(item)):
                found |= {id(part): part for part in _parts_of(value)}
    return tuple(itertools.islice(found.values(), bounds.MOST_PARTS + 1))


def _parts_of(value: Any) -> Iterator[Any]:
    """Yield the class of an object of the program, or the function that a value is, and the class it is bound to."""
    kind: Any = type(value)
    if kind is types.MethodType:
        yield from _parts_of(value.__func__)
        kind = type(value.__self__)
    if kind is types.FunctionType:
        if not inert.is_inert(inert.code_module(value)):
            yield value
    elif inert.is_python_class(kind) and not inert.is_inert(module_of(kind)):
        yield kind


def _is_same(one: Any, other: Any) -> bool:
    if is_of(one, types.MethodType) and is_of(other, types.MethodType):
        return one.__func__ is other.__func__ and one.__self__ is other.__self__
    return one is other
