"""
What the caller has changed inside objects that cannot be pickled, for the objects that a worker's own import has made.

    client = Client()              holds a lock, and so cannot be sent; a worker's import has made one, too
    client.headers["a"] = 2  ──►   Update("client.Client", headers={"a": 2}, lock=Update("_thread.lock"))

Of what nothing is known but its type (a lock, a connection, an object of a library), a worker's own does, if it has one
of that type; if not, what is told here was made after the import, and the function cannot run there.
"""

from __future__ import annotations

import contextvars
import functools
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize import _analysis
from amorsize._attribute import is_of, module_of, path_of
from amorsize._backend import _bounds as bounds
from amorsize._backend._worker import UnsendableFunctionError

if TYPE_CHECKING:
    from collections.abc import Callable

_ABSENT: Final = object()

# Classes of the library whose attributes are all of their state; others, executors say, are more than that.
_PLAIN: Final = frozenset({"threading.Event", "queue.Queue", "queue.LifoQueue", "queue.PriorityQueue"})


class Update(NamedTuple):
    """
    What an object of the caller has that a worker's own may lack.

    Attributes:
        kind: The type of both, in words.
        parts: Attributes or items, by name, key or index; None where nothing is known of them.
    """

    kind: str
    parts: dict[Any, Any] | None = None


def described(value: Any, can_be_pickled: Callable[[Any], bool], depth: int = 0) -> Any:
    """Return a value that can be pickled as it is, and of any other what can be told of it."""
    kind = type(value)
    if kind is contextvars.ContextVar:
        now = value.get(_ABSENT)
        return Update(path_of(kind), {} if now is _ABSENT else {"value": described(now, can_be_pickled, depth + 1)})
    if can_be_pickled(value):
        return value
    parts = None if depth > bounds.DEEPEST_UPDATE else _parts_of(value)
    if parts is None or not can_be_pickled([*parts]) or len(parts) > bounds.MOST_PARTS:
        return Update(path_of(kind))
    return Update(path_of(kind), {name: described(part, can_be_pickled, depth + 1) for name, part in parts.items()})


def _parts_of(value: Any) -> dict[Any, Any] | None:
    kind = type(value)
    if kind is dict:
        return dict(value)
    if kind is list:
        return dict(enumerate(value))
    if path_of(kind) == "_thread._local":
        return dict(vars(value))
    is_program_s = _analysis.kind_of_class(kind) == "object" and not _analysis.is_inert_package(module_of(kind))
    is_object = (is_program_s or path_of(kind) in _PLAIN) and not is_of(value, BaseException)
    return dict(_analysis.own_attributes(value)) if is_object else None


_DISPATCH: Final = "functools.singledispatch"


def dispatched(func: Any) -> Update | None:
    """Return what the program has registered with a function of ``singledispatch`` elsewhere than in its module."""
    if not is_of(func, types.FunctionType) or func.__code__.co_qualname != "singledispatch.<locals>.wrapper":
        return None
    added = {kind: way for kind, way in _registry(func).items() if way.__module__ != func.__module__}
    return Update(_DISPATCH, added) if added else None


def _registry(func: Any) -> dict[Any, Any]:
    names = func.register.__code__.co_freevars
    found: dict[Any, Any] = func.register.__closure__[names.index("registry")].cell_contents
    return found


def _register(func: Any, added: dict[Any, Any], undo: list[Callable[[], Any]]) -> None:
    registry = _registry(func)
    before = dict(registry)

    def take_back() -> None:
        registry.clear()
        registry.update(before)
        func._clear_cache()  # noqa: SLF001 - what it offers for this

    undo.append(take_back)
    for kind, way in added.items():
        func.register(kind, way)


def update(found: Any, wanted: Update, where: str, undo: list[Callable[[], Any]]) -> None:
    """
    Give *found*, a worker's object, what the caller's has; *where* is the way to it, in words.

    What takes it back is put into *undo*, the last thing first. Raises UnsendableFunctionError if the worker has
    none of that type.
    """
    if wanted.kind == _DISPATCH and hasattr(found, "register"):
        _register(found, wanted.parts or {}, undo)
        return
    if path_of(type(found)) != wanted.kind:
        message = f"{where} is a {wanted.kind}, which exists in the calling process only"
        raise UnsendableFunctionError(message)
    if wanted.parts is None:
        return
    if is_of(found, contextvars.ContextVar):
        if "value" in wanted.parts:
            undo.append(functools.partial(found.reset, found.set(wanted.parts["value"])))
        return
    here = _parts_of(found) or {}
    get, put, remove = _ways(found)
    for name in here.keys() - wanted.parts.keys():
        undo.append(functools.partial(put, name, get(name)))
        remove(name)
    for name, part in wanted.parts.items():
        if type(part) is Update:
            update(here.get(name, _ABSENT), part, f"{where}.{name}", undo)
        elif name in here:
            undo.append(functools.partial(put, name, get(name)))
            put(name, part)
        else:
            undo.append(functools.partial(remove, name))
            put(name, part)


def _ways(found: Any) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any], Callable[[Any], Any]]:
    if type(found) in {dict, list}:
        return found.__getitem__, found.__setitem__, found.__delitem__
    if path_of(type(found)) == "_thread._local":
        held = vars(found)
        return held.__getitem__, held.__setitem__, held.__delitem__
    return (
        functools.partial(object.__getattribute__, found),
        functools.partial(object.__setattr__, found),
        functools.partial(object.__delattr__, found),
    )
