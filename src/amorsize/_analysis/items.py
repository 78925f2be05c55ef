"""
What items are and hold that a function may call: classes of the program, for their objects, and functions.

A method of an item runs code that the function does not name, and so does one of what an item holds: in a tuple, a
list, a dictionary, or an attribute. One of each kind is enough: the code is the class's.
"""

from __future__ import annotations

import collections
import functools
import gc
import itertools
import types
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize._analysis import bounds, inert
from amorsize._analysis.values import ABSENT, cell_value, own_attributes
from amorsize._attribute import is_of, module_of, once_per_class, wrapped_function

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

_GENERATORS: Final = frozenset({types.GeneratorType, types.CoroutineType})
_WITH_CODE: Final = frozenset(
    {types.FunctionType, types.MethodType, collections.defaultdict, inert.CACHED, *_GENERATORS}
)

# Types of what an object refers to that has plain values only: these, and its class.
_PLAIN: Final = inert.SCALARS | {type}

_SEQUENCES: Final = (list, tuple, set, frozenset, collections.deque)
_BUILT_IN: Final = frozenset({dict, *_SEQUENCES})


class Part(NamedTuple):
    """
    Something with code of the program's that items are or hold.

    Attributes:
        owner: The class whose objects hold it in an attribute; None for the item itself.
        name: The attribute; ANYWHERE, where that is not known.
        n_deep: How many containers, in the item or the attribute, it is in.
        value: A class, for its objects; or a function.
        me: The class of the object that the function is bound to; ``type``, where a class itself is meant, and
            GeneratorType, where the function runs when the value is used: a generator's code, a defaultdict's factory.
    """

    owner: type | None
    name: str
    n_deep: int
    value: Any
    me: type | None


ANYWHERE: Final = "*"


class Late:
    """What some later item holds, anywhere in it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def parts_of_items(items: Iterable[Any]) -> dict[tuple[Any, ...], Part]:
    """Return what items are or hold and the function may call, by what tells it from other parts."""
    found: dict[tuple[Any, ...], Part] = {}
    done: set[int] = set()
    for item in items:
        kind = type(item)
        if kind in inert.SCALARS or (id(kind) in done and _PLAIN.issuperset(map(type, gc.get_referents(item)))):
            continue  # another object of the same class that holds plain values only
        done.add(id(kind))
        _add_parts(found, item)
        if len(found) > bounds.MOST_PARTS and n_kinds(found.values()) > bounds.MOST_PARTS:
            break
    return found


def n_kinds(parts: Iterable[Part]) -> int:
    """Return how many classes and functions there are among some parts."""
    return len({_identity(part.value) for part in parts})


def _identity(part: Any) -> int:
    """Return what tells classes and functions from one another: functions that differ in nothing are one."""
    is_plain = type(part) is types.FunctionType and not (part.__defaults__ or part.__kwdefaults__)
    is_plain = is_plain and all(cell_value(cell) is ABSENT for cell in part.__closure__ or ())
    return id(part.__code__ if is_plain else part)


def _add_parts(found: dict[tuple[Any, ...], Part], item: Any) -> None:
    value, name = (item.value, ANYWHERE) if type(item) is Late else (item, "")
    layer: list[tuple[type | None, str, int, Any]] = [(None, name, 0, value)]
    seen: set[int] = set()
    for _ in range(bounds.MOST_DEEP + 1):
        inner: list[tuple[type | None, str, int, Any]] = []
        for owner, name, n_deep, value in layer:
            for part, me in _code_of(value):
                key = (id(owner), name, min(n_deep, 2), _identity(part), id(me))
                found.setdefault(key, Part(owner, name, n_deep, part, me))
            if id(value) not in seen:
                seen.add(id(value))
                inner += _held_in(owner, name, n_deep, value)
        if not inner:
            return
        layer = inner[: bounds.MOST_LAYER]


def _held_in(owner: type | None, name: str, n_deep: int, value: Any) -> list[tuple[type | None, str, int, Any]]:
    """Return what a value holds that is no plain value: the class and the attribute it is in, how deep, and itself."""
    kind: Any = type(value)
    if kind is types.MethodType:
        return _held_in(None, ANYWHERE, 0, value.__self__)
    plain = _plain_iter(kind)
    if kind is types.SimpleNamespace:
        held = list(vars(value).values())
    elif kind is functools.partial:
        held = [value.func, *value.args, *value.keywords.values()]
    else:
        held = [] if plain is None else list(itertools.islice(plain(value), bounds.MOST_HELD))
    found = [(owner, name, n_deep + 1, one) for one in held[: bounds.MOST_IN_ITEM] if type(one) not in inert.SCALARS]
    if is_followed(kind):
        own = itertools.islice(own_attributes(value), bounds.MOST_IN_ITEM)
        found += [(kind, name, 0, one) for name, one in own if type(one) not in inert.SCALARS]
    return found


def of_each_kind(data: Sequence[Any], n_first: int) -> Sequence[Any]:
    """Return the first items, and of what later ones are or hold one of each further kind that the program has made."""
    first = data[:n_first]
    layer = data[n_first :: 1 + len(data) // bounds.MOST_TYPED]
    kinds = set(map(type, layer)) - inert.SCALARS
    if not kinds:
        return first
    more: dict[int, Any] = {}
    seen = {_identity(part.value) for part in parts_of_items(first).values()}
    for depth in range(bounds.MOST_DEEP + 1):
        found = _with_code(layer, kinds, seen)
        more = {key: Late(value) for key, value in found.items()} | more if depth else found
        layer = _held_by(layer, kinds, bounds.MOST_TYPED if depth else bounds.MOST_ATTRIBUTES)
        kinds = {kind for kind in set(map(type, layer)) - inert.SCALARS if not issubclass(kind, type)}
        if not kinds:
            break
    return [*first, *more.values()] if more else first


def come_again(data: Sequence[Any], n_first: int, kinds: Collection[type]) -> bool:
    """Tell whether an object of some classes, or one that is used up or has a position, is met twice in later items."""
    layer = data[n_first :: 1 + len(data) // bounds.MOST_TYPED]
    for _ in range(bounds.MOST_DEEP):
        found = set(map(type, layer)) - inert.SCALARS
        wanted = {kind for kind in found if kind in kinds or is_used_up(kind)}
        met = [id(value) for value in layer if type(value) in wanted] if wanted else []
        if len(set(met)) < len(met):
            return True
        layer = _held_by(layer, {kind for kind in found if not issubclass(kind, type)}, bounds.MOST_TYPED)
    return False


def is_used_up(kind: type) -> bool:
    """Tell whether using an object of a class leaves it in another state."""
    return inert.kind_of_class(kind) in {"iterator", "generator", "state"}


class Kinds:
    """The kinds of items that have come one by one, so that one of another kind is told at once."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._seen = {_signature(item, bounds.MOST_DEEP) for item in items}

    def are_new(self, item: Any) -> bool:
        """Tell whether an item is of another kind than all before, or holds something that is: 50 ns for a number."""
        if type(item) in inert.SCALARS:
            return False
        signature = _signature(item, bounds.MOST_DEEP)
        if signature in self._seen:
            return False
        self._seen.add(signature)
        return True


def _signature(value: Any, depth: int) -> Any:
    """Return what tells kinds of items from one another: classes and functions, not how many there are of each."""
    kind: Any = type(value)
    if kind is types.FunctionType:
        return kind, value.__code__
    if kind in _GENERATORS:
        return kind, value.cr_code if kind is types.CoroutineType else value.gi_code
    if kind is types.MethodType:
        return kind, getattr(value.__func__, "__code__", None), id(type(value.__self__))
    held = _values_in(value) if depth else ()
    return id(kind), frozenset(_signature(one, depth - 1) for one in held if type(one) not in inert.SCALARS)


@once_per_class
def is_followed(kind: type) -> bool:
    """Tell whether objects of a class have code of the program's."""
    return inert.is_python_class(kind) and not inert.is_inert(module_of(kind))


@once_per_class
def _plain_iter(kind: type) -> Callable[[Any], Iterable[Any]] | None:
    """Return what iterates over the values of a built-in container, or of one derived from it; None for others."""
    if issubclass(kind, dict):
        return dict.values
    if kind is types.MappingProxyType:
        return lambda value: dict.values(held) if is_of(held := gc.get_referents(value)[0], dict) else ()
    if kind is weakref.ReferenceType:
        return lambda value: () if (held := weakref.ReferenceType.__call__(value)) is None else (held,)
    if inert.kind_of_class(kind) == "object" and inert.is_python_class(kind) and inert.is_inert(module_of(kind)):
        return lambda value: [inner for _, inner in own_attributes(value)]  # of a ChainMap, a UserDict, a Namespace
    base: Any = next((base for base in _SEQUENCES if issubclass(kind, base)), None)
    return None if base is None else base.__iter__


@once_per_class
def _has_attributes(kind: type) -> bool:
    """Tell whether what objects of a class refer to is looked at: their attributes, and what is bound or partial."""
    return kind in {types.SimpleNamespace, types.MethodType, functools.partial} or is_followed(kind)


def _values_in(value: Any) -> list[Any]:
    """
    Return what a value holds, without running code of its class.

    The attributes of an object are asked of the garbage collector: reading ``__dict__`` would make one for each object.
    """
    kind = type(value)
    plain = _plain_iter(kind)
    held = [] if plain is None else list(itertools.islice(plain(value), bounds.MOST_HELD))
    if _has_attributes(kind) and (plain is None or is_followed(kind)):
        found = gc.get_referents(value) if plain is None else [inner for _, inner in own_attributes(value)]
        held += [inner for inner in found if not issubclass(type(inner), type)]
    return held


def _held_by(layer: Sequence[Any], kinds: set[type], most: int) -> list[Any]:
    """Return what values of some kinds hold; where that is more than *most*, of every second, third and so on."""
    plain = kinds & _BUILT_IN
    others = {kind for kind in kinds - _BUILT_IN if _plain_iter(kind) is not None}
    objects = {kind for kind in kinds - others if _has_attributes(kind)}
    held: list[Any] = []
    if plain:
        found = [value for value in layer if type(value) in plain]
        n_held = sum(map(len, found))
        if n_held < bounds.MOST_TYPES:
            held += gc.get_referents(*found[:: 1 + n_held // most])
        else:
            others |= plain
    if others:
        inner = map(_values_in, (value for value in layer if type(value) in others))
        held += itertools.islice(itertools.chain.from_iterable(inner), bounds.MOST_TYPED)
    if objects:
        found = [value for value in layer if type(value) in objects]  # their classes are among what they refer to
        n_each = max(len(gc.get_referents(value)) for value in found[:2])
        held += gc.get_referents(*found[:: 1 + n_each * len(found) // most])
    return held


def _with_code(values: Sequence[Any], kinds: set[type], seen: set[int]) -> dict[int, Any]:
    """Return one value for each class of the program, and each function, that was not seen, and what is used up."""
    found = {id(kind): next(v for v in values if type(v) is kind) for kind in kinds if is_used_up(kind)}
    kinds = {
        kind
        for kind in kinds
        if kind in _WITH_CODE or issubclass(kind, type) or (id(kind) not in seen and is_followed(kind))
    }
    for value in values if kinds else ():
        if type(value) in kinds:
            found |= {key: value for part, _ in _code_of(value) if (key := _identity(part)) not in seen}
    return found


def _code_of(value: Any) -> Iterator[tuple[Any, type | None]]:  # noqa: C901 - one branch per kind of value
    """Yield the class of an object of the program, or the function that a value is and the class it is bound to."""
    kind: Any = type(value)
    if issubclass(kind, type):
        if is_followed(value):
            yield value, type
        if is_followed(kind):
            yield kind, None
    elif kind is types.MethodType:
        me = type(value.__self__)
        yield from ((part, me) for part, _ in _code_of(value.__func__))
        if is_followed(me):
            yield me, None
    elif kind is types.FunctionType:
        if not inert.is_inert(inert.code_module(value)):
            yield value, None
    elif kind in _GENERATORS:
        if (func := _of_generator(value)) is not None:
            yield func, types.GeneratorType
    elif kind is collections.defaultdict:
        yield from ((part, types.GeneratorType) for part, me in _code_of(value.default_factory) if me in {None, type})
    elif kind is inert.CACHED or wrapped_function(value) is not None:
        yield value, None
    elif is_followed(kind):
        yield kind, None


def _of_generator(value: Any) -> types.FunctionType | None:
    """Return a function with the code of a generator or coroutine that has not ended, without what it holds."""
    is_coroutine = type(value) is types.CoroutineType
    frame = value.cr_frame if is_coroutine else value.gi_frame
    if frame is None or inert.is_inert(frame.f_globals.get("__name__", "")):
        return None
    code = frame.f_code
    return types.FunctionType(
        code, frame.f_globals, code.co_name, None, tuple(types.CellType() for _ in code.co_freevars)
    )
